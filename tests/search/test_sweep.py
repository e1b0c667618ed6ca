"""Budgets, rungs and the choice of a winner."""

from dataclasses import replace

import pytest

from distributed_dd.errors import ConfigError
from distributed_dd.family import build
from distributed_dd.learning.update_rules import SGD
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.segments import Window
from distributed_dd.search import study as studies
from distributed_dd.search.study import Study, TrialRecord
from distributed_dd.search.sweep import Asha, Population, Sweep, ToTheEnd
from distributed_dd.sweeps import pictures, tables
from tests.references.tables import unpadded

SPACE = {"method.student_steps": {"kind": "integers", "low": 1, "high": 9}}
FILE = {"base": "b.yaml", "images_per_class": [1], "space": SPACE, "num_trials": 4}
AXIS = TrajectoryMatching(image_optimizer=SGD(1.0), rate_optimizer=SGD(1.0), segments=Window(3)).sweep_axis()


@pytest.mark.parametrize(("steps", "rungs", "factor"), [(150, 3, 3.0), (27, 3, 3.0), (10, 3, 4.0), (7, 1, 2.0)])
def test_rungs_are_those_at_which_ray_tune_halves(steps, rungs, factor):
    """A trial scored at other steps would never be stopped, or at a later rung than it was scored for."""
    from ray.tune.schedulers import ASHAScheduler

    ours = Asha(rungs, factor)
    grace = ours.first_rung(steps)
    theirs = ASHAScheduler(
        time_attr="s", metric="m", mode="max", max_t=steps, grace_period=grace, reduction_factor=factor
    )
    milestones = [step for step, _ in theirs._brackets[0]._rungs]
    assert sorted(m for m in milestones if m < steps) == list(ours.rungs(steps)[:-1])
    assert ours.rungs(steps)[-1] == steps and len(ours.rungs(steps)) == rungs


def test_networks_grow_with_the_rung_and_the_last_entry_holds_on():
    sweep = build(Sweep, {**FILE, "validation_networks": [1, 3]})
    assert sweep.networks(4) == (1, 3, 3, 3)


def test_a_population_is_scored_in_equal_stretches():
    assert build(Sweep, {**FILE, "search": {"kind": "population", "num_intervals": 4}}).rungs(20) == (
        5,
        10,
        15,
        20,
    )
    assert ToTheEnd(3).rungs(7) == (3, 5, 7) and ToTheEnd(3).rungs(2) == (1, 2)
    assert Population(2).num_intervals == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_trials", 0),
        ("hours", 0),
        ("hours", -1.0),
        ("images_per_class", []),
        ("images_per_class", [1, 1]),
        ("validation_networks", []),
        ("validation_networks", [0]),
        ("final_networks", 0),
        ("num_finalists", 0),
        ("max_concurrent", 0),
    ],
)
def test_an_empty_budget_is_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        build(Sweep, {**FILE, key: value})
    assert caught.value.where in (key, f"{key}[0]")


def record(number, step, accuracy, status="finished", **more):
    more = {"span": (number, number + 1.0), "num_networks": 1, **more}
    return TrialRecord(
        number=number,
        settings={"method.student_steps": number + 1},
        run=f"run{number}",
        status=status,
        outer_step=step,
        accuracy=accuracy,
        **more,
    )


TRIALS = (
    record(0, 9, 0.80, base=True),
    record(1, 3, 0.99, "stopped"),
    record(2, 9, 0.85),
    record(3, 9, 0.90),
    record(4, 0, 0.0, "diverged", num_networks=0, message="loss inf"),
    record(5, 9, 0.70),
    record(6, 9, 0.88),
)


def test_only_trials_of_the_last_rung_are_finalists_and_the_base_is_one_of_them():
    """A score after few outer steps by one network must not win over whole trials."""
    assert [trial.number for trial in studies.finalists(TRIALS, 2)] == [3, 6, 0]
    assert [trial.number for trial in studies.finalists(TRIALS, 9)] == [3, 6, 2, 0, 5]
    assert [trial.number for trial in studies.finalists(TRIALS[1:2], 2)] == [1], "where time ran out"
    assert studies.finalists(TRIALS[4:5], 2) == []


def test_the_last_choice_is_by_the_new_scores_not_by_those_that_chose():
    study = studies.chosen(Study(10, (3, 9), TRIALS), {3: [0.84, 0.86], 6: [0.85, 0.87], 0: [0.80, 0.82]})
    assert study.winner == 6 and study.best.final_mean == pytest.approx(0.86)
    assert [trial.number for trial in study.ranked()][:4] == [6, 3, 0, 2]
    assert [trial.number for trial in study.ranked()][-1] == 4
    assert "86.0 ± 1.4 %" in tables.verdict(study) and "81.0 ± 1.4 %" in tables.verdict(study)


def test_a_study_comes_back_from_its_file():
    import json

    study = studies.chosen(Study(10, (3, 9), TRIALS), {3: [0.84, 0.86]})
    values = json.loads(json.dumps(study.as_json()))
    assert Study.from_json(values) == study
    for trial in values["trials"]:  # as older versions wrote it
        trial["starts"] = trial.pop("span")
    assert Study.from_json(values) == study and study.trials[3].span == (3, 4.0)


@pytest.mark.parametrize(("later", "told"), [((6.0, 9.0), "lies later"), ((0.0, 1.0), "does not always lie later")])
def test_whether_the_window_moves_is_said(later, told):
    def won(size, span):
        return studies.chosen(Study(size, (9,), (record(0, 9, 0.5, span=span),)), {0: [0.5]})

    line = tables.moves([won(10, later), won(1, (2.0, 3.0))], AXIS)
    assert told in line and line.index("1 per class: start epochs 2 to 3") < line.index("10 per class")
    assert line.startswith("the best window ")
    assert tables.moves([won(1, (0.0, 1.0))], AXIS) == ""
    assert tables.moves([won(10, later), won(1, (2.0, 3.0))], None) == "", "other methods have no window"


def test_the_report_names_every_trial_and_pictures_are_drawn():
    study = studies.chosen(Study(10, (3, 9), TRIALS), {3: [0.84, 0.86]})
    page = tables.page("s", [study], {10: "Test accuracy of the best: 1 %"}, ["windows.png"], [], AXIS)
    assert "| 3 | 4 | 9 | 90.0 (1) | 85.0 ± 1.4 (2) | finished, best |" in unpadded(page)
    assert "Trial 4 diverged: loss inf" in page and "1 diverged" in page
    assert len(tables.as_csv([study]).splitlines()) == 1 + len(TRIALS)
    many = tuple(replace(trial, settings={f"method.a{n}": trial.number + n for n in range(8)}) for trial in TRIALS)
    wide = pictures.parallel_png(replace(study, trials=many))
    for png in (pictures.axis_png([study], AXIS), pictures.parallel_png(study), wide):
        assert png is not None and png.startswith(b"\x89PNG")
    spanless = replace(study, trials=tuple(replace(trial, span=None) for trial in TRIALS))
    assert pictures.axis_png([study], None) is None and pictures.axis_png([spanless], AXIS) is None
