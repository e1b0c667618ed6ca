"""A run that learned nothing, or hardly anything, says so and why."""

import json

import pytest

from distributed_dd.cli import main
from distributed_dd.evaluation.learned import changes, in_words
from tests.conftest import ROOT

HERE = ["tracker=none", "--on", str(ROOT / "configs/clusters/in_process.yaml")]


def steps(*accepted):
    return [{"step": number, "accepted": one, "matching_loss": 1.25} for number, one in enumerate(accepted)]


@pytest.mark.parametrize(
    ("metrics", "unchanged", "says"),
    [
        (steps(1, 1, 2), False, None),
        (steps(1, 1, 0), False, None),
        (steps(0, 1, 0), False, "Only 1 of 3 outer steps changed the set. In the other 2 the matching loss (1.25"),
        (
            steps(0, 0),
            True,
            "Nothing was learned: 0 of 2 outer steps changed the set. In the other 2 the matching loss",
        ),
        ([{"step": 1, "loss": 0.1}], False, None),
        ([{"step": 1, "loss": 0.1}], True, "Nothing was learned: the set is the one that it began with."),
        ([], True, "Nothing was learned"),
    ],
)
def test_what_changed_the_set_is_counted_and_said(metrics, unchanged, says):
    report = json.loads(json.dumps(changes(metrics, "matching_loss", unchanged)))
    lines = in_words(report, "matching loss")
    assert [line.startswith(says) for line in lines] == ([True] if says else [])
    if says and "matching loss" in says:
        assert "method.gate" in lines[0] and "method.student_learning_rate" in lines[0]


@pytest.mark.parametrize(("gate", "nothing"), [("1e-9", True), ("null", False)])
def test_a_run_whose_gate_lets_nothing_through_says_so_everywhere(tiny_yaml, tmp_path, capsys, gate, nothing):
    assert main(["run", str(tiny_yaml), f"method.gate={gate}", *HERE]) == 0
    out = " ".join(capsys.readouterr().out.split())
    (file,) = (tmp_path / "runs").glob("digits-*/report.json")
    report = json.loads(file.read_text())
    num = report["num_outer_steps"]
    page = file.with_name("report.md").read_text()
    assert report.get("unchanged", False) == nothing
    for text in (out, page):
        assert (f"Nothing was learned: 0 of {num} outer steps changed the set" in text) == nothing
    assert (": nothing was learned" in page.splitlines()[0]) == nothing
