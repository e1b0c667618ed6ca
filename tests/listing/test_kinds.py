"""`kinds WORD` shows the part that a word names, and says what there is where it names none."""

import pydoc
import sys

import pytest

from distributed_dd.cli import main
from distributed_dd.commands.kinds import _catalogue
from distributed_dd.listing.parts import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return _catalogue()


def test_a_family_shows_its_kinds_with_type_and_default_apart(catalogue):
    title, expanding, window = catalogue.parts("method.segments")
    assert title.title == "method.segments (trajectory_matching): one of the kinds of segments"
    assert expanding.title == "method.segments.kind=expanding" and "ICLR 2024" in expanding.about
    rows = {row.name: row for row in window.rows}
    assert (rows["step"].type, rows["step"].default) == ("a number: 1e-06 or more", "1.0")
    assert rows["max_start_epoch"].default == "required"


@pytest.mark.parametrize(
    ("word", "title"),
    [
        ("seed", "seed"),
        ("data", "data: one of the kinds of data"),
        ("data.folder.size", "data.folder.size"),
        ("data.size", "data.size (mnist, fashion_mnist)"),
        ("experts", "experts"),
        ("set.frozen.share", "set.frozen.share"),
        ("evaluate.protocol.frepo", "evaluate.protocol.frepo"),
        ("resnet18", "resnet18 (a kind of network)"),
        ("network.resnet18", "network.resnet18"),
        ("form of a set", "form of a set: one of the kinds of form of a set"),
        ("cluster", "cluster: one of the kinds of cluster"),
        ("sweep", "sweep"),
        ("diagnose.num_sets", "diagnose.num_sets"),
    ],
)
def test_a_word_may_be_a_path_a_family_or_a_kind(word, title, catalogue):
    assert catalogue.parts(word)[0].title == title


def test_settings_of_one_name_that_differ_are_all_shown(catalogue):
    """Catches the start of sets shown for methods that have another."""
    titles = [part.title for part in catalogue.parts("method.start") if "one of the kinds" in part.title]
    assert titles[0] == "method.start (trajectory_matching): one of the kinds of start"
    assert titles[1].startswith("method.start (distribution_matching, gradient_matching")
    sizes = [part.rows[0].type for part in catalogue.parts("data.size")]
    assert len(sizes) == len(set(sizes)) == 2


def test_a_group_shows_the_defaults_that_hold_where_it_stands(catalogue):
    """Catches defaults of the group's own class in place of those that the method gives it."""
    for group, rate in (("label_optimizer", "2.0"), ("rate_optimizer", "1e-05")):
        (part,) = catalogue.parts(f"method.{group}")
        assert {row.name: row.default for row in part.rows}["learning_rate"] == rate


@pytest.mark.parametrize(
    ("word", "near"),
    [("metod", "method"), ("evaluate.protocl", "protocol"), ("method.segment", "segments"), ("resnet8", "resnet18")],
)
def test_an_unknown_word_names_the_nearest_first(word, near, capsys):
    assert main(["kinds", word]) == 2
    error = capsys.readouterr().err
    assert f"did you mean '{near}'?" in error and f"  allowed: {near}, " in error


def test_below_a_setting_there_is_nothing(capsys):
    assert main(["kinds", "seed.x"]) == 2
    assert "nothing below it" in capsys.readouterr().err


def test_a_part_is_printed_in_columns_and_nothing_else(capsys):
    assert main(["kinds", "form", "of", "a", "set"]) == 0 and "pixels" in capsys.readouterr().out
    assert main(["kinds", "method.segments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 20 and lines[4].split() == ["setting", "type", "default", "meaning"]


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_all_kinds_go_through_a_pager_on_a_terminal_only(on_a_terminal, monkeypatch, capsys):
    paged = []
    monkeypatch.setattr(pydoc, "pager", paged.append)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: on_a_terminal)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_a_terminal)
    assert main(["kinds"]) == 0
    text = "".join(paged) if on_a_terminal else capsys.readouterr().out
    assert "a configuration (FILE of run, show ..)" in text and "\x1b" not in text
    assert len(paged) == on_a_terminal
