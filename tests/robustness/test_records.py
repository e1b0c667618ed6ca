"""Records that were changed, lost or put in another's place: refused with code 5, by whichever verb reads them."""

import json
import shutil

import pytest

from distributed_dd.cli import main
from tests.conftest import tiny_text
from tests.end_to_end.test_run import HERE, run_folder


@pytest.fixture(scope="module")
def two_once(tmp_path_factory):
    """Two finished runs that share their experts: the configuration, the first, the second, and a copy of all."""
    tiny = tmp_path_factory.mktemp("two") / "tiny.yaml"
    tiny.write_text(tiny_text(tiny.parent / "runs"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTRIBUTED_DD_CACHE", str(tiny.parent / "cache"))
        assert main(["run", str(tiny), *HERE]) == 0
        first = run_folder(tiny)
        assert main(["run", str(tiny), "seed=0", "method.student_steps=2", *HERE]) == 0
    (second,) = {*(tiny.parent / "runs").glob("digits-*")} - {first}
    return tiny, first, second, shutil.copytree(tiny.parent / "runs", tiny.parent / "untouched")


@pytest.fixture
def two(two_once):
    """The two runs as they were, whatever another test did to them, and the arguments of the first."""
    tiny, first, second, untouched = two_once
    shutil.rmtree(tiny.parent / "runs")
    shutil.copytree(untouched, tiny.parent / "runs")
    return first, second, ["run", str(tiny), *HERE]


def edited(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def replaced(target, source):
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


DAMAGES = {
    "another run's report": lambda a, b: replaced(a / "report.json", b / "report.json"),
    "another run's set": lambda a, b: replaced(a / "distilled", b / "distilled"),
    "class names in another order": lambda a, b: edited(
        a / "distilled" / "manifest.json", lambda values: values["class_names"].reverse()
    ),
    "an accuracy changed": lambda a, b: edited(
        a / "report.json", lambda values: values["rows"][0].update(accuracy_mean=0.99)
    ),
    "no last step": lambda a, b: (a / "distilled" / "last_step.safetensors").unlink(),
    "a report of another shape": lambda a, b: (a / "report.json").write_text("42"),
    "a manifest that is a list": lambda a, b: (a / "distilled" / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_finished_run_refuses_what_is_not_its_own(two, what, capsys):
    first, second, run = two
    DAMAGES[what](first, second)
    capsys.readouterr()
    assert main(run) == (3 if what == "no last step" else 5)
    assert str(first) in capsys.readouterr().err


def test_an_expert_in_anothers_place_is_refused(two, capsys):
    first, _, run = two
    (store,) = (first.parent / "experts").iterdir()
    for ending in ("json", "safetensors"):
        shutil.copy(store / f"expert-0001.{ending}", store / f"expert-0000.{ending}")
    assert main([*run[:2], "seed=0", "method.student_steps=1", *HERE]) == 5
    assert "is the record of expert 1" in capsys.readouterr().err


def test_a_broken_run_is_left_out_of_a_comparison_and_named(two, capsys):
    first, second, _ = two
    replaced(first / "report.json", second / "report.json")
    capsys.readouterr()
    assert main(["report", str(first.parent)]) == 0
    assert f"{first.name} is left out" in capsys.readouterr().out


def test_a_broken_run_that_is_named_alone_is_an_error(two, capsys):
    first, second, _ = two
    replaced(first / "report.json", second / "report.json")
    capsys.readouterr()
    assert main(["report", str(first)]) == 5
    assert str(first / "report.json") in capsys.readouterr().err


def test_another_runs_set_is_not_evaluated_as_this_ones(two, capsys):
    first, second, _ = two
    replaced(first / "distilled", second / "distilled")
    small = ["networks=[mlp]", "num_networks=1", "full_data=false"]
    assert main(["evaluate", str(first), *small, *HERE]) == 5
    assert "method.student_steps differ" in capsys.readouterr().err
