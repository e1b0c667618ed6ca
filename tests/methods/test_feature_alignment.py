"""CAFE in detail: its loss against plain code, its loops against accuracies made by hand, what it refuses.

Gradients against central differences, ranks against one process and cuts at every step are in tests/contracts.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from distributed_dd.data.splits import Facts
from distributed_dd.errors import ConfigError
from distributed_dd.facets import scale_of
from distributed_dd.learning.augment import Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import unflatten
from distributed_dd.learning.networks import LeNet, ResNet18, initialised
from distributed_dd.learning.networks.convnet import ConvNet
from distributed_dd.learning.networks.mlp import MLP
from distributed_dd.methods.feature_alignment import blocks, steps
from distributed_dd.methods.feature_alignment.blocks import blocks_of
from distributed_dd.methods.feature_alignment.layers import LayeredNetwork, weights_of
from distributed_dd.methods.feature_alignment.method import FeatureAlignment
from distributed_dd.methods.feature_alignment.turns import Turn, turn_in
from distributed_dd.methods.feature_alignment.watched import Watched
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.learner import Held
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.outer.method import Seat
from distributed_dd.outer.set_losses import Unchanged
from distributed_dd.unroll import Alone, OnDevice
from tests.contracts import small_worlds
from tests.contracts.small_worlds import SHAPE, RankTools, over_ranks

NUM_CLASSES = len(small_worlds.TRAIN)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the small world, of which only the world and the starting set are used."""
    return small_worlds.made("cafe", tmp_path_factory.mktemp("small"))


def world_of(run, depth=2):
    """The world as ranks are told of it, on a smooth network."""
    world = replace(run.world, network=ConvNet(depth, 4))
    return small_worlds.smooth(world).for_ranks(("train",))


def steps_in(world, method, classes=None, ranks=None):
    """Steps of ``method`` for a set of these classes; four of each, unless they are said."""
    classes = torch.arange(NUM_CLASSES).repeat_interleave(4) if classes is None else classes
    return steps.AlignmentSteps(method, world, Seat(ranks or Alone(), classes, lambda parameters, steps: OnDevice))


def a_set(num_rows=12, key="set"):
    return torch.randn(num_rows, *SHAPE, dtype=torch.float64, generator=generator(0, key, num_rows))


def loss_and_gradient(asked, images, step=0, span=None):
    """What an outer step measures, and its gradient by the images."""
    first, last = span or (0, len(images))
    found = asked.gradient(step, Held(first, {"images": images[first:last]}), None)
    return found.parts, found.gradients["images"]


# The loss.


def plain_loss(asked, world, images, classes, weights):
    """As the field's code writes it: all layers by hand, squared differences of class means, summed."""
    network = world.network.build(SHAPE, NUM_CLASSES).double()
    turn = asked.turn_at(0)
    unflatten(asked.theta_at(turn, images), network)

    def seen(batch):
        layers = []
        for module in network[:-2]:  # the last two are flattening and the classifier
            batch = module(batch)
            if isinstance(module, nn.Softplus):
                layers.append(batch)
        return [*layers, batch, batch.flatten(1)]

    total, centres, real_features, real_classes = 0.0, [], [], []
    for number in range(NUM_CLASSES):
        draw = asked.draw(turn, number)
        assert (world.real.train.targets[draw.real] == number).all()
        real = seen(draw.augment(world.real.train.images[draw.real].double()))
        synthetic = seen(draw.augment(images[classes == number]))
        for weight, a, b in zip(weights, real, synthetic, strict=True):
            total = total + weight * torch.square(a.mean(0) - b.mean(0)).sum()
        centres.append(synthetic[-1].mean(0))
        real_features.append(real[-1])
        real_classes += [number] * len(real[-1])
    logits = torch.cat(real_features) @ torch.stack(centres, 1)
    chosen = logits.log_softmax(1)[range(len(logits)), real_classes]
    return total - 0.01 * chosen.sum(), -0.01 * chosen.sum()


@pytest.mark.parametrize("augment", [None, Siamese(shared=True)], ids=["plain", "dsa"])
@pytest.mark.parametrize(("depth", "weights"), [(3, [0.1, 0.1, 1, 1, 1]), (2, [0.1, 1, 1, 1])])
def test_loss_and_gradient_are_those_of_plain_code(run, depth, weights, augment):
    """Catches means for sums, layers after pooling, weights in the wrong order, a cross-entropy that is averaged."""
    world = world_of(run, depth)
    method = FeatureAlignment(batch_size=7, **({} if augment is None else {"augment": augment}))
    classes = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    asked, images = steps_in(world, method, classes), a_set(len(classes)).requires_grad_()
    parts, gradient = loss_and_gradient(asked, images.detach())
    loss, entropy = plain_loss(asked, world, images, classes, weights)
    assert float(parts["matching_loss"]) == pytest.approx(loss.item(), rel=1e-12)
    assert float(parts["classification_loss"]) == pytest.approx(entropy.item(), rel=1e-12)
    (expected,) = torch.autograd.grad(loss, images)
    assert (gradient - expected).abs().max() <= 1e-11 * expected.abs().max()


def drawn_as_set(asked):
    """The real images of the first update, as a set."""
    draws = [asked.draw(asked.turn_at(0), number).real for number in range(NUM_CLASSES)]
    sizes = torch.tensor([len(real) for real in draws])
    return asked.images[torch.cat(draws)].double(), torch.arange(NUM_CLASSES).repeat_interleave(sizes)


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_a_set_that_is_the_real_images_has_no_distance(run, num_ranks):
    """Catches augmentations that are not shared, and classes that are compared with others."""
    world, method = world_of(run), FeatureAlignment(batch_size=7, augment=Siamese(shared=True), name="aligned")
    images, classes = drawn_as_set(steps_in(world, method))
    alone = replace(method, classification_weight=0.0)

    def in_rank(ranks):
        span = ranks.layout.kept(len(images))
        results = []
        for settings, tensors in ((method, images), (alone, images), (alone, images + 0.3 * a_set(len(images)))):
            parts, gradient = loss_and_gradient(steps_in(world, settings, classes, ranks), tensors, span=span)
            sums = {name: float(ranks.sum(part.double().clone())) for name, part in parts.items()}
            results.append((sums, gradient))
        return results

    for (both, _), (same, gradient), (other, moving) in over_ranks(num_ranks, 1, in_rank):
        assert both["matching_loss"] == pytest.approx(both["classification_loss"], rel=1e-12) and both["turn"] == 0
        assert both["classification_loss"] > 0 == same["classification_loss"]
        assert abs(same["matching_loss"]) <= 1e-12 * other["matching_loss"]
        assert gradient.abs().max() <= 1e-11 * moving.abs().max()


def test_blocks_of_any_size_give_the_same(run, monkeypatch):
    """Catches a class cut between two blocks whose shares are of the block, and pieces in another order."""
    world, method = world_of(run), FeatureAlignment(batch_size=7, augment=Siamese(shared=True))
    (parts, gradient), images = loss_and_gradient(steps_in(world, method), a_set()), a_set()
    for most in (1, 3, 5):
        monkeypatch.setattr(blocks, "MOST_IMAGES", most)
        others, again = loss_and_gradient(steps_in(world, method), images)
        assert float(others["matching_loss"]) == pytest.approx(float(parts["matching_loss"]), rel=1e-12)
        assert (again - gradient).abs().max() <= 1e-12 * gradient.abs().max()


def test_blocks_cover_every_image_once(monkeypatch):
    """Catches classes that are empty here, and a class that is larger than a block."""
    monkeypatch.setattr(blocks, "MOST_IMAGES", 4)
    spans, totals = [(0, 3), (2, 2), (5, 14), (0, 1)], [3, 9, 20, 1]
    several = list(blocks_of(spans, totals))
    assert [block.num_images for block in several] == [4, 4, 4, 1]
    covered = [(p.number, place) for block in several for p in block.pieces for place in range(p.first, p.last)]
    assert covered == [(number, place) for number, (a, b) in enumerate(spans) for place in range(a, b)]
    first = several[0].shares(torch.zeros((), dtype=torch.float64))
    assert several[0].classes == slice(0, 3)
    third, twentieth = 1 / 3, 1 / 20
    assert first.tolist() == [[third] * 3 + [0], [0] * 4, [0, 0, 0, twentieth]]


def test_memory_does_not_grow_with_the_rows_of_the_set(run, monkeypatch):
    """Counts live tensor bytes; with all rows in one block the count sees their graph."""
    world = world_of(run)
    method = FeatureAlignment(batch_size=7)

    def peak(per_class, most):
        monkeypatch.setattr(blocks, "MOST_IMAGES", most)
        classes = torch.arange(NUM_CLASSES).repeat_interleave(per_class)
        asked, images = steps_in(world, method, classes), a_set(len(classes))
        return peak_live_bytes(lambda: loss_and_gradient(asked, images)) - 2 * images.nbytes  # its gradient

    assert peak(64, 16) <= 1.1 * peak(16, 16)
    assert peak(64, 1000) >= 2 * peak(64, 16)


# The layers.


def test_layers_are_those_before_pooling_and_the_last_after_it():
    """The numbers of CIFAR-10 and of MNIST, which is padded; catches a layer after its pooling."""
    for shape, sides in (((3, 32, 32), (32, 16, 8, 4)), ((1, 28, 28), (32, 16, 8, 4))):
        network = LayeredNetwork(initialised(ConvNet(3, 128), shape, 10, generator(0)), shape)
        assert network.sizes_of_layers == [128 * side**2 for side in sides]


@pytest.mark.parametrize(
    ("network", "shape", "sizes"),
    [
        (ConvNet(2, 8, pooling="none"), (1, 8, 8), [512, 512, 512]),
        (ConvNet(2, 8, pooling="max"), (1, 9, 9), [8 * 81, 8 * 16, 8 * 4]),
        (MLP(3, 5), (1, 8, 8), [5, 5, 5]),
        (LeNet(), (1, 32, 32), None),
        (ResNet18(4), (3, 16, 16), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_network_with_blocks_has_layers(network, shape, sizes):
    """Catches what goes into an activation for what comes out, where no pooling ends a block."""
    built = initialised(network, shape, 4, generator(0)).double()
    layered = LayeredNetwork(built.float(), shape)
    theta_P = torch.cat([p.detach().reshape(-1) for p in built.parameters()])
    layers = layered.layers(theta_P, torch.randn(3, *shape, generator=generator(1)))
    assert [layer.shape for layer in layers] == [(3, size) for size in layered.sizes_of_layers]
    assert sizes is None or layered.sizes_of_layers == sizes
    assert all(layer.min() >= 0 and (layer > 0).any() for layer in layers), "outputs of ReLU"


def test_weights_are_published_for_three_blocks_and_by_rule_for_others():
    assert weights_of((), 3) == (0.1, 0.1, 1, 1, 1)
    assert weights_of((), 1) == (1, 1, 1) and weights_of((), 4) == (0.1, 0.1, 0.1, 1, 1, 1)
    assert weights_of((1, 2, 3, 4), 2) == (1, 2, 3, 4)
    with pytest.raises(ConfigError, match=r"3 numbers for a network of 2 blocks(.|\n)*4: one for each block"):
        weights_of((1, 2, 3), 2)


# The loops.


def ends(values, carried, ask):
    """How many of the values come before `ask` is first true of what was watched; None: never."""
    watched = Watched(10, carried)
    for number, value in enumerate(values, 1):
        watched = watched.after(value)
        if ask(watched):
            return number
    return None


@pytest.mark.parametrize(
    ("values", "carried", "turn", "epochs"),
    [
        ([0.5] * 40, True, 11, 10),  # .5, .55, .555, ..: the first lacks a tenth of .5
        ([0.5] * 40, False, 10, None),  # nothing moves: the epochs would never end
        ([0.35] * 40, True, 10, 10),  # .0389 lie between .04 and .03
        ([0.25] * 40, True, 10, None),  # .0278 do not end the epochs, and later there is less
        ([0.1 * n for n in range(1, 9)] + [0.8] * 40, False, 17, 10),  # .8 comes eighth: ten of it at 17
        ([0.1 * n for n in range(1, 9)] + [0.8] * 40, True, 17, 10),
        ([0.5, 0.535] * 20, False, 10, 10),  # .035: close enough for a turn, far enough for epochs
    ],
)
def test_loops_end_where_the_published_rule_ends_them(values, carried, turn, epochs):
    """Catches a queue of another length, a value that is not carried or is carried whole, the wrong threshold."""
    assert ends(values, carried, lambda watched: watched.steady(0.04)) == turn
    assert ends(values, carried, lambda watched: watched.apart(0.03)) == epochs


def walked(run, monkeypatch, method, accuracy, num_steps):
    """(turn, place, epochs) after each of some outer steps, with accuracies of ``accuracy(turn, epoch)``."""
    asked, learner = steps_in(world_of(run), method), Unchanged(run.product.starting())
    calls = []

    def made_up(theta_P, like, turn, epoch):
        calls.append((turn.number, turn.place, epoch))
        return accuracy(turn, epoch)

    monkeypatch.setattr(asked, "_accuracy", made_up)
    places = []
    for step in range(num_steps):
        metrics = asked.updated(step, learner)
        places.append((asked.turn.number, asked.turn.place, metrics["network_epochs"]))
    return places, calls


def test_a_turn_ends_where_accuracies_are_steady_and_the_next_begins_anew(run, monkeypatch):
    """Catches accuracies that outlive a turn, epochs after its last update, and places that go on."""
    method = FeatureAlignment(max_inner_epochs=1)
    places, calls = walked(run, monkeypatch, method, lambda turn, epoch: 0.5, 23)
    assert places == [
        *((0, place, 1) for place in range(1, 11)),
        (1, 0, 0),
        *((1, place, 1) for place in range(1, 11)),
        (2, 0, 0),
        (2, 1, 1),
    ]
    assert calls == [(0, place, 0) for place in range(11)] + [(1, place, 0) for place in range(11)] + [(2, 0, 0)]
    plain, _ = walked(run, monkeypatch, replace(method, watched="plain"), lambda turn, epoch: 0.5, 10)
    assert plain[-1] == (1, 0, 0)


def test_epochs_end_by_accuracy_and_every_loop_has_a_cap(run, monkeypatch):
    """Catches loops without end, and checks that cannot decide anything."""
    method = FeatureAlignment(max_updates_per_turn=12, max_inner_epochs=15, watched="carried")
    places, _ = walked(run, monkeypatch, method, lambda turn, epoch: 0.5 if epoch else 0.05 * turn.place, 13)
    assert places == [*((0, place, 10) for place in range(1, 12)), (1, 0, 0), (1, 1, 10)]
    plain = replace(method, watched="plain")
    places, calls = walked(run, monkeypatch, plain, lambda turn, epoch: 0.05 * turn.place, 2)
    assert places == [(0, 1, 15), (0, 2, 15)]
    assert calls == [(0, place, epoch) for place in (0, 1) for epoch in range(16)]
    blind = FeatureAlignment(max_updates_per_turn=10, max_inner_epochs=3)
    places, calls = walked(run, monkeypatch, blind, lambda turn, epoch: 0.5, 11)
    assert places[8:] == [(0, 9, 3), (1, 0, 0), (1, 1, 3)] and not calls


def test_the_network_learns_from_the_set_by_plain_gradient_descent(run):
    """Catches momentum, a sum over the batch, labels of other rows, a network that is made anew within a turn."""
    world, learner = world_of(run), Unchanged(run.product.starting())
    asked = steps_in(world, FeatureAlignment(max_inner_epochs=3, max_updates_per_turn=3, network_learning_rate=0.2))
    images, classes = learner.read().images, asked.seat.classes
    network = world.network.build(SHAPE, NUM_CLASSES)
    unflatten(asked.theta_at(asked.turn_at(0), images), network)
    optimizer = torch.optim.SGD(network.parameters(), 0.2)
    for step in range(2):
        for _ in range(3):  # all of the set fits into a batch, whose order does not count
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), classes).backward()
            optimizer.step()
        asked.updated(step, learner)
        expected = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        assert torch.allclose(asked.turn.theta_P, expected, rtol=1e-4, atol=1e-6)
    asked.updated(2, learner)
    assert asked.turn.theta_P is None and asked.turn.number == 1


@pytest.mark.parametrize("num", [3, 100])
def test_an_accuracy_is_of_equally_many_images_of_each_class(run, num):
    """Catches a share of a rank for the whole, and images that are not those of the class."""
    world, method = world_of(run), FeatureAlignment(num_watched_images=num)
    asked = steps_in(world, method)
    theta_P = asked.theta_at(asked.turn_at(0), a_set())
    network = world.network.build(SHAPE, NUM_CLASSES).double()
    unflatten(theta_P, network)
    counts = [min(num, count - 2) for count in small_worlds.TRAIN]
    train, turn = world.real.train, asked.turn_at(0)
    rng = generator(world.seed, "watched", 0, 0, 4)
    index = torch.cat([there[torch.randperm(len(there), generator=rng)[:num]] for there in asked.real_of])
    assert train.targets[index].bincount().tolist() == counts
    hits = (network(train.images[index].double()).argmax(1) == train.targets[index]).sum()
    expected = float(hits) / sum(counts)
    assert asked._accuracy(theta_P, a_set(), turn, 4) == pytest.approx(expected)
    in_rank = lambda ranks: steps_in(world, method, ranks=ranks)._accuracy(theta_P, a_set(), turn, 4)  # noqa: E731
    assert over_ranks(3, 1, in_rank) == [pytest.approx(expected)] * 3


# Turns, rates and state.


def test_the_rate_of_the_images_halves_by_turns():
    """Catches a schedule by outer step, and one that begins a turn late."""
    method = FeatureAlignment()
    turns = (0, 1199, 1200, 1599, 1600, 1800, 5000)
    assert [method.rate(turn) for turn in turns] == [1, 1, 0.5, 0.5, 0.25, 0.125, 0.125]


def test_an_update_is_made_at_the_rate_of_its_turn(run, tmp_path):
    """Catches a rate that is computed and goes nowhere: the first update of a set moves it by rate x gradient."""
    start, moved = run.product.starting(), {}
    for halved in ((), (0,), (0, 0)):
        checkpoints = Checkpoints(tmp_path / str(len(halved)), "small")
        saved = checkpoints.saved([checkpoints.write_shard(0, 0, 1, 0, start)])
        method = replace(run.method, halved_at=halved)
        worker = method.job(run.world, checkpoints).worker(saved, RankTools(Alone(), False))
        worker.outer_step(0)
        moved[len(halved)] = worker.learner.kept()["images"].double() - start["images"].double()
    size = moved[0].abs().max()
    assert size > 1e-3
    for number in (1, 2):
        assert (moved[number] * 2**number - moved[0]).abs().max() <= 1e-5 * size


def test_chance_is_keyed_by_turn_and_place(run):
    """Catches draws by outer step, which a turn of another length would shift, and a network that two turns share."""
    asked = steps_in(world_of(run), FeatureAlignment(batch_size=7, augment=Siamese(shared=True)))
    nothing, images = asked.method.nothing_watched, a_set()
    draws = {(n, p): str(asked.draw(Turn(n, p, nothing), 0).real.tolist()) for n in range(4) for p in range(4)}
    assert len(set(draws.values())) == len(draws)
    networks = [asked.theta_at(Turn(number, 0, nothing), images) for number in (0, 1, 2, 1)]
    assert torch.equal(networks[1], networks[3])
    assert not torch.equal(networks[0], networks[1]) and not torch.equal(networks[1], networks[2])
    asked.turn = Turn(2, 0, nothing)
    losses = {float(loss_and_gradient(asked, images, step)[0]["matching_loss"]) for step in (0, 5, 77)}
    assert len(losses) == 1


def test_without_a_state_every_step_begins_a_turn(run):
    """What a diagnosis asks: catches a look that goes on with a network of other steps, or always has the same."""
    method = FeatureAlignment(batch_size=7, max_updates_per_turn=20)
    asked, images = steps_in(world_of(run), method), a_set()
    assert method.turn(run.world) == 20
    for step in (0, 40):
        parts, _ = loss_and_gradient(asked, images, step)
        assert (float(parts["turn"]), float(parts["updates_in_turn"])) == (step // 20, 1)
    asked.turn = Turn(2, 0, method.nothing_watched)
    again, _ = loss_and_gradient(asked, images, 7)
    assert torch.equal(again["matching_loss"], parts["matching_loss"])


def test_a_state_comes_back_as_it_was(run):
    """Catches accuracies in float32, a turn that begins anew, or a network where there is none."""
    nothing = Watched(3, True)
    between = Turn(4, 0, nothing)
    assert turn_in(between.state(), nothing, torch.device("cpu")) == between
    within = Turn(4, 2, nothing.after(0.1).after(1 / 3), torch.arange(3.0))
    again = turn_in(within.state(), nothing, torch.device("cpu"))
    assert (again.number, again.place, again.watched) == (4, 2, within.watched)
    assert torch.equal(again.theta_P, within.theta_P)
    assert turn_in({}, nothing, torch.device("cpu")) is None


def test_a_checkpoint_holds_the_network_within_a_turn_and_its_number_between(run, tmp_path):
    """Or cuts at every step, in the contract, would prove nothing."""
    whole = small_worlds.made("cafe_watched", tmp_path)
    checkpoints = small_worlds.begun(tmp_path / "steps", whole.product.starting())
    workers = small_worlds.working(whole.method.job(whole.world, checkpoints))
    metrics, held = [], []
    for step in range(small_worlds.COMMON["num_outer_steps"]):
        metrics += workers.outer_steps(step, step + 1)
        names = checkpoints.saved(workers.save(step + 1)).names()
        held.append({name.removeprefix("state.") for name in names if name.startswith("state.")})
    for here, after, names in zip(metrics[:-1], metrics[1:], held[:-1], strict=True):
        between = after["turn"] != here["turn"]
        assert names == ({"turn"} if between else {"turn", "network", "watched"})
        assert after["updates_in_turn"] == (1 if between else here["updates_in_turn"] + 1)
    lengths = [here["updates_in_turn"] for here, after in pairwise(metrics) if after["turn"] != here["turn"]]
    epochs = {here["network_epochs"] for here in metrics}
    assert any(length < whole.method.max_updates_per_turn for length in lengths), "accuracies end a turn"
    assert any(0 < number < whole.method.max_inner_epochs for number in epochs), "and the network's epochs"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_updates_per_turn": 0}, "max_updates_per_turn"),
        ({"max_inner_epochs": 0}, "max_inner_epochs"),
        ({"num_accuracies": 1}, "num_accuracies"),
        ({"weights": (0.0, 0.0, 0.0, 0.0)}, "no layer would count"),
        ({"image_optimizer": {"kind": "sgd", "learning_rate": 0.0}}, "nothing would be learned"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, values, words):
    point = small_worlds.values_of_point("cafe", tmp_path)
    with pytest.raises(ConfigError, match=words):
        small_worlds.experiment_of({**point, "method": {**point["method"], **values}})


def test_work_counts_the_checks_that_are_made(run):
    """Catches an estimate without the accuracies, which cost most of a published update."""
    facts = Facts(image_shape=SHAPE, num_classes=NUM_CLASSES, num_train=24)
    scale = scale_of(run.experiment, facts)
    few = FeatureAlignment(max_updates_per_turn=10).work(scale).operations["distill"]
    checked = FeatureAlignment(max_updates_per_turn=50).work(scale).operations["distill"]
    often = FeatureAlignment(max_updates_per_turn=50, max_inner_epochs=11).work(scale).operations["distill"]
    one = (checked - few) / (128 * NUM_CLASSES)
    rows = 4 * NUM_CLASSES
    assert few == pytest.approx(one * (256 * NUM_CLASSES + 34 * rows))
    assert often - checked == pytest.approx(one * (11 * 128 * NUM_CLASSES + 3 * rows))
