"""The verbs as functions of Python: the same folders as the command line, and a process that stays as it was."""

import builtins
import contextlib
import dataclasses
import io
import json
import logging
import pydoc
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy
import pandas
import pytest
import torch

import distributed_dd
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.cli import main
from distributed_dd.errors import ConfigError, LockedError, MissingInputError, UserError
from distributed_dd.locks import locked
from distributed_dd.methods.generative.artefact import Generator
from tests.conftest import ROOT, tiny_gan_text

IN_PROCESS = {"kind": "in_process"}
HERE = ["--on", "clusters/in_process"]


def state_of(folder: Path) -> dict:
    """All files below a folder, with what changes where one is written."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def test_it_is_the_run_of_the_command_line_in_the_same_folder(tiny_yaml, capsys):
    """Catches an override that comes through as something else: another digest, and so another folder."""
    typed = [
        "num_outer_steps=4",
        "evaluate.num_networks=2",
        "method.student_learning_rate=0.05",
        "experts.num_epochs=4",
    ]
    assert main(["run", str(tiny_yaml), *typed, *HERE]) == 0
    (folder,) = (tiny_yaml.parent / "runs").glob("digits-*-????????")
    before = state_of(folder)
    capsys.readouterr()
    groups = {"evaluate": {"num_networks": 2}, "method.student_learning_rate": numpy.float64(0.05)}
    result = distributed_dd.run(tiny_yaml, on=IN_PROCESS, overrides=groups, num_outer_steps=4)
    assert result.folder == folder and state_of(folder) == before
    assert "already finished; nothing was done again" in capsys.readouterr().out
    assert result.report == json.loads((folder / "report.json").read_text())
    dotted = {"evaluate.num_networks": numpy.int64(2), "num_outer_steps": 4, "output": tiny_yaml.parent / "runs"}
    assert distributed_dd.run(str(tiny_yaml), on="clusters/in_process", **dotted).folder == folder
    assert distributed_dd.report(tiny_yaml, **dotted).report == result.report


def test_the_command_line_finds_what_python_made(tiny_yaml, capsys):
    result = distributed_dd.run(tiny_yaml, on=IN_PROCESS, evaluate={"num_networks": 2})
    said = capsys.readouterr().out
    assert "outer step 6: validation accuracy" in said and "test accuracy" not in said, "progress, and no table"
    log = (result.folder / "log.txt").read_text()
    assert log.rstrip().endswith(f"output:   {tiny_yaml.parent / 'runs' / result.folder.name}"), "as of the verb"
    assert main(["run", str(tiny_yaml), "evaluate.num_networks=2", *HERE]) == 0
    assert "already finished" in capsys.readouterr().out


def test_keywords_win_over_the_mapping_and_both_over_plain_values():
    from distributed_dd.api.inputs import run_of

    values = {"images_per_class": 1, "num_outer_steps": 3, "data": "digits", "method": "distribution_matching"}
    run = run_of(values, {"num_outer_steps": 4, "seed": 1, "network": {"kind": "mlp"}}, {"num_outer_steps": 5}, None)
    e = run.experiment
    assert (e.images_per_class, e.num_outer_steps, e.seed, type(e.network).__name__) == (1, 5, 1, "MLP")


def test_a_result_holds_what_was_made(finished, tiny_yaml):
    result = distributed_dd.report(tiny_yaml)
    assert result.folder == finished
    row = result.rows[0]
    assert row["name"] == "distilled" and result.accuracy == (row["accuracy_mean"], row["accuracy_std"])
    assert [metrics["step"] for metrics in result.metrics] == [1, 2, 3, 4, 5, 6]
    assert result.figures == [finished / "distilled" / "preview.png"]
    assert torch.equal(result.set.images, distributed_dd.load_distilled(finished).images)
    percent = f"{100 * result.accuracy.mean:.1f} ± {100 * result.accuracy.std:.1f} %"
    assert repr(result) == f"Result(datm on digits, 1 per class: {percent}, {finished})"
    unchanged = dataclasses.replace(result, report=result.report | {"unchanged": True})
    assert "%, nothing was learned, " in repr(unchanged)
    frame = pandas.DataFrame(result.rows)
    assert list(frame["name"]) == [row["name"] for row in result.rows] and frame["accuracy_mean"].between(0, 1).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.folder = Path("elsewhere")


def test_a_distilled_set_is_not_tested_until_it_is_evaluated(tiny_yaml):
    result = distributed_dd.distill(tiny_yaml, on=IN_PROCESS, num_outer_steps=3)
    assert (result.rows, result.accuracy, result.report) == ([], None, {}) and len(result.set) == 10
    assert not (result.folder / "report.json").exists() and "not tested, " in repr(result)
    tested = distributed_dd.evaluate(tiny_yaml, on=IN_PROCESS, num_outer_steps=3)
    assert tested.folder == result.folder and tested.accuracy is not None
    assert distributed_dd.distill(tiny_yaml, on=IN_PROCESS, num_outer_steps=3).accuracy == tested.accuracy


def test_results_are_tried_on_other_networks_and_compared(finished, tiny_yaml):
    settings = {"networks": [{"kind": "mlp", "depth": 1, "width": 8}, "mlp"], "num_networks": 1, "full_data": False}
    result = distributed_dd.report(tiny_yaml)
    evaluated = distributed_dd.evaluate(result, on=IN_PROCESS, controls=[], overrides=settings)
    assert {row["network"] for row in evaluated.rows} == {"mlp depth=1 width=8", "mlp"}
    assert {row["name"] for row in evaluated.rows} >= {"distilled", "random_real"} and evaluated.page.exists()
    assert repr(evaluated).startswith("Evaluated(digits, datm, 1 image per class: test accuracy, %, 1 network, ")
    again = distributed_dd.evaluate(finished, on=IN_PROCESS, controls=[], overrides=settings)
    assert again.rows == evaluated.rows
    compared = distributed_dd.report([result, finished], to=tiny_yaml.parent / "side by side")
    assert [row["run"] for row in compared.rows] == [finished.name] * len(result.rows), "one run, named twice"
    assert all(picture.exists() for picture in compared.figures) and (compared.folder / "report.csv").exists()
    assert "accuracy_mean" in pandas.DataFrame(compared.rows)


def test_a_set_of_others_is_judged_by_a_configuration(finished, tiny_yaml, tmp_path, warm_readers):
    assert main(["export", str(finished), "--as", "npz", "--to", str(tmp_path / "theirs")]) == 0
    (theirs,) = (tmp_path / "theirs").glob("*.npz")
    with pytest.raises(ConfigError, match="which data and recipe"):
        distributed_dd.evaluate(theirs, on=IN_PROCESS)
    evaluated = distributed_dd.evaluate(theirs, tiny_yaml, on=IN_PROCESS, num_networks=1, full_data=False, controls=[])
    assert evaluated.rows[0]["name"] == "distilled" and "imported" in evaluated.title


def test_of_a_generative_method_the_generator_is_what_was_made(tmp_path):
    (tmp_path / "gan.yaml").write_text(tiny_gan_text(tmp_path / "runs"))
    result = distributed_dd.run(tmp_path / "gan.yaml", on=IN_PROCESS, num_outer_steps=2, evaluate={"every": 2})
    assert isinstance(result.set, Generator) and len(result.set.sample(3)) == 30
    assert repr(result.set).startswith("Generator(digits by ") and "images of 1 × 8 × 8" in repr(result.set)
    assert result.accuracy is not None and len(result.figures) == 2
    settings = {"images_per_class": [1, 2], "num_networks": 1, "full_data": False, "controls": []}
    evaluated = distributed_dd.evaluate(result, on=IN_PROCESS, **settings)
    assert {row["images_per_class"] for row in evaluated.rows} == {1, 2}


REFUSED = {
    "an unknown key": (lambda f: distributed_dd.run(f, num_outer_stepz=3), ConfigError, "did you mean"),
    "a sum": (lambda f: distributed_dd.run(f, **{"a=b": 3}), ConfigError, "no key.path"),
    "a key of a number": (lambda f: distributed_dd.run(f, evaluate={1: 2}), ConfigError, "1"),
    "an object": (lambda f: distributed_dd.run(f, seed=object()), ConfigError, "seed"),
    "no mapping": (lambda f: distributed_dd.run(f, overrides=["seed=1"]), ConfigError, "overrides"),
    "no configuration": (lambda f: distributed_dd.run(3), ConfigError, "a dict of plain values"),
    "an unknown name": (lambda f: distributed_dd.run("digits/datm_ipc11"), MissingInputError, "digits/datm_ipc10"),
    "an unknown cluster": (lambda f: distributed_dd.run(f, on={"kind": "rays"}), ConfigError, "did you mean 'ray'"),
    "no checkpoint": (lambda f: distributed_dd.run(f, on=IN_PROCESS, resume="must"), MissingInputError, "checkpoint"),
    "no report": (lambda f: distributed_dd.report(f), MissingInputError, "no report yet"),
    "no set": (lambda f: distributed_dd.evaluate(f, on=IN_PROCESS), MissingInputError, "no distilled set"),
    "two configurations": (lambda f: distributed_dd.evaluate(f, f), ConfigError, "for sets of others"),
    "no folder": (lambda f: distributed_dd.evaluate("nowhere"), MissingInputError, "nowhere"),
    "no sweep": (lambda f: distributed_dd.tune(f), ConfigError, "no sweep file"),
    "no Ray Tune": (lambda f: distributed_dd.tune("tune/digits_datm_window", on=IN_PROCESS), ConfigError, "Ray Tune"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_an_exception_with_the_message_of_the_command_line(what, tiny_yaml):
    call, kind, text = REFUSED[what]
    with pytest.raises(kind, match=text) as caught:
        call(tiny_yaml)
    assert isinstance(caught.value, UserError)


def test_a_folder_that_another_works_in_is_refused(finished, tiny_yaml):
    with locked(finished, "run"), pytest.raises(LockedError):
        distributed_dd.run(tiny_yaml, on=IN_PROCESS, resume="never")


def loggers() -> dict:
    """Level, handlers and switches of every logger that is there."""
    there = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return {
        one: (one.level, one.propagate, one.disabled, [*one.handlers])
        for one in there
        if isinstance(one, logging.Logger)
    }


def surroundings() -> dict:
    """What a call could change of its process."""
    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "warnings": warnings.showwarning,
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
    }


def test_the_process_is_left_as_it_was(tiny_yaml, monkeypatch, two_cores):
    """With MLflow, which narrates, and Ray, which has handlers of its own."""
    import mlflow  # noqa: F401

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logging.getLogger("mlflow").setLevel(logging.DEBUG)
    logging.getLogger("ray").setLevel(logging.WARNING)
    before, of_loggers = surroundings(), loggers()
    distributed_dd.run(tiny_yaml, tracker="mlflow", num_outer_steps=2, evaluate={"num_networks": 1, "every": 2})
    assert surroundings() == before
    after = loggers()
    assert {one: after[one] for one in of_loggers} == of_loggers


def test_an_interrupt_comes_through_and_the_same_call_goes_on(tiny_yaml, monkeypatch):
    """SIGTERM as of a scheduler, which would end Python; catches handlers that stay, and a call that remembers."""
    say, before = ConsoleProgress.say, surroundings()["signals"]

    def say_and_interrupt(progress, text):
        say(progress, text)
        if text.startswith("outer step 3"):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ConsoleProgress, "say", say_and_interrupt)
        distributed_dd.run(tiny_yaml, on=IN_PROCESS)
    assert surroundings()["signals"] == before
    result = distributed_dd.run(tiny_yaml, on=IN_PROCESS, resume="must")
    assert [metrics["step"] for metrics in result.metrics] == [1, 2, 3, 4, 5, 6]


def test_a_handler_of_the_caller_s_own_stays_while_it_runs(tiny_yaml, monkeypatch):
    heard, say = [], ConsoleProgress.say

    def say_and_signal(progress, text):
        signal.raise_signal(signal.SIGTERM)
        say(progress, text)

    monkeypatch.setattr(ConsoleProgress, "say", say_and_signal)
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        distributed_dd.distill(tiny_yaml, on=IN_PROCESS, num_outer_steps=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(heard) == {signal.SIGTERM}


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_bars_where_it_has_the_widgets(widgets, monkeypatch):
    found = object() if widgets else None
    monkeypatch.setattr("distributed_dd.backends.local.console.find_spec", lambda name: found)
    progress = ConsoleProgress()
    progress.console.file = io.StringIO()
    assert not progress._draws(), "a file"
    progress.console.is_jupyter = True
    assert progress._draws() == widgets


def test_dir_and_help_say_what_is_public():
    assert dir(distributed_dd) == sorted(distributed_dd.__all__)
    lines = distributed_dd.__doc__.splitlines()
    named = [line.split()[0] for line in lines if line.startswith("    ")]
    assert sorted(named) == sorted(distributed_dd.__all__), "one line each"
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        pydoc.Helper(output=shown).help(distributed_dd)
    assert all(name in shown.getvalue() for name in distributed_dd.__all__)
    for name in distributed_dd.__all__:
        assert name == "__version__" or getattr(distributed_dd, name).__doc__, name


def test_no_file_of_the_package_takes_a_public_name():
    """An import of ``distributed_dd.run`` as a module would put it in the place of the function."""
    there = {path.stem for path in (ROOT / "distributed_dd").iterdir()}
    assert not there & set(distributed_dd.__all__)
    assert not set(distributed_dd.__all__) & {*dir(builtins)}


def test_looking_around_loads_nothing():
    code = (
        "import sys, distributed_dd; dir(distributed_dd); distributed_dd.UserError;"
        "print([m for m in ('torch','ray','deepspeed','mlflow','omegaconf','rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
