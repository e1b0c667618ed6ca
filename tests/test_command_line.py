"""Words on the command line that are not as they should be, and readers that go away."""

import os
import subprocess
import sys

import pytest

from distributed_dd.arguments import VERBS
from distributed_dd.cli import main


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["run", "digits/dm_ipc1", "--images_per_class", "3"], "images_per_class=3"),
        (["run", "digits/dm_ipc1", "--images-per-class=3"], "images_per_class=3"),
        (["show", "--experts.num-experts", "3", "digits/dm_ipc1"], "experts.num_experts=3"),
        (["report", "--seed=1", "runs"], "seed=1"),
        (["tune", "tune/digits_datm_window", "--num_trials", "--on", "x"], "num_trials=VALUE"),
        (["run", "--output", "seed=1"], "output=VALUE"),
    ],
)
def test_a_setting_with_dashes_is_answered_with_the_right_form(words, right, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.endswith(f"  to do:   {right}\n") and "settings are written key=value" in said.err
    assert not said.out


def test_an_option_that_was_meant_is_named(capsys):
    assert main(["run", "digits/dm_ipc1", "--onn", "x"]) == 2
    assert "did you mean '--on'?" in capsys.readouterr().err


def test_options_and_their_short_forms_stay_options(tmp_path, capsys):
    assert main(["run", str(tmp_path / "gone.yaml"), "--o", "clusters/in_process"]) == 3
    with pytest.raises(SystemExit):
        main(["bench", "--seed", "3"])  # a verb without settings
    assert "key=value" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "-h"])
    assert ended.value.code == 0 and f"usage: distributed-dd {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["-h"], ["run", "-h"], ["configs"], ["kinds"], ["kinds", "method"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(words):
    """As `| head -1` does: Python's own complaint at its end would be a traceback too."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "distributed_dd", *words]
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert done.stderr == "" and done.returncode in (0, 1)
