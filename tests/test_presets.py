"""Configurations by name, from any folder."""

from pathlib import Path

import pytest

from distributed_dd import presets
from distributed_dd.cli import main
from tests.conftest import ROOT

FILE = ROOT / "configs/digits/datm_ipc10.yaml"


@pytest.mark.parametrize(
    "name",
    ["digits/datm_ipc10", "digits/datm_ipc10.yaml", "configs/digits/datm_ipc10.yaml", "configs/digits/datm_ipc10"],
)
def test_a_name_is_that_of_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.located(Path(name)) == FILE


def test_a_file_of_ones_own_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path("digits/datm_ipc10.yaml")
    own.parent.mkdir()
    own.write_text("images_per_class: 1")
    assert presets.located(own) == own and presets.located(Path("digits/datm_ipc10")) == FILE


@pytest.mark.parametrize(
    "name", ["digits", "digits/nothing", "../configs/digits/datm_ipc10.yaml", "x" * 5000, "", "/digits"]
)
def test_other_paths_stay(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.located(Path(name)) == Path(name)


def test_a_near_name_is_proposed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits/datm_ipc11"]) == 3
    assert "digits/datm_ipc10" in capsys.readouterr().err
    assert main(["show", "nothing_like_it"]) == 3
    assert "distributed-dd configs" in capsys.readouterr().err


def test_they_are_listed_with_what_they_cost_and_reach(capsys):
    assert main(["configs"]) == 0
    every = capsys.readouterr().out
    assert all(f"{name}\n" in every for name in presets.names())
    assert main(["configs", "digits", "bptt"]) == 0
    some = capsys.readouterr().out
    assert "digits/bptt_ipc1" in some and "Measured: " in some and "mnist" not in some
    assert main(["configs", "digits/datm_ipc10"]) == 0
    assert str(FILE) in capsys.readouterr().out
    assert main(["configs", "digit", "nothing"]) == 2


@pytest.mark.parametrize("name", presets.names())
def test_the_head_of_each_says_what_it_is(name):
    preset = presets.described(name)
    assert preset.title
    if "_ipc" in name:
        assert preset.facts.keys() & {"Cost"}
