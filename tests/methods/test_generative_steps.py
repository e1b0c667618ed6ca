"""The distillation of a generator on an outside world made of plain fakes."""

import dataclasses

import numpy
import pytest
import torch
from torch.utils.data import DataLoader

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.engine import Local, LocalWorkers
from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.data import Images
from distributed_dd.data.whitening import Standardise
from distributed_dd.errors import DivergedError
from distributed_dd.evaluation.fits import Contest, Fit, run_fit
from distributed_dd.learning.augment import InTurn
from distributed_dd.learning.chance import generator
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import ConvNet
from distributed_dd.learning.networks.discriminator import ConvDiscriminator
from distributed_dd.learning.networks.generator import ConvGenerator
from distributed_dd.learning.update_rules import Adam
from distributed_dd.methods.generative.artefact import FreshImages
from distributed_dd.methods.generative.gan_store import GanStore
from distributed_dd.methods.generative.method import Generative
from distributed_dd.methods.generative.pool import PoolJob, Span, train_span
from distributed_dd.methods.generative.pool_settings import Pool
from distributed_dd.methods.generative.product import everything, theta_of
from distributed_dd.methods.generative.settings import GanTraining
from distributed_dd.methods.generative.source import Source, all_classes, finished, frozen
from distributed_dd.methods.generative.steps import GenerativeJob
from distributed_dd.outer.judging import Judging
from distributed_dd.outer.loop import Distillation, Subject
from distributed_dd.outer.run_folder import RunFolder

K, SHAPE = 3, (1, 8, 8)


def images(num=24):
    pixels = torch.rand(num, *SHAPE, generator=generator(0, "images"))
    return Images(pixels, torch.arange(num) % K)


def pool(**settings):
    common = dict(
        networks=(ConvNet(2, 4), ConvNet(1, 4)),
        steps_per_network=4,
        net_steps=2,
        batch_size=8,
        augment=InTurn(),
    )
    return Pool(**{**common, **settings})


def pool_job(**settings):
    real = images()
    seen = Standardise().fit(real.pixels()).apply(real.pixels())
    return PoolJob(pool=pool(**settings), seed=0, train=Images(seen, real.targets), num_classes=K)


def method(**settings):
    common = dict(
        generator=ConvGenerator(4, 8),
        discriminator=ConvDiscriminator(4),
        gan=GanTraining(num_steps=4, batch_size=8),
        batch_size=8,
        generator_optimizer=Adam(1e-3, 0.0, 0.9),
        discriminator_optimizer=Adam(1e-3, 0.0, 0.9),
        pool=pool(),
    )
    return Generative(**{**common, **settings})


class World:
    """A GAN of 8x8 noise, two judges, and scores told in advance."""

    def __init__(self, path, phase="distil", scores=(), **settings):
        self.method, self.scores = method(**settings), list(scores)
        self.folder = RunFolder(path / "run", "config")
        real = images()
        chosen = self.method.phase(phase)
        self.job = GenerativeJob(
            method=self.method,
            phase=chosen,
            seed=0,
            real=real,
            fitted=Standardise().fit(real.pixels()),
            pool=pool_job() if chosen.matched else None,
            image_shape=SHAPE,
            num_classes=K,
            checkpoints=self.folder.checkpoints,
        )
        self.workers = LocalWorkers(job=self.job, cluster=InProcess(), settings=Local())

    def loop(self, num_outer_steps, every=100):
        subject = Subject(
            starting=self.job.starting,
            read=everything,
            noted=self.method.words.noted,
            count=self.method.count,
            no_facts=self.method.no_facts,
            score=lambda tensors, networks, cluster: self.scores.pop(0) if self.scores else 0.5,
            show=lambda step, start, tensors: None,
        )
        return Distillation(
            num_outer_steps=num_outer_steps,
            judging=Judging.every(every, num_outer_steps, 1),
            checkpoint_every=3,
            subject=subject,
            workers=self.workers,
            folder=self.folder,
            tracker=NoTracker(),
            progress=ConsoleProgress(),
        )


def world(path, **settings):
    (path / "run").mkdir(parents=True)
    return World(path, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("phase", "settings"),
    [
        ("distil", {"ema_decay": 0.9}),
        ("distil", {"global_weight": 0.0, "local_weight": 0.0}),
        ("gan", {"discriminator_steps": 2}),
    ],
    ids=["matched", "unmatched", "gan"],
)
def test_going_on_from_a_checkpoint_is_the_same_as_never_stopping(tmp_path, phase, settings):
    """Stopped in the middle of a pool network's turn: it has to be trained to where it was."""
    through = world(tmp_path / "whole", phase=phase, **settings).loop(9, every=3).run()[1]
    world(tmp_path / "two", phase=phase, **settings).loop(3, every=3).run()
    World(tmp_path / "two", phase, **settings).loop(6, every=3).run()
    resumed = World(tmp_path / "two", phase, **settings).loop(9, every=3).run()[1]
    assert same(resumed, through) and float(through["generator.updates"]) == 9
    texts = [(tmp_path / place / "run" / "metrics.jsonl").read_text() for place in ("whole", "two")]
    assert texts[0] == texts[1] and texts[0].count("\n") == 9


def test_validation_chooses_and_what_is_chosen_is_a_copy(tmp_path):
    made = world(tmp_path, scores=[0.1, 0.9, 0.2])
    best, last, facts = made.loop(6, every=2).run()
    assert facts["best_step"] == 4 and not torch.equal(theta_of(best), theta_of(last))


def test_matched_and_unmatched_differ_and_local_differs_from_dim(tmp_path):
    thetas = {}
    for name, weights in {"gan": (0, 0), "dim": (0.01, 0), "both": (0.01, 0.001), "again": (0.01, 0)}.items():
        settings = {"global_weight": float(weights[0]), "local_weight": float(weights[1])}
        thetas[name] = theta_of(world(tmp_path / name, **settings).loop(5).run()[1])
    assert torch.equal(thetas["dim"], thetas["again"])
    assert len({tuple(theta.tolist()) for theta in thetas.values()}) == 3


def test_the_average_follows_its_formula_and_is_what_counts(tmp_path):
    live = world(tmp_path / "live")
    trace = [live.job.starting()["generator.theta"]]
    for steps in (1, 2, 3):
        trace.append(live.loop(steps).run()[1]["generator.theta"])
    averaged = world(tmp_path / "averaged", ema_decay=0.8).loop(3).run()[1]
    expected = trace[0]
    for theta in trace[1:]:
        expected = 0.8 * expected + 0.2 * theta
    assert torch.allclose(theta_of(averaged), expected, atol=1e-6)
    assert torch.equal(averaged["generator.theta"], trace[3]), "the average must not lead"


@pytest.mark.parametrize("who", ["generator", "discriminator"])
def test_a_number_that_is_not_finite_stops_before_the_update(tmp_path, who):
    """The last good state is kept, whole and finite."""
    good = world(tmp_path, scores=[0.5]).loop(3).run()[1]
    broken = World(tmp_path)
    learners = {}
    start = broken.workers.start

    def poisoned():
        start()
        worker = broken.workers.worker
        learners.update(worker.learners)
        step = getattr(worker.adversaries, f"{who}_step")

        def nan(*given):
            losses, gradient = step(*given)
            return losses, gradient * float("nan")

        setattr(worker.adversaries, f"{who}_step", nan)

    broken.workers.start = poisoned
    with pytest.raises(DivergedError, match=rf"{who}.* not finite") as error:
        broken.loop(6).run()
    assert f"{who}_optimizer.learning_rate" in str(error.value) and "outer step 3" in str(error.value)
    assert learners[who].read().tensors[f"{who}.theta"].isfinite().all()
    assert same(World(tmp_path).loop(3).run()[1], good)


def test_half_precision_finds_nearly_the_same_gradient(tmp_path):
    """Both networks under autocast, through the penalty's second derivative."""
    found = {}
    for precision in ("float32", "bf16"):
        made = world(tmp_path / precision, precision=precision)
        found[precision] = made.loop(1).run()[1]["generator.mean"]
        assert found[precision].dtype == torch.float32 and found[precision].isfinite().all()
    assert torch.nn.functional.cosine_similarity(*found.values(), dim=0) > 0.9


def test_magnitudes_of_all_losses_are_recorded(tmp_path):
    made = world(tmp_path)
    made.loop(2).run()
    (first, _) = made.folder.metrics.read()
    names = {
        "generator_adversarial",
        "generator_classification",
        "generator_global",
        "generator_local",
        "discriminator_distance",
        "discriminator_classification",
        "discriminator_penalty",
    }
    assert names <= set(first) and first["generator_local"] > 0 and first["discriminator_penalty"] > 0


def test_a_pool_network_is_the_same_however_its_turn_is_cut():
    job = pool_job()
    whole, _ = train_span(Span(0, 0, 4), None, job)
    first, reached = train_span(Span(0, 0, 2), None, job)
    second, _ = train_span(Span(0, 2, 4), reached, job)
    alone, _ = train_span(Span(0, 3, 4), None, job)
    assert numpy.array_equal(whole.thetas_nP[:2], first.thetas_nP)
    assert numpy.array_equal(whole.thetas_nP[2:], second.thetas_nP)
    assert torch.equal(alone.at(3), whole.at(3)) and not torch.equal(whole.at(3), whole.at(2))


def test_a_pool_network_is_trained_on_real_images_before_each_step():
    """After k outer steps it made (k + 1) x net_steps plain SGD steps; untrained it stays as it was made."""
    job = pool_job()
    trained, _ = train_span(Span(1, 0, 3), None, job)
    recipe = Recipe(num_epochs=1, batch_size=8, augment=InTurn(), optimizer=_sgd(job))
    training = Training(job.network(1), job.train.images, job.train.targets, recipe, (0, "pool", 1))
    for _ in training.run_steps(0, 6):
        pass
    assert torch.equal(trained.at(2), training.theta_P)
    from distributed_dd.learning.flat import flatten

    still = pool_job(net_steps=0)
    untrained, _ = train_span(Span(1, 2, 3), None, still)
    assert torch.equal(untrained.at(2), flatten(still.network(1)))


def _sgd(job):
    from distributed_dd.learning.optimizers import SGD

    return SGD(job.pool.learning_rate, job.pool.momentum, job.pool.weight_decay)


def test_spans_cover_all_steps_in_order_and_end_with_turns(monkeypatch):
    job = pool_job()
    monkeypatch.setattr("distributed_dd.methods.generative.pool.SPAN_BYTES", 3 * 4 * 300)
    taken, step = [], 2
    for first, last, span in job.spans(2):
        assert first == step and (span.turn, span.first) == divmod(first, 4) and span.last <= 4
        assert last - first == span.last - span.first > 0
        taken.append(span.turn)
        step = last
        if step >= 40:
            break
    ends = dataclasses.replace(job, end=10, span=2)
    assert [(a, b) for a, b, _ in ends.spans(3)] == [(3, 4), (4, 6), (6, 8), (8, 10)]
    assert taken == sorted(taken) and {job.kind(turn) for turn in range(20)} == {0, 1}


def source(per_class=4, seed=0):
    member = ConvGenerator(4, 8)
    theta = torch.randn(sum(p.numel() for p in member.build(SHAPE, K).parameters()), generator=generator(1))
    fitted = Standardise().fit(images().pixels())
    return Source(
        layers=finished(member, SHAPE, K, theta),
        fitted=fitted,
        noise_size=8,
        num_classes=K,
        classes=all_classes(K, per_class),
        seed=seed,
    )


def test_a_source_is_new_in_every_epoch_and_a_sample_is_not():
    made = source()
    assert not torch.equal(made.epoch(0), made.epoch(1)) and torch.equal(made.epoch(1), made.epoch(1))
    assert not torch.equal(made.keyed(1).epoch(0), made.keyed(2).epoch(0)), "networks would see one stream"
    first, again, other = frozen(made, 0.1), frozen(source(), 0.1), frozen(source(seed=1), 0.1)
    assert same(first, again) and not torch.equal(first["images"], other["images"])
    assert torch.bincount(first["classes"]).tolist() == [4, 4, 4]
    assert first["labels"].argmax(1).tolist() == first["classes"].tolist()


def test_networks_trained_on_a_source_see_new_images_in_every_epoch(monkeypatch):
    """Catches a protocol called fresh that trains on its first epoch again and again."""
    seen = []
    real = Source.epoch
    monkeypatch.setattr(Source, "epoch", lambda self, n: seen.append((self.key, n)) or real(self, n))
    made = source()
    contest = Contest(
        network=ConvNet(2, 4), recipe=Recipe(num_epochs=3, batch_size=8), seed=0, num_classes=K, judge=images()
    )
    for member in (0, 1):
        run_fit(Fit(images=made, labels=made.classes, learning_rate=0.01, member=member), contest)
    for member in (0, 1):
        epochs = [number for key, number in seen if key[-1] == member]
        assert sorted(set(epochs)) == [0, 1, 2]


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_a_loader_streams_fresh_images_of_all_classes(settings):
    """Workers are copies of the data set: without care each would give all images, always the same."""
    loader = DataLoader(FreshImages(source()), batch_size=5, **settings)
    epochs = []
    for _ in range(2):
        parts = list(loader)
        assert sorted(torch.cat([labels for _, labels in parts]).tolist()) == sorted([0, 1, 2] * 4)
        epochs.append(torch.cat([shown for shown, _ in parts]))
    assert epochs[0].shape == (12, *SHAPE)
    distances = torch.cdist(epochs[0].flatten(1), epochs[1].flatten(1))
    assert distances.min() > 1e-4, "the second epoch repeats the first"


def test_the_gan_is_shared_by_what_has_no_part_in_it(tmp_path):
    data = {"data_sha256": "x"}

    def store(**settings):
        return GanStore(tmp_path, method(**settings), data, 0).digest

    assert store() == store(global_weight=0.5, local_weight=0.0, batch_size=4, judged_by="frozen")
    others = [store(gan=GanTraining(num_steps=5, batch_size=8)), store(discriminator_steps=2), store(ema_decay=0.9)]
    assert len({store(), *others}) == 4
    assert store(gan=GanTraining(num_steps=4, batch_size=8, show_every=7)) == store()
