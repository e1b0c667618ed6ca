"""What every method owes, whatever it distils: a new one is held to it by being in the table and in small_worlds.py."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import typing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import ray
import torch
import yaml
from safetensors.torch import load_file

import distributed_dd
from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.cli import main
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.experiment import experiment_of
from distributed_dd.learning.augment import Identity
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import flatten, unflatten
from distributed_dd.learning.set_forms import grouped, seen
from distributed_dd.methods import METHODS, gradient_matching
from distributed_dd.outer.ahead import Ahead
from distributed_dd.outer.by_class import ByClass
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.frozen_rows import hold_still, still_rows
from distributed_dd.outer.learner import Held
from distributed_dd.outer.live_bytes import LiveBytes, peak_live_bytes
from distributed_dd.outer.method import Method, Seat, Steps
from distributed_dd.outer.set_method import SetMethod
from distributed_dd.unroll import Alone, OnDevice
from tests.conftest import ROOT
from tests.contracts import small_worlds
from tests.contracts.small_worlds import EVERY_POINT, PER_CLASS, POINTS, RankTools, example, kind_of, over_ranks

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
NUM_STEPS = 7
NUM_CLASSES = len(small_worlds.TRAIN)


def of_a_set(kind: str) -> bool:
    return issubclass(METHODS.members[kind], SetMethod)


def shares_something(kind: str) -> bool:
    """Whether a method needs something made beforehand."""
    return METHODS.members[kind].prelude is not Method.prelude


def by_class(kind: str) -> bool:
    """Whether a method's steps compare statistics class by class; a test below checks what it says."""
    return of_a_set(kind) and issubclass(typing.get_type_hints(METHODS.members[kind].steps)["return"], ByClass)


KINDS = pytest.mark.parametrize("kind", list(METHODS.members))
ALL = pytest.mark.parametrize("point", EVERY_POINT)
SETS = pytest.mark.parametrize("point", [p for p in EVERY_POINT if p not in POINTS or of_a_set(kind_of(p))])
BY_CLASS = pytest.mark.parametrize("point", [p for p in POINTS if by_class(kind_of(p))])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where everything of this module lies: runs share what they may."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def known(place):
    """Point -> the run with what it shares made, once."""
    return cache(lambda point: small_worlds.made(point, place))


@KINDS
def test_every_kind_has_a_small_world(kind):
    """Otherwise a new method would pass all of this unseen."""
    assert example(kind) in POINTS, f"{kind}: write an entry in tests/contracts/small_worlds.py"


# 1 and 3: chance, and what a checkpoint holds.


def test_an_outer_step_draws_the_same_in_a_fresh_process(known, place):
    """Catches chance from a global random state, from the order of a set of words, or left in the process."""
    points = [point for point in EVERY_POINT if point in POINTS]
    folder, step = place / "steps", 4  # within a turn of networks that learn
    for point in points:
        whole = known(point)
        checkpoints = small_worlds.begun(folder / point, whole.product.starting())
        workers = small_worlds.working(whole.method.job(whole.world, checkpoints))
        list(workers.outer_steps(0, step))
        small_worlds.commit(checkpoints, step, *workers.save(step))
    code = (
        "import pickle, sys, torch; from pathlib import Path; torch.set_num_threads(1); torch.manual_seed(99);"
        "from tests.contracts import small_worlds as s; folder, step, *points = sys.argv[1:];"
        "found = s.steps_here(points, Path(folder), int(step));"
        "Path(folder, 'found.pickle').write_bytes(pickle.dumps(found))"
    )
    there = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, str(place), str(step), *points]
    done = subprocess.run(command, cwd=ROOT, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    elsewhere = pickle.loads((place / "found.pickle").read_bytes())
    assert elsewhere == small_worlds.steps_here(points, place, step)


@ALL
def test_cut_at_every_step_it_ends_with_the_same_bytes(known, tmp_path, point):
    """Catches what a worker keeps in memory alone: momenta, averages, the network of a turn, a place in a chain."""
    whole, steps = known(point), range(NUM_STEPS)
    checkpoints = small_worlds.begun(tmp_path / "whole", whole.product.starting())
    workers = small_worlds.working(whole.method.job(whole.world, checkpoints))
    shards, measured = {}, []
    for step in steps:
        measured += workers.outer_steps(step, step + 1)
        (shards[step + 1],) = workers.save(step + 1)
    assert any(torch.is_nonzero(torch.tensor(metrics[name])) for metrics in measured for name in metrics)
    for cut in steps[1:]:
        folder = tmp_path / str(cut)
        folder.mkdir()
        shutil.copy(checkpoints.folder / shards[cut].file, folder)
        again = Checkpoints(folder, "small")
        small_worlds.commit(again, cut, shards[cut])
        workers = small_worlds.working(whole.method.job(whole.world, again))
        assert list(workers.outer_steps(cut, NUM_STEPS)) == measured[cut:], f"cut at {cut}"
        (last,) = workers.save(NUM_STEPS)
        assert last.sha256 == shards[NUM_STEPS].sha256, f"cut at {cut}"


def test_some_points_have_a_state_and_some_checkpoints_hold_it(known, tmp_path):
    """Or the test before would prove nothing about a turn that is cut."""
    whole = known("dsa")
    checkpoints = small_worlds.begun(tmp_path, whole.product.starting())
    workers, held = small_worlds.working(whole.method.job(whole.world, checkpoints)), []
    for step in range(4):
        list(workers.outer_steps(step, step + 1))
        names = checkpoints.saved(workers.save(step + 1)).names()
        held.append([name for name in names if name.startswith("state.")])
    assert held == [["state.network"], ["state.network"], [], ["state.network"]]


@pytest.mark.parametrize("point", [p for p in POINTS if POINTS[p]["method"].get("ema_decay") is not None])
def test_the_average_over_steps_is_kept_and_is_what_counts(known, tmp_path, point):
    """Catches an average that begins anew when a run goes on, or is neither scored nor kept."""
    whole, decay = known(point), POINTS[point]["method"]["ema_decay"]
    checkpoints = small_worlds.begun(tmp_path, whole.product.starting())
    job, expected = whole.method.job(whole.world, checkpoints), None
    for step in range(3):
        workers = small_worlds.working(job)
        list(workers.outer_steps(step, step + 1))
        shards = workers.save(step + 1)
        small_worlds.commit(checkpoints, step + 1, *shards)
        saved = checkpoints.saved(shards)
        now, kept = ("images", "average.images") if of_a_set(kind_of(point)) else ("generator.theta", "average")
        here, average = (saved.part(name, (0, saved.num_rows)) for name in (now, kept))
        start = whole.product.starting()
        expected = start.get(kept, start[now]) if expected is None else expected
        expected = decay * expected + (1 - decay) * here
        assert torch.allclose(average, expected, rtol=1e-5, atol=1e-7) and not torch.equal(average, here)
    (fit, *_) = whole.product.fits(whole.product.read(saved), [0])
    if of_a_set(kind_of(point)):
        codec = whole.world.form.codec(small_worlds.SHAPE, saved.form_tensors())
        assert torch.equal(fit.images, codec.decoded(average))
    else:
        assert torch.equal(flatten(fit.images.layers), average)


# 2: the gradient is that of the loss.


def worker_of(whole, folder, ranks, parted=False):
    """The worker of a rank in float64 on a smooth network, its tools, and its job."""
    checkpoints = Checkpoints(folder, "small")
    tensors = small_worlds.in_float64(whole.product.starting())
    place = ranks.layout.rank, ranks.layout.num_ranks
    saved = checkpoints.saved([checkpoints.write_shard(0, *place, 0, tensors)])
    job, tools = whole.method.job(small_worlds.exact(whole.world), checkpoints), RankTools(ranks, parted)
    return job.worker(saved, tools), tools, job


def loss_and_gradients(whole, worker, step, held):
    """The loss that people see, and its gradients by what is learned."""
    found = worker.steps.gradient(step, held, None)
    verdict = worker.steps.verdict(found.parts)
    gradients = {name: value / verdict.num_counted for name, value in found.gradients.items()}
    return verdict.metrics[next(iter(whole.method.words.losses))], gradients


@SETS
def test_the_gradient_of_an_outer_step_is_that_of_its_loss(known, tmp_path, point):
    """Catches a lost factor, a statistic that was detached, another draw on the way back than forth.

    The loss is asked as a function of what is stored, in whatever form.
    """
    if point in small_worlds.CONSTANT_LABELS:
        pytest.skip("labels count as constants, as published")
    if point in small_worlds.TRUNCATED:
        pytest.skip("a window of the student's steps is differentiated; tests/unroll has its gradient")
    whole = known(point)
    worker, tools, _ = worker_of(whole, tmp_path, Alone())
    worker.outer_step(0)  # within a turn, with a network that has learned from the set
    held, codec = worker.learner.read(), worker.codec
    _, of_pictures = loss_and_gradients(whole, worker, 1, worker.seen.read())
    assert of_pictures.keys() == whole.method.optimizers().keys()
    gradients = {name: grouped(name, gradient, codec.pictures) for name, gradient in of_pictures.items()}
    gradients["images"] = codec.pulled_back(held.images, gradients["images"])

    def slope(name, direction, h):
        ends = []
        for side in (1, -1):
            moved = Held(0, {**held.tensors, name: held.tensors[name] + side * h * direction})
            ends.append(loss_and_gradients(whole, worker, 1, Held(0, seen(moved.tensors, codec)))[0])
        return (ends[0] - ends[1]) / (2 * h)

    for name, gradient in gradients.items():
        # The rate is a small number, whose steps must be smaller still.
        h = 1e-3 if gradient.ndim else 1e-2 * float(held.tensors[name])
        for number in range(2 if gradient.ndim else 1):
            direction = torch.randn(gradient.shape, dtype=torch.float64, generator=generator(number, name))
            direction /= direction.norm()
            # Two central differences, of which the larger's first error is taken off.
            measured = (4 * slope(name, direction, h) - slope(name, direction, 2 * h)) / 3
            assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-6), name
    worker.outer_step(1)
    if (still := still_rows(whole.world)) is not None:
        hold_still(gradients, still, 0)
    handed_in = tools.learners[0].gradients[-1]
    assert same(handed_in, gradients), "the update takes the gradient of the loss, not of another number of segments"


# 4: ranks.


def ways(method, world):
    """Every way in which ranks may divide an outer step: how many, in how many groups, whether rows are apart."""
    pictures = world.form.pictures(world.image_shape)
    found, division = [], replace(method.division(world), pictures=pictures)
    for num_ranks in (2, 3, 4):
        for num_groups in range(1, num_ranks + 1):
            if num_ranks % num_groups or (num_groups > 1 and division.num_segments is None):
                continue
            split = {} if num_groups == 1 else {"split": "grid", "num_groups": num_groups}
            for parted in (False, True):
                engine = DeepSpeedRanks(num_ranks=num_ranks, zero=Zero(0, own_rows=parted), **split)
                if not small_worlds.refused(lambda e=engine: e.check(division)):
                    found.append((num_ranks, num_groups, parted))
    return found


def some_steps(whole, folder, ranks, parted, num_steps=2):
    """Metrics of some outer steps, within a turn; the gradients of all updates, and what is saved at the end."""
    worker, tools, job = worker_of(whole, folder, ranks, parted)
    metrics = []
    for start, end, prepared in Ahead.of(job.chain, 0, InProcess()).spans(0, num_steps):
        metrics += [worker.outer_step(step, prepared) for step in range(start, end)]
    return metrics, [learner.gradients for learner in tools.learners], worker.save(num_steps)


def everything(folder, shards):
    """All that shards keep, whole, by name; the first says what there is."""
    saved = Checkpoints(folder, "small").saved(shards)
    return {name: saved.part(name, (0, saved.num_rows)) for name in saved.names()}


def told_twice(folder, shards):
    """What is kept whole by others than the first rank, and is a state."""
    names = [Checkpoints(folder, "small").saved([shard]).names() for shard in shards[1:]]
    return {name for of_shard in names for name in of_shard if name.startswith("state.")}


def same(given, expected, limit=1e-12):
    """Whether tensors agree, relative to the largest entry of each."""
    pairs = [(given[name].double(), value.double()) for name, value in expected.items()]  # a mask is of no numbers
    return all((one - other).abs().max() <= limit * other.abs().max() for one, other in pairs)


@ALL
def test_ranks_add_up_to_one_process_however_a_step_is_divided(known, tmp_path, point):
    """Catches a mean for a sum, rows counted twice, shares of the wrong batch, draws of a part for the whole."""
    whole = known(point)
    expected, of_one, shard = some_steps(whole, tmp_path / "alone", Alone(), False)
    alone = everything(tmp_path / "alone", [shard])
    divided = ways(whole.method, whole.world)
    least = 6 if by_class(kind_of(point)) and point != "dc_published" else 3
    least = 2 if point == "dm_formation" else least  # three rows, none of which can be cut: three ranks alone
    assert len(divided) >= least, divided
    for number, (num_ranks, num_groups, parted) in enumerate(divided):
        folder = tmp_path / str(number)
        found = over_ranks(num_ranks, num_groups, lambda r, f=folder, p=parted: some_steps(whole, f, r, p))
        for metrics, gradients, _ in found:
            for mine, theirs in zip(metrics, expected, strict=True):
                assert mine == pytest.approx(theirs, rel=1e-11), (num_ranks, num_groups, parted)
            for ours, those in zip(gradients, of_one, strict=True):
                assert len(ours) == len(those) > 0
                for now, wanted in zip(ours, those, strict=True):
                    assert same(now, wanted), (num_ranks, num_groups, parted)
        shards = [written for *_, written in found if written is not None]
        together = everything(folder, shards)
        assert together.keys() == alone.keys() and not told_twice(folder, shards)
        # Adam makes a step of full size of a gradient that is nearly nothing.
        assert same(together, alone, 1e-7), (num_ranks, num_groups, parted)


def whole_classes(num_ranks, parted):
    """Whether ranks can take whole classes of PER_CLASS rows each."""
    if not parted:
        return num_ranks <= NUM_CLASSES
    return (NUM_CLASSES * PER_CLASS) % num_ranks == 0 and (NUM_CLASSES * PER_CLASS // num_ranks) % PER_CLASS == 0


@BY_CLASS
def test_classes_need_no_messages_and_rows_one_sum_of_statistics(known, tmp_path, point):
    """Catches the set itself travelling, a message for each class, ranks that take whole classes nowhere."""
    if point in ("dc_published", "dm_formation"):
        pytest.skip("one image of each class cannot be divided")
    whole, kinds_of_division = known(point), set()
    for number, (num_ranks, num_groups, parted) in enumerate(ways(whole.method, whole.world)):
        folder = tmp_path / str(number)

        def run(ranks, folder=folder, parted=parted):
            worker, tools, _ = worker_of(whole, folder, ranks, parted)
            worker.outer_step(0)
            learner = tools.learners[0]
            size = worker.steps.statistic(learner.read().images[:1], 0).numel()
            return ranks.log, size, learner.inner.read().images.numel(), type(worker.steps).updated is not Steps.updated

        for log, size, images, learns in over_ranks(num_ranks, num_groups, run):
            apart = not whole_classes(num_ranks, parted)
            kinds_of_division.add((parted, apart))
            statistics = [("sum", 2 * NUM_CLASSES * size)] if apart else []
            agreed = [*statistics, ("sum", 2), ("sum", 1)]  # the loss with a flag; the norm of the gradient
            assert log[: len(agreed)] == agreed
            # Where a network learns from the set between outer steps, the set is gathered, and the network told.
            assert log[len(agreed) :] == ([("sum", images), ("first", size)] if learns else [])
    assert kinds_of_division == {(False, False), (False, True), (True, False), (True, True)}


# 5: what a comparison of classes means.


def steps_of(whole, ranks, classes, world=None):
    """A method's steps in a world of float64, for a set of these classes."""
    carried = world or small_worlds.exact(whole.world).for_ranks(whole.method.carries)
    return whole.method.steps(carried, Seat(ranks, classes, lambda parameters, steps: OnDevice))


def drawn_as_set(whole, step=0):
    """The real images that an outer step draws, as a synthetic set: of one class fewer than of the others."""
    steps = steps_of(whole, Alone(), torch.arange(NUM_CLASSES))
    draws = [steps.draw(step, number).real for number in range(NUM_CLASSES)]
    sizes = torch.tensor([len(real) for real in draws])
    return steps.images[torch.cat(draws)].double(), torch.arange(NUM_CLASSES).repeat_interleave(sizes)


def held_of(images, classes, span=None):
    """A set, or some rows of it, as a learner gives it."""
    first, last = span or (0, len(images))
    labels = torch.nn.functional.one_hot(classes, NUM_CLASSES).to(images.dtype)
    return Held(first, {"images": images[first:last], "labels": labels[first:last]})


def matching(whole, ranks, images, classes, parted=False, step=0):
    """The loss of a set on all ranks, and this rank's gradient."""
    span = ranks.layout.kept(len(images)) if parted else None
    found = steps_of(whole, ranks, classes).gradient(step, held_of(images, classes, span), None)
    return float(ranks.sum(found.parts["matching_loss"].clone())), found.gradients["images"]


@pytest.mark.parametrize("kind", [kind for kind in METHODS.members if of_a_set(kind)])
def test_a_method_says_whether_its_steps_go_class_by_class(known, tmp_path, kind):
    """The tests below are asked of those that do: what the annotation of `steps` says must be so."""
    worker, _, _ = worker_of(known(example(kind)), tmp_path, Alone())
    assert isinstance(worker.steps, ByClass) == by_class(kind)


@BY_CLASS
def test_loss_and_gradient_are_those_of_plain_code(known, point):
    """Catches a mean for a sum, another network than was drawn, parameters that count and should not."""
    whole = known(point)
    images, classes = drawn_as_set(whole)
    images = images + 0.3 * torch.randn(images.shape, dtype=torch.float64, generator=generator(0, "others"))
    steps = steps_of(whole, Alone(), classes)
    loss, gradient = matching(whole, Alone(), images, classes)
    steps.begin(0, images)
    network = small_worlds.Smooth(whole.world.network).build(small_worlds.SHAPE, NUM_CLASSES).double()
    if hasattr(steps, "theta_P"):
        unflatten(steps.theta_P, network)
    leaf, total = images.clone().requires_grad_(), 0.0
    for number in range(NUM_CLASSES):
        draw = steps.draw(0, number)
        assert len(draw.real) == min(whole.method.batch_size, small_worlds.TRAIN[number] - 2)
        assert (steps.world.real.train.targets[draw.real] == number).all()
        real = draw.augment(steps.images[draw.real].double())
        pair = real, draw.augment(leaf[classes == number])
        total = total + small_worlds.plain_of(kind_of(point))(network, *pair, number, whole.method)
    assert loss == pytest.approx(float(total), rel=1e-12)
    (expected,) = torch.autograd.grad(total, leaf)
    assert (gradient - expected).abs().max() <= 1e-11 * expected.abs().max()


@BY_CLASS
def test_every_step_and_class_has_a_draw_of_its_own_and_every_turn_a_network(known, point):
    """Catches a key that leaves out the step, the class or the turn: nothing would be wrong but the result."""
    whole = known(point)
    steps = steps_of(whole, Alone(), torch.arange(NUM_CLASSES))
    drawn = [[steps.draw(step, number) for number in range(NUM_CLASSES)] for step in range(12)]
    places = [tuple(map(repr, (place.real.tolist() for place in of_step))) for of_step in drawn]
    assert len(set(places)) == len(places)
    orders = [
        [(steps.real_of[n] == index).nonzero().item() for index in of_step[n].real[:5]]
        for of_step in drawn
        for n in range(NUM_CLASSES)
    ]
    assert len(set(map(str, orders))) > 0.8 * len(orders), "classes do not draw the same places"
    if steps.augment != Identity():
        kinds = {str(place.augment) for of_step in drawn for place in of_step}
        assert len(kinds) > 0.9 * len(drawn) * NUM_CLASSES
    if not hasattr(steps, "theta_P"):
        return  # no network is asked
    networks = []
    for step in (0, 3, 6):
        steps.begin(step, steps.images)
        networks.append(steps.theta_P.clone())
    assert not torch.equal(networks[0], networks[1]) and not torch.equal(networks[1], networks[2])


def test_a_network_that_learns_from_the_set_knows_it_better(known, tmp_path):
    """Catches a step uphill, labels of other rows, and epochs that are not made."""
    whole = known("dc")
    worker, _, _ = worker_of(whole, tmp_path, Alone())
    images, losses = worker.learner.read().images, []
    worker.steps.begin(0, images)
    for _ in range(2):
        logits = worker.steps.student.logits(worker.steps.theta_P, images)
        losses.append(float(torch.nn.functional.cross_entropy(logits, worker.steps.seat.classes)))
        worker.steps.updated(0, worker.learner)
    assert losses[1] < 0.98 * losses[0]


@BY_CLASS
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_set_that_is_the_real_images_has_no_loss(known, monkeypatch, point, num_ranks):
    """Catches augmentations that are not shared, a mean over another number than was drawn, a wrong class."""
    monkeypatch.setattr(gradient_matching, "EPSILON", 0.0)  # it makes the cosine of a vector with itself less than 1
    whole = known(point)
    images, classes = drawn_as_set(whole)
    others = images + 0.3 * torch.randn(images.shape, dtype=torch.float64, generator=generator(0, "others"))

    def both(ranks):
        return [matching(whole, ranks, given, classes, num_ranks > 1) for given in (images, others)]

    found = [both(Alone())] if num_ranks == 1 else over_ranks(num_ranks, 1, both)
    for (loss, gradient), (other_loss, other_gradient) in found:
        assert abs(loss) <= 1e-12 * other_loss and gradient.abs().max() <= 1e-11 * other_gradient.abs().max()


@BY_CLASS
def test_images_of_a_class_have_no_order_and_classes_do_not_see_each_other(known, point):
    """Catches statistics that depend on places, and means over more than a class."""
    whole = known(point)
    images, classes = drawn_as_set(whole)
    images = images + 0.3 * torch.randn(images.shape, dtype=torch.float64, generator=generator(0, "others"))
    own = torch.arange(len(images)).split(classes.bincount().tolist())
    order = torch.cat([rows[torch.randperm(len(rows), generator=generator(0, "order", len(rows)))] for rows in own])
    assert not torch.equal(order, torch.arange(len(images))) and torch.equal(classes[order], classes)
    loss, gradient = matching(whole, Alone(), images, classes)
    shuffled_loss, shuffled = matching(whole, Alone(), images[order], classes)
    assert shuffled_loss == pytest.approx(loss, rel=1e-12)
    assert (shuffled - gradient[order]).abs().max() <= 1e-11 * gradient.abs().max()
    changed = images.clone()
    changed[classes == 0] *= 2
    _, beside = matching(whole, Alone(), changed, classes)
    assert torch.equal(beside[classes > 0], gradient[classes > 0])
    assert not torch.equal(beside[classes == 0], gradient[classes == 0])


@SETS
def test_a_step_needs_nothing_of_other_steps_but_the_set_and_the_state(known, tmp_path, point):
    """Catches a generator that is carried on from draw to draw, and graphs or networks left from before."""
    whole = known(point)
    worker, _, _ = worker_of(whole, tmp_path, Alone())
    worker.outer_step(0)
    held, state = worker.seen.read(), worker.steps.state()
    held = Held(0, {name: value.clone() for name, value in held.tensors.items()})
    _, expected = loss_and_gradients(whole, worker, 1, held)
    fresh, _, _ = worker_of(whole, tmp_path, Alone())
    for step in (3, 0, 1, 6):  # others in any order; at 3, 0 and 6 networks begin anew
        loss_and_gradients(whole, fresh, step, held)
    fresh.steps.load(state)
    _, again = loss_and_gradients(whole, fresh, 1, held)
    for name, value in expected.items():
        assert torch.equal(again[name], value), name


# 6: what a comparison of classes costs.


ROWS = 16
"""Synthetic images of each class, so that a class is large beside the parameters of a network."""
BEGINNINGS = range(0, 18, 3)
"""Outer steps that begin with a fresh network; enough to meet the augmentation that takes most."""


def counted_steps(whole, ranks, num_classes):
    """Steps of a method on random numbers of so many classes, and the rows of the set that this rank has."""
    classes = torch.arange(num_classes).repeat_interleave(ROWS)
    images = torch.randn(len(classes), *small_worlds.SHAPE, generator=generator(0, "set", num_classes))
    world = small_worlds.smooth(small_worlds.many_classes(num_classes, whole.world.images_per_class))
    first, last = ranks.layout.kept(len(images))
    return steps_of(whole, ranks, classes, world), Held(first, {"images": images[first:last].clone()})


@BY_CLASS
def test_memory_does_not_grow_with_the_number_of_classes(known, point):
    """Counts live tensor bytes; keeping the graphs of all classes shows that the count sees graphs."""
    whole = known(point)

    def peaks(num_classes):
        steps, held = counted_steps(whole, Alone(), num_classes)

        def keeping_all():
            leaves = [rows.clone().requires_grad_() for rows in held.images.split(ROWS)]
            return [steps.statistic(rows, number) for number, rows in enumerate(leaves)]

        peak = max(peak_live_bytes(lambda step=step: steps.gradient(step, held, None)) for step in BEGINNINGS)
        return peak - 2 * held.images.nbytes, peak_live_bytes(keeping_all)  # the images and their gradient

    (few, few_kept), (many, many_kept) = peaks(2), peaks(12)
    assert many <= 1.05 * few
    assert many_kept >= 4 * few_kept


@BY_CLASS
def test_rows_are_looked_at_twice_and_no_graph_waits_for_the_others(known, monkeypatch, point):
    """Catches graphs of all classes kept between the two messages, and real images looked at more than once."""
    whole, calls = known(point), []
    kind_of_steps = type(steps_of(whole, Alone(), torch.arange(NUM_CLASSES)))
    statistic = kind_of_steps.statistic

    def counted(self, images, number):
        calls.append(images.requires_grad)
        return statistic(self, images, number)

    monkeypatch.setattr(kind_of_steps, "statistic", counted)
    peaks, beginnings = {}, BEGINNINGS if kind_of(point) == "distribution_matching" else BEGINNINGS[:2]
    for num_classes in (3, 13):  # over two ranks neither ends at the edge of a class

        def in_rank(ranks, num_classes=num_classes):
            steps, held = counted_steps(whole, ranks, num_classes)
            with LiveBytes() as counter:
                for step in beginnings:
                    steps.gradient(step, held, None)
            return counter.peak - 2 * held.images.nbytes

        calls.clear()
        peaks[num_classes] = max(over_ranks(2, 1, in_rank))
        blocks, num_steps = num_classes + 1, len(beginnings)  # both ranks have rows of the class in the middle
        assert calls.count(True) == num_steps * blocks
        assert calls.count(False) == num_steps * (blocks + 2 * num_classes)
    if kind_of(point) == "distribution_matching":  # of the others statistics are as large as a network, for each class
        assert peaks[13] <= 1.1 * peaks[3]


# 7: verbs.


@pytest.fixture(scope="module")
def file_of(place):
    """Kind -> the configuration of its example, as a file."""

    def write(kind, name=None, **changes):
        path = place / f"{name or kind}.yaml"
        values = {**small_worlds.values_of_point(example(kind), place / "runs"), **changes}
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def folder_of(place, kind):
    """The run folder of a kind's example."""
    name = experiment_of(small_worlds.values_of_point(example(kind), place / "runs")).method.name
    found = [f for f in (place / "runs").glob(f"small-{name}-ipc{PER_CLASS}-????????") if (f / "report.json").exists()]
    assert len(found) == 1, found
    return found[0]


def finished(place, file_of, kind):
    """The folder of a finished run; what is done is not done again."""
    assert main(["run", str(file_of(kind)), *HERE]) == 0
    return folder_of(place, kind)


@KINDS
def test_show_tells_what_would_happen(place, file_of, capsys, kind, tmp_path):
    """With the data everything; without them what is known without, and that they are missing."""
    file = file_of(kind)
    assert main(["show", str(file), *HERE, f"output={tmp_path / 'none'}"]) == 0
    out = capsys.readouterr().out
    shares = shares_something(kind)
    assert f"kind: {kind}" in out and "data      small, present: 24 train" in out
    assert ("present in" in out or "not trained yet" in out) == shares
    assert "(not started)" in out
    for topic in ("disk ", "memory ", "work "):
        assert any(line.startswith(topic) for line in out.splitlines()), topic
    work = next(line for line in out.splitlines() if line.startswith("work "))
    assert "distill " in work and "evaluate " in work and float(work.split()[1]) >= 0
    assert not (tmp_path / "none").exists(), "nothing was started"
    away = file_of(kind, f"{kind}_away", data={"kind": "mnist", "root": str(tmp_path)}, network={"kind": "mlp"})
    assert main(["show", str(away), *HERE]) == 3
    told = capsys.readouterr()
    assert "holds no mnist" in told.err
    assert any(line.startswith("work ") for line in told.out.splitlines())


@KINDS
def test_experts_makes_what_runs_share_or_says_that_there_is_nothing(file_of, capsys, kind):
    """Catches a verb that trains something for a method that needs nothing."""
    assert main(["experts", str(file_of(kind)), *HERE]) == 0
    out = capsys.readouterr().out
    shares = shares_something(kind)
    last = out.strip().splitlines()[-1]
    if not shares:
        assert out.strip() == f"{example(kind)} needs nothing made beforehand"
    else:
        where = Path(last.rpartition(" in ")[2])
        assert where.is_dir() and (where / "manifest.json").exists()


@KINDS
def test_run_and_report_tell_the_same(place, file_of, capsys, kind):
    """Catches rows without titles, a report that names another method, work that is done twice."""
    folder = finished(place, file_of, kind)
    capsys.readouterr()
    report = json.loads((folder / "report.json").read_text())
    assert report["kind"] == kind and report["images_per_class"] == PER_CLASS
    assert {"random_real", "full_data", "distilled"} <= {row["name"] for row in report["rows"]}
    assert all(0 <= row["accuracy_mean"] <= 1 for row in report["rows"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    words = METHODS.members[kind].words
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    assert all(next(iter(words.losses)) in line for line in lines)
    assert any("validation_accuracy" in line for line in lines)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert main(["run", str(file_of(kind)), *HERE]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main(["report", str(file_of(kind))]) == 0
    out = capsys.readouterr().out
    assert str(folder) in out.replace("\n", "") and "random real" in out
    assert f"{100 * report['rows'][0]['accuracy_mean']:.1f}" in out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_one_table_compares_all_kinds(place, file_of, capsys, tmp_path):
    """Catches columns of one kind that break the lines of another."""
    folders = {kind: finished(place, file_of, kind) for kind in METHODS.members}
    capsys.readouterr()
    assert main(["report", *map(str, folders.values()), "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    lines = (tmp_path / "report.md").read_text().splitlines()
    listed = json.loads((tmp_path / "report.json").read_text())["rows"]
    for folder in folders.values():
        report = json.loads((folder / "report.json").read_text())
        of_it = [line for line in lines if line.startswith("|") and report["method"] in line]
        assert len(of_it) >= 1, report["method"]
        assert any(report["method"] in str(line) for line in listed)
    table = [line for line in lines if line.startswith("|")]
    first = table[: next((i for i, line in enumerate(table) if line.count("|") != table[0].count("|")), None)]
    assert len(first) == 2 + len(folders), "a head, a rule, and a line for each run"


@KINDS
def test_evaluate_a_folder_and_export_it(place, file_of, capsys, tmp_path, kind):
    """Catches results that only the run that made them can read."""
    folder = finished(place, file_of, kind)
    capsys.readouterr()
    on = ["networks=[{kind: mlp, depth: 2, width: 8}]", "num_networks=1", "full_data=false", "controls=[herding]"]
    assert main(["evaluate", str(folder), *on, *HERE]) == 0
    out = capsys.readouterr().out
    page = Path(out.strip().splitlines()[-1].partition("output:")[2].strip())
    assert "mlp" in page.read_text() and "random real" in out and "herding" in out
    assert main(["export", str(folder), "--to", str(tmp_path / "pt")]) == 0
    distilled = load_distilled(folder)
    assert torch.equal(torch.load(tmp_path / "pt" / "images_best.pt"), distilled.images)
    assert len(distilled) == NUM_CLASSES * PER_CLASS
    assert distilled.targets.tolist() == sorted(distilled.targets.tolist())
    assert main(["export", str(folder), "--as", "images", "--to", str(tmp_path / "png")]) == 0
    assert len(list((tmp_path / "png").glob("*/*.png"))) == NUM_CLASSES * PER_CLASS


def sweep_of(file, place, kind):
    """A grid of two points."""
    path = place / f"sweep_{kind}.yaml"
    values = {
        "base": file.name,
        "images_per_class": [PER_CLASS],
        "num_trials": 9,
        "num_finalists": 1,
        "final_networks": 1,
        "search": {"kind": "grid"},
        "schedule": {"kind": "to_the_end"},
        "space": small_worlds.varied_in(kind),
        "output": str(place / "runs"),
        "settings": {"num_outer_steps": 2, "evaluate": {"num_networks": 1}},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@KINDS
def test_show_plans_a_sweep(place, file_of, capsys, kind):
    """Catches fields of a method that a sweep cannot reach."""
    assert main(["show", str(sweep_of(file_of(kind), place, kind))]) == 0
    out = capsys.readouterr().out
    assert next(iter(small_worlds.varied_in(kind))) in out and "(not begun)" in out


@pytest.mark.slow
@KINDS
def test_tune_finds_the_better_of_two_points(place, file_of, capsys, kind):
    """The whole way of a sweep, on a Ray of one core."""
    (place / "one_core.yaml").write_text("kind: ray\nnum_cpus: 1\n")
    try:
        on = ["--on", str(place / "one_core.yaml")]
        assert main(["tune", str(sweep_of(file_of(kind), place, kind)), *on]) == 0
    finally:
        ray.shutdown()
    (path,) = (place / "runs" / "sweeps").glob(f"sweep_{kind}-*/report.json")
    (study,) = json.loads(path.read_text())["studies"]
    assert len(study["trials"]) == 2 and study["winner"] is not None
    assert (path.parent / f"best_ipc{PER_CLASS}.yaml").exists()


BAD = {
    "loops that nobody published": (
        "gradient_matching",
        ["data.kind=digits", "images_per_class=7", "method.steps_per_network=null", "method.network_epochs=null"],
        {
            "method.steps_per_network",
            "nothing was published for 7",
            "10: 10, 50",
            "1: 1, 0",
            "50: 50, 10",
            "network_epochs",
        },
    ),
    "unshared augmentation in DC": (
        "gradient_matching",
        ["method.augment={kind: dsa, shared: false}"],
        {"method.augment.shared", "true"},
    ),
    "unshared augmentation in DM": (
        "distribution_matching",
        ["method.augment.shared=false"],
        {"method.augment.shared", "true"},
    ),
    "batch norm in DM": ("distribution_matching", ["network.norm=batch"], {"network", "normalises over the batch"}),
    "batch norm in DC": ("gradient_matching", ["network.norm=batch"], {"network", "normalises over the batch"}),
    "batch norm in CAFE": ("feature_alignment", ["network.norm=batch"], {"network", "normalises over the batch"}),
    "weights of other layers": (
        "feature_alignment",
        ["method.weights=[1, 1, 1]"],
        {"method.weights", "3 numbers for a network of 2 blocks", "4: one for each block"},
    ),
    "a network without blocks": (
        "feature_alignment",
        ["network={kind: mlp, depth: 1}"],
        {"network", "does not say where its blocks end", "convnet"},
    ),
    "turns without updates": ("feature_alignment", ["method.max_updates_per_turn=0"], {"max_updates_per_turn"}),
    "networks without epochs": ("feature_alignment", ["method.max_inner_epochs=0"], {"max_inner_epochs"}),
    "unshared augmentation in CAFE": (
        "feature_alignment",
        ["method.augment={kind: dsa, shared: false}"],
        {"method.augment.shared", "true"},
    ),
    "experts for a method without": ("distribution_matching", ["experts.num_experts=3"], {"experts", "has no experts"}),
}


@pytest.mark.parametrize("what", list(BAD))
def test_what_cannot_be_is_one_message_and_nothing_is_started(place, file_of, capsys, tmp_path, what):
    """Catches a traceback, a message without the field, a run folder of something that cannot run."""
    kind, overrides, told = BAD[what]
    assert main(["run", str(file_of(kind)), *overrides, f"output={tmp_path / 'runs'}", *HERE]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in told), message
    assert len(message.splitlines()) <= 4 and not (tmp_path / "runs").exists()


RANKS = {
    "segments of a method without": ("distribution_matching", [], "{split: segments}", "engine.split"),
    "segments of gradients": ("gradient_matching", [], "{split: segments}", "engine.split"),
    "rows of a generator": ("generative", [], "{zero: {own_rows: true}}", "engine.zero.own_rows"),
    "more ranks than rows": ("distribution_matching", [], "{num_ranks: 13}", "engine.num_ranks"),
    "one graph of a batch": ("trajectory_matching", ["method.unroll.kind=direct"], "{}", "method.unroll"),
    "judges that see a batch": (
        "generative",
        ["method.pool.networks=[{kind: convnet, depth: 2, width: 4, norm: batch}]"],
        "{}",
        "method.pool.networks[0]",
    ),
}


@pytest.mark.parametrize("what", list(RANKS))
def test_what_ranks_cannot_divide_is_refused_before_anything_starts(place, file_of, capsys, tmp_path, what):
    """Catches ranks that start, load their data and then fail."""
    kind, overrides, settings, told = RANKS[what]
    values = {"kind": "ray", "engine": {"kind": "deepspeed", "num_ranks": 2, **yaml.safe_load(settings)}}
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(values))
    on = ["--on", str(tmp_path / "ranks.yaml"), f"output={tmp_path / 'runs'}"]
    assert main(["run", str(file_of(kind)), *overrides, *on]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert not ray.is_initialized()


@BY_CLASS
def test_a_class_with_too_few_images_is_said_once(place, file_of, known, tmp_path, point):
    """Catches a note in every outer step, or again when the run goes on."""
    whole = known(point)
    values = {**small_worlds.values_of_point(point, tmp_path), "num_outer_steps": 2}
    values["evaluate"] = {**values["evaluate"], "num_networks": 1}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main(["distill", str(path), *HERE]) == 0
    assert main(["run", str(path), *HERE]) == 0
    (log,) = tmp_path.glob("small-*/log.txt")
    counts = torch.tensor(small_worlds.TRAIN) - 2
    short = int((counts < whole.method.batch_size).sum())
    told = [line for line in log.read_text().splitlines() if "fewer than method.batch_size" in line]
    assert len(told) == (1 if short else 0), told
    if short:
        assert f"{short} of {NUM_CLASSES} classes" in told[0] and f"({int(counts.min())} at least)" in told[0]


# 8: sets without a learned rate.


@KINDS
def test_a_set_has_the_rate_that_was_learned_or_the_recipes(place, file_of, known, kind):
    """Catches a rate of zeros in the file, and a set that nobody knows how to train on."""
    folder = finished(place, file_of, kind) / "distilled"
    experiment = experiment_of(yaml.safe_load(file_of(kind).read_text()))
    distilled, recipe = distributed_dd.load_distilled(folder), experiment.evaluate.optimizer.learning_rate
    tensors, manifest = load_file(folder / "distilled.safetensors"), distilled.manifest
    if of_a_set(kind):
        starting = known(example(kind)).product.starting()
        assert starting.keys() == {"images", "labels", "classes"} | experiment.method.optimizers().keys()
    if of_a_set(kind) and "learning_rate" in experiment.method.optimizers():
        assert distilled.learning_rate == float(tensors["learning_rate"]) == manifest["learning_rate"] != recipe
        return
    assert manifest["learning_rate"] == manifest["evaluation"]["learning_rate"] == recipe
    assert distilled.learning_rate == pytest.approx(recipe, rel=1e-6)
    assert ("learning_rate" in tensors) == (not of_a_set(kind)), "a sample of a generator has the recipe's"
