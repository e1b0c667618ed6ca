"""A trial as a search sees it: told after every rung, stopped and resumed exactly, never fatal."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.durable import read_json
from distributed_dd.experiment import experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.locks import locked
from distributed_dd.sweeps.plan import planned
from distributed_dd.sweeps.trial import TrialJob, run_trial, trial_run

RATE = "method.image_optimizer.learning_rate"
SWEEP = """
base: tiny.yaml
images_per_class: [1]
num_trials: 4
output: {output}
settings: {{num_outer_steps: 9}}
space:
  method.image_optimizer.learning_rate: {{kind: log_uniform, low: 0.1, high: 1.0e+30}}
"""


class Line:
    """A search that hears, and stops the trial when it has heard enough."""

    def __init__(self, stop_after=99, donor_checkpoint=None):
        self.heard, self.stop_after, self.donor_checkpoint = [], stop_after, donor_checkpoint

    def report(self, facts, checkpoint=None):
        self.heard.append(dict(facts, checkpoint=checkpoint))
        if len(self.heard) >= self.stop_after:
            raise SystemExit(0)

    def scores(self):
        return [(h["outer_step"], h["num_networks"]) for h in self.heard if h["status"] == "scored"]


@pytest.fixture
def job(tiny_yaml, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(output=tmp_path / "runs"))
    plan = planned(file, [])
    values = plan.values(1)
    run = Run(
        experiment=experiment_of(values),
        cluster=InProcess(),
        progress=ConsoleProgress(),
        varied=[*plan.space.dimensions],
    )
    run.prepare()
    made = TrialJob(
        base=values,
        space=plan.space,
        rungs=(1, 3, 9),
        networks=(1, 2, 4),
        below=plan.folder / "trials",
        shared_digest=run.shared_digest,
        tags={},
    )
    return made, run.material


def tensors(job, point):
    made, material = job
    return load_file(trial_run(made, point, material).folder.distilled / "distilled.safetensors")


def test_every_rung_is_told_once_its_checkpoint_is_written_with_growing_networks(job, monkeypatch):
    line, there = Line(), []
    monkeypatch.setattr(
        line,
        "report",
        lambda facts, checkpoint=None: there.append(
            (
                facts["outer_step"],
                facts["num_networks"],
                facts["validation_accuracy"],
                read_json(next(job[0].below.glob("*/checkpoint/latest.json")))["step"],
            )
        ),
    )
    run_trial({RATE: 0.5}, line, *job)
    assert [(step, networks, saved) for step, networks, _, saved in there] == [
        (1, 1, 1),
        (3, 2, 3),
        (9, 4, 9),
    ]
    assert 0 < there[-1][2] <= 1


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_trial_that_was_stopped_goes_on_to_the_same_bits(job, stop_after, tmp_path):
    """Pausing at a rung and resuming must be the same as never having paused; nothing is scored twice."""
    made, material = job
    run_trial({RATE: 0.5}, Line(), replace(made, below=tmp_path / "whole"), material)
    whole = tensors((replace(made, below=tmp_path / "whole"), material), {RATE: 0.5})
    with pytest.raises(SystemExit):
        run_trial({RATE: 0.5}, Line(stop_after), *job)
    again = Line()
    run_trial({RATE: 0.5}, again, *job)
    assert again.scores() == [(1, 1), (3, 2), (9, 4)][stop_after - 1 :], "the last one is told again"
    found = tensors(job, {RATE: 0.5})
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_the_same_settings_again_cost_nothing(job, monkeypatch):
    run_trial({RATE: 0.5}, Line(), *job)
    monkeypatch.setattr(Run, "validation_accuracies", lambda *given: pytest.fail("scored again"))
    again = Line()
    run_trial({RATE: 0.5}, again, *job)
    assert again.scores() == [(9, 4)]


def test_a_diverged_trial_is_told_as_the_worst_and_is_not_fatal(job):
    line = Line()
    run_trial({RATE: 1e30}, line, *job)
    last = line.heard[-1]
    assert (last["status"], last["validation_accuracy"], last["outer_step"]) == ("diverged", 0.0, 9)
    assert "not finite" in last["message"] and last["reached"] < 9


def test_what_cannot_be_run_is_told_and_not_fatal(job):
    made, material = job
    line = Line()
    run_trial({RATE: 0.5}, line, replace(made, base={**made.base, "images_per_class": 99999}), material)
    assert line.heard[-1]["status"] == "failed" and "images_per_class" in line.heard[-1]["message"]


def test_a_trial_waits_for_the_one_that_holds_its_folder(job, monkeypatch):
    """The trial of a killed driver may live on for some seconds."""
    made, material = job
    run = trial_run(made, {RATE: 0.5}, material)
    holder = locked(run.folder.path, "run")
    holder.__enter__()
    said = []

    def hear(self, text):
        said.append(text)
        if text.startswith("waiting for the process"):
            holder.__exit__(None, None, None)

    monkeypatch.setattr(ConsoleProgress, "say", hear)
    line = Line()
    run_trial({RATE: 0.5}, line, *job)
    assert line.scores()[-1] == (9, 4)
    assert sum(text.startswith("waiting for the process") for text in said) == 1


def test_a_member_of_a_population_goes_on_from_another_with_its_own_rates(job, tmp_path):
    made, material = job
    made = replace(made, carries=True)
    with pytest.raises(SystemExit):
        run_trial({RATE: 0.5}, donor := Line(stop_after=2), made, material)
    given = donor.heard[-1]["checkpoint"]
    taken = tmp_path / "taken"
    taken.mkdir()
    for path in Path(given).iterdir():
        (taken / path.name).write_bytes(path.read_bytes())
    line = Line(donor_checkpoint=taken)
    run_trial({RATE: 0.7}, line, made, material)
    assert line.scores() == [(9, 4)], "it began after outer step 3"
    run = trial_run(made, {RATE: 0.7}, material)
    lineage = read_json(run.folder.checkpoints.folder / "lineage.json")["members"]
    assert [(one["from_step"], one["settings"][RATE]) for one in lineage] == [(0, 0.5), (3, 0.7)]
    metrics = run.folder.metrics.read()
    assert [line["step"] for line in metrics] == list(range(4, 10))


def test_trials_of_other_experts_train_their_own(job):
    made, material = job
    other = replace(made, base={**made.base, "network": {"kind": "mlp", "depth": 2, "width": 8}})
    line = Line()
    run_trial({RATE: 0.5}, line, other, material)
    assert line.scores()[-1] == (9, 4)
    assert len([p for p in Path(made.base["output"], "experts").iterdir() if p.is_dir()]) == 2
