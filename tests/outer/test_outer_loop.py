"""The outer loop on an outside world made of plain fakes."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.engine import Local, LocalWorkers
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.data.whitening import Standardise
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import flatten
from distributed_dd.learning.networks import MLP, initialised
from distributed_dd.learning.update_rules import SGD
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.labels import Hard
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.segments import Window
from distributed_dd.methods.trajectory_matching.steps import TrajectorySteps
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.loop import Distillation, Subject
from distributed_dd.outer.run_folder import RunFolder
from distributed_dd.outer.set_worker import SetJob
from distributed_dd.outer.world import World
from distributed_dd.trajectories.forms import Full
from distributed_dd.trajectories.store import TrajectoryStore


def starting():
    return {
        "images": torch.randn(4, 1, 2, 2, generator=generator(0, "images")),
        "labels": torch.randn(4, 2, generator=generator(0, "labels")),
        "classes": torch.tensor([0, 0, 1, 1]),
        "learning_rate": torch.tensor(0.1),
    }


@dataclass(frozen=True)
class FromRandom(TrajectoryMatching):
    """Trajectory matching that asks no expert for its starting set."""

    def starting_set(self, world):
        return starting()


class Small:
    """A linear classifier of 2x2 images, one expert that drifts, and scores told in advance."""

    def __init__(self, path, scores=(), **settings):
        self.path, self.scores, self.shown = path, list(scores), []
        layers = initialised(MLP(depth=1), (1, 2, 2), 2, generator(0, "layers"))
        theta = flatten(layers)
        self.store = TrajectoryStore.below(path / "experts", {})
        drift = torch.randn(theta.shape, generator=generator(0, "drift"))
        rows = torch.stack([theta + 0.3 * epoch * drift for epoch in range(4)])
        self.store.write(0, Full().tensors(range(4), rows, ()), range(4), {})
        self.store.write_manifest(1)
        common = dict(
            segments=Window(3),
            student_steps=2,
            expert_epochs=1,
            batch_size=4,
            student_learning_rate=0.1,
            augment=Identity(),
            gate=None,
            experts=Experts(num_experts=1),
        )
        sgd = SGD(0.5, 0.9)
        self.method = FromRandom(
            image_optimizer=settings.pop("images", sgd),
            rate_optimizer=settings.pop("rate", SGD(1e-3, 0.5)),
            label_optimizer=sgd,
            **{**common, **settings},
        )
        self.folder = RunFolder(path / "run", "config")
        self.world = World(
            seed=0,
            network=MLP(depth=1),
            image_shape=(1, 2, 2),
            num_classes=2,
            images_per_class=2,
            num_outer_steps=1,
            preprocessing=Standardise(),
            evaluate=Evaluation(),
            output=Path(path),
            real=None,
            shared=self.store,
        )
        self.job = SetJob(self.method, self.world, self.folder.checkpoints)
        self.workers = LocalWorkers(job=self.job, cluster=InProcess(), settings=Local())

    def loop(self, num_outer_steps, every=1):
        return Distillation(
            num_outer_steps=num_outer_steps,
            judging=Judging.every(every, num_outer_steps, 1),
            checkpoint_every=1,
            subject=self.subject(),
            workers=self.workers,
            folder=self.folder,
            tracker=NoTracker(),
            progress=ConsoleProgress(),
        )

    def subject(self):
        """As a run makes it."""
        product = self.method.product(self.world, self.folder.path)
        return Subject(
            starting=product.starting,
            read=product.read,
            noted=self.method.words.noted,
            count=self.method.count,
            no_facts=self.method.no_facts,
            score=lambda tensors, networks, cluster: self.scores.pop(0) if self.scores else 0.5,
            show=lambda step, start, tensors: self.shown.append(step),
        )

    def now(self):
        return self.workers.worker.learner.kept()

    def momenta(self):
        return self.workers.worker.learner.slots()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_closed_gate_changes_nothing_not_even_momenta(folder):
    """The plain reading of the gate: a skipped step must not let momentum carry the set on."""
    world = Small(folder)
    world.loop(2).run()
    before, momenta = world.now(), world.momenta()
    assert any(value.any() for value in momenta.values()), "there is something that could carry it on"
    closed = Small(folder, gate=0.0)
    _, last, facts = closed.loop(5).run()
    assert facts["skipped"] == 3
    assert same(before, last) and same(momenta, closed.momenta())


def test_a_rejected_segment_costs_no_way_back(folder, monkeypatch):
    from distributed_dd.unroll import replayed

    back = []
    real = replayed.replay
    monkeypatch.setattr(replayed, "replay", lambda *given: back.append(given[1]) or real(*given))
    Small(folder, gate=0.0).loop(1).run()
    assert back == []
    (folder / "open" / "run").mkdir(parents=True)
    Small(folder / "open").loop(1).run()
    assert back == [1, 0]


def test_a_gate_that_nothing_passes_is_said_once(folder, capsys):
    """Hours of skipped steps would otherwise look like work."""
    _, _, facts = Small(folder, gate=0.0).loop(60, every=60).run()
    assert facts["skipped"] == 60 and capsys.readouterr().out.count("changed nothing") == 1


def test_a_factor_of_the_steps_multiplies_the_rates_of_one_update(folder, monkeypatch):
    """Catches a factor that is not asked, is asked for another step, or stays for the updates after it."""

    def images(name, num_steps):
        (folder / name / "run").mkdir(parents=True)
        world = Small(folder / name, images=SGD(0.5, 0.0), rate=SGD(0.0, 0.0), labels=Hard())
        world.loop(num_steps).run()
        return world.now()["images"]

    one, two = images("one", 1), images("two", 2)
    asked = []
    monkeypatch.setattr(TrajectorySteps, "rate_factor", lambda self, step: asked.append(step) or (1.0, 0.25, 1.0)[step])
    assert torch.allclose(images("a quarter of the second", 2) - one, (two - one) / 4, rtol=1e-4, atol=1e-7)
    assert asked == [0, 1]
    third = images("three", 3)
    monkeypatch.setattr(TrajectorySteps, "rate_factor", lambda self, step: (1.0, 0.25, 0.5)[step])
    half = images("half of the third", 3)
    before = one + (two - one) / 4
    assert torch.allclose(third - before, 2 * (half - before), rtol=1e-3, atol=1e-6)


def test_validation_chooses_the_best_step_and_the_last_is_kept_beside_it(folder):
    world = Small(folder, scores=[0.2, 0.9, 0.9, 0.4])
    best, last, facts = world.loop(4).run()
    assert facts["best_step"] == 2 and facts["best_accuracy"] == 0.9, "ties go to the earlier step"
    assert not torch.equal(best["images"], last["images"]) and world.shown == [0, 1, 2, 3, 4]


def test_the_best_set_is_a_copy(folder):
    """Catches a best set that aliases live parameters and drifts on."""
    two = Small(folder, scores=[0.1, 0.9])
    expected = two.loop(2).run()[1]
    other = folder / "other"
    (other / "run").mkdir(parents=True)
    best, _, _ = Small(other, scores=[0.1, 0.9, 0.2, 0.2]).loop(4).run()
    assert same(best, expected)


def test_going_on_from_a_checkpoint_is_the_same_as_never_stopping(folder):
    whole = folder / "whole"
    (whole / "run").mkdir(parents=True)
    through = Small(whole, ema_decay=0.9).loop(6).run()
    Small(folder, ema_decay=0.9).loop(3).run()
    resumed = Small(folder, ema_decay=0.9).loop(6).run()
    assert same(resumed[0], through[0]) and same(resumed[1], through[1])
    texts = [(place / "run" / "metrics.jsonl").read_text() for place in (whole, folder)]
    assert texts[0] == texts[1]


def test_the_average_follows_its_formula_and_is_what_is_kept(folder):
    """ema <- decay ema + (1 - decay) set, from the starting set on."""
    live = Small(folder)
    trace = [starting()["images"]]
    for steps in (1, 2, 3):
        live.loop(steps).run()
        trace.append(live.now()["images"])
    other = folder / "other"
    (other / "run").mkdir(parents=True)
    _, last, _ = Small(other, ema_decay=0.8).loop(3).run()
    expected = trace[0]
    for images in trace[1:]:
        expected = 0.8 * expected + 0.2 * images
    assert torch.allclose(last["images"], expected, atol=1e-6)


def test_a_learning_rate_that_would_turn_negative_stops_at_its_floor_and_says_so(folder, capsys):
    world = Small(folder, rate=SGD(100.0, 0.5), images=SGD(0.0, 0.0))
    _, last, facts = world.loop(6).run()
    assert float(last["learning_rate"]) >= 0.999 * world.method.student_learning_rate_min
    assert facts["floored"] >= 1 and capsys.readouterr().out.count("fell to its floor") == 1
