"""Sweeps over kinds, and over what only some kinds have: planned as meant, or refused with what to do."""

import pytest
import yaml
from safetensors.torch import load_file

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.cli import main
from distributed_dd.experiment import experiment_of, identity_of
from distributed_dd.experiment_run import Run
from distributed_dd.nested import at, laid_over
from distributed_dd.sweeps.plan import planned
from distributed_dd.sweeps.trial import TrialJob, run_trial, trial_run
from tests.conftest import ROOT
from tests.sweeps.test_trial import Line

BASE = {
    "images_per_class": 1,
    "num_outer_steps": 2,
    "tracker": "none",
    "data": {"kind": "digits"},
    "preprocessing": {"kind": "standardise"},
    "network": {"kind": "convnet", "depth": 1, "width": 4},
    "method": {"kind": "distribution_matching", "batch_size": 8},
    "evaluate": {"controls": [], "num_epochs": 1, "num_networks": 1, "num_validation_networks": 1, "every": 2},
}
UNIFORM = {"kind": "uniform", "low": 0.2, "high": 0.5}
WHOLE = {"kind": "integers", "low": 1, "high": 3}
TRAJECTORIES = {
    "kind": "trajectory_matching",
    "image_optimizer": {"learning_rate": 1},
    "rate_optimizer": {"learning_rate": 1},
    "segments": {"kind": "window", "max_start_epoch": 3},
}


def choice(*values):
    return {"kind": "choice", "values": [*values]}


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep over ``space`` of the base, with ``own`` groups of it and ``more`` of the sweep."""

    def write(space, own=None, **more):
        (tmp_path / "base.yaml").write_text(yaml.safe_dump({**BASE, **(own or {})}, sort_keys=False))
        values = {"base": "base.yaml", "images_per_class": [1], "num_trials": 4, "search": {"kind": "random"}}
        values |= {"output": str(tmp_path / "runs"), "space": space, **more}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write


@pytest.mark.parametrize(
    ("space", "own"),
    [
        ({"set.form.kind": choice("formation", "pixels")}, {}),
        ({"set": {"form": {"kind": choice("formation", "pixels")}}}, {}),
        ({"set.form": choice("formation", "pixels")}, {}),
        ({"set.form": choice({"kind": "pixels"}, {"kind": "formation", "factor": 3})}, {}),
        ({"set": choice({"form": "formation"}, {"form": "pixels"})}, {}),
        ({"set.form": choice("pixels", "formation")}, {"set": {"form": {"kind": "formation", "factor": 3}}}),
        ({"set.form.kind": choice("pixels", "formation")}, {"set": {"form": {"kind": "formation", "factor": 3}}}),
        ({"set.form.share": UNIFORM}, {"set": {"form": "frequency"}}),
        ({"network": choice("mlp", "convnet")}, {}),
        ({"network.kind": choice("mlp", "convnet"), "network.depth": WHOLE}, {}),
        ({"network.depth": WHOLE, "network.kind": choice("mlp", "convnet")}, {}),
    ],
)
def test_the_first_trial_is_the_base_itself(sweep, space, own):
    plan = planned(sweep(space, own), [])
    values = plan.values(1)
    (first,) = plan.points(1)
    trial = experiment_of(laid_over(values, plan.space.settings(first, values)))
    assert identity_of(trial) == identity_of(plan.bases[1])


@pytest.mark.parametrize("order", [1, -1])
def test_a_kind_takes_nothing_away_from_what_is_searched_with_it(sweep, order):
    """Were the depth laid over before the kind, every trial would have the depth of its kind's default."""
    space = {"network.depth": {"kind": "integers", "low": 4, "high": 5}, "network.kind": choice("mlp", "mlp")}
    plan = planned(sweep(dict([*space.items()][::order])), [])
    values = plan.values(1)
    for probe in plan.space.probes(values, 0):
        trial = laid_over(values, plan.space.settings(probe, values))
        assert at(trial, "network.kind") == "mlp" and experiment_of(trial).network.depth in (4, 5)


FORMS = "space.set.form: {kind: choice"
FORMATION = {"set": {"form": {"kind": "formation"}}}


@pytest.mark.parametrize(
    ("space", "own", "words"),
    [
        ({"set.form.factor": WHOLE}, {}, ["space.set.form.factor: ", "settings.set.form.kind=formation"]),
        ({"set.form.share": UNIFORM}, FORMATION, ["space.set.form.share: ", "settings.set.form.kind=frequency"]),
        ({"method.image_optimizer.beta1": UNIFORM}, {}, ["settings.method.image_optimizer.kind=adam"]),
        ({"set.form.factor": WHOLE, "set.form.kind": choice("pixels", "formation")}, {}, [FORMS]),
        ({"set.form.factor": WHOLE, "set.form": choice("pixels", "formation")}, {}, [FORMS]),
        (
            {"set.form": choice({"kind": "formation", "factor": 2}, {"kind": "formation"}), "set.form.factor": WHOLE},
            {},
            ["space.set.form.factor: sets set.form.factor, which another dimension sets too"],
        ),
        ({"set.form": choice("pixels", "formation"), "set": choice({"form": "pixels"}, {})}, {}, ["another dimension"]),
        ({"set.form.factor": {**WHOLE, "high": 9}}, FORMATION, ["space.set.form.factor: 9 tiles", "at most 8"]),
        ({"set.form.kind": choice("pixels", "quantized")}, {}, ["space.set.form.kind: ", "did you mean 'quantised'"]),
        (
            {"method.segments.kind": choice("window", "expanding")},
            {"method": TRAJECTORIES},
            ["max_start_epoch: missing", "space.method.segments: {kind: choice"],
        ),
        (
            {"method.kind": choice("distribution_matching", "trajectory_matching")},
            {"method": TRAJECTORIES},
            ["has no experts", "a sweep for each kind of method"],
        ),
    ],
)
def test_what_only_some_kinds_have_is_refused_with_what_to_do(sweep, tmp_path, capsys, space, own, words):
    here = str(ROOT / "configs/clusters/in_process.yaml")
    assert main(["tune", str(sweep(space, own)), "--on", here]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not (tmp_path / "runs").exists()


def test_what_is_to_be_done_about_a_missing_kind_can_be_typed(sweep):
    plan = planned(sweep({"set.form.factor": WHOLE}), ["settings.set.form.kind=formation"])
    assert plan.points(1) == [{"set.form.factor": 1}]


@pytest.mark.parametrize(
    ("space", "own"),
    [
        ({"set.form.kind": choice("pixels", "formation")}, {}),
        ({"set.form": choice("pixels", "formation")}, {}),
        ({"set.form.factor": WHOLE}, FORMATION),
        ({"set.form.share": UNIFORM}, {"set": {"form": "frequency"}}),
        ({"set.form.bits": choice(4, 8)}, {"set": {"form": "quantised"}}),
        ({"set.frozen.share": UNIFORM}, {}),
        ({"set": choice({"form": "pixels"}, {"form": "formation"})}, {}),
        ({"method.image_optimizer.kind": choice("sgd", "adam")}, {}),
        ({"images_per_class": WHOLE}, {}),
    ],
)
def test_a_population_changes_nothing_that_is_stored(sweep, tmp_path, capsys, space, own):
    """A member takes another's checkpoint: rows of another shape would be misread, or the mask of another share."""
    file = sweep({**space, "method.image_optimizer.learning_rate": UNIFORM}, own, search={"kind": "population"})
    assert main(["tune", str(file), "--on", str(ROOT / "configs/clusters/in_process.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.count("space.") == 1 and f"space.{next(iter(space))}: " in error
    assert "settings." in error and not (tmp_path / "runs").exists()


def test_trials_of_several_forms_store_what_they_say(sweep):
    space = {"set.form": choice("pixels", {"kind": "formation", "factor": 2}, {"kind": "quantised", "bits": 4})}
    plan = planned(sweep(space), [])
    values = plan.values(1)
    run = Run(experiment=experiment_of(values), cluster=InProcess(), progress=ConsoleProgress())
    job = TrialJob(
        base=values,
        space=plan.space,
        rungs=(2,),
        networks=(1,),
        below=plan.folder / "trials",
        shared_digest=run.shared_digest,
        tags={},
    )
    shapes = []
    for number in range(3):
        run_trial({"set.form": number}, line := Line(), job, run.material)
        assert line.scores() == [(2, 1)]
        kept = load_file(trial_run(job, {"set.form": number}, run.material).folder.distilled / "distilled.safetensors")
        shapes.append({name: tuple(kept[name].shape) for name in kept if "images" in name or "codes" in name})
    assert shapes == [{"images": (10, 1, 8, 8)}, {"stored.images": (10, 1, 8, 8)}, {"stored.codes": (10, 1, 32)}]


@pytest.mark.parametrize("line", ["num_outer_steps=20", "method.batch_size=4", "experts.num_experts=2"])
def test_a_setting_of_the_base_is_answered_with_where_it_belongs(sweep, capsys, line):
    path = sweep({"method.image_optimizer.learning_rate": UNIFORM})
    assert main(["tune", str(path), line]) == 2
    key = line.partition(".")[0].partition("=")[0]
    error = capsys.readouterr().err
    assert f"{key}: is a setting of the base" in error and f"settings.{key}" in error
