"""Generator, discriminator and their losses, against plain references."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distributed_dd.backends.deepspeed.engine import DeepSpeedRanks
from distributed_dd.errors import ConfigError
from distributed_dd.family import build
from distributed_dd.learning.augment import InTurn, part_of
from distributed_dd.learning.batches import endless_batch
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import flatten, unflatten
from distributed_dd.learning.networks import NETWORKS, ConvNet, ResNet10, initialised
from distributed_dd.learning.networks.batch_norm import BatchNorm, batch_norms, take_standing_statistics
from distributed_dd.learning.networks.blocks import FeatureNetwork, layer_named
from distributed_dd.learning.networks.discriminator import ConvDiscriminator
from distributed_dd.learning.networks.generator import ConvGenerator, conditioned
from distributed_dd.methods.generative.adversarial import discriminator_losses, generator_losses
from distributed_dd.methods.generative.correspondence import global_loss, local_loss
from distributed_dd.methods.generative.losses import Adversaries, Matching
from distributed_dd.methods.generative.method import Generative
from distributed_dd.methods.generative.pool_settings import Pool
from distributed_dd.methods.generative.source import standing_noise
from tests.references import small_job

B, K, SHAPE = 6, 3, (1, 8, 8)


def unchanged(x):
    return x


def rng(*key):
    return generator(0, *key)


def made(member, *key):
    return initialised(member, SHAPE, K, rng(*key)).double()


@pytest.fixture
def world():
    """Small networks in float64, a batch, and a judge."""

    class World:
        generator = made(ConvGenerator(4, 8), "generator")
        discriminator = made(ConvDiscriminator(4), "discriminator")
        judge = made(ConvNet(2, 4), "judge")
        noise = torch.randn(B, 8, generator=rng("noise")).double()
        classes = torch.arange(B) % K
        real = torch.rand(B, *SHAPE, generator=rng("real")).double() * 2 - 1

    return World()


def sizes(member, shape, num_classes):
    return sum(p.numel() for p in member.build(shape, num_classes).parameters())


def test_the_published_networks_have_their_published_sizes():
    """Layer by layer as in DiM; at 28 pixels the first transposed convolution is 3x3."""
    assert sizes(ConvGenerator(), (3, 32, 32), 10) == 3_559_363
    assert sizes(ConvGenerator(), (1, 28, 28), 10) == 3_286_921
    convolutions = [m for m in ConvDiscriminator().build((3, 32, 32), 10) if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convolutions] == [1, 2, 1, 2, 1, 1, 1, 2]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 20, 20)])
def test_any_square_image_any_number_of_classes_any_noise_above_it(shape):
    layers = ConvGenerator(4, 9).build(shape, 7)
    images = layers(torch.randn(5, 9))
    assert images.shape == (5, *shape) and images.abs().max() <= 1
    assert ConvDiscriminator(4).build(shape, 7)(images).shape == (5, 8)


@pytest.mark.parametrize(
    ("noise_size", "shape", "says"),
    [(7, (1, 8, 8), "more than 7"), (9, (1, 8, 9), "squares"), (9, (1, 7, 7), "squares of 8 or more")],
)
def test_what_a_generator_cannot_make_is_refused(noise_size, shape, says):
    with pytest.raises(ConfigError, match=says):
        ConvGenerator(4, noise_size).build(shape, 7)


def test_the_class_overwrites_the_first_entries_of_the_noise(world):
    given = conditioned(world.noise, world.classes, K)
    assert torch.equal(given[:, :K], F.one_hot(world.classes, K).double())
    assert torch.equal(given[:, K:], world.noise[:, K:])


def test_no_layer_of_the_discriminator_looks_at_two_images(world):
    """The gradient penalty takes the gradient of a sum for that of each."""
    real = world.real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(world.discriminator(real)[0].sum(), real)
    assert gradient[0].abs().sum() > 0 and gradient[1:].abs().sum() == 0


def reference_discriminator_loss(critic, real, classes, fake, fake_classes, mix):
    """Written out as the papers have it, differentiating twice with ``create_graph``."""
    between = (mix.view(-1, 1, 1, 1) * real + (1 - mix.view(-1, 1, 1, 1)) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between)[:, 0].sum(), between, create_graph=True)
    penalty = ((slope.flatten(1).norm(2, 1) - 1) ** 2).mean()
    loss = critic(fake)[:, 0].mean() - critic(real)[:, 0].mean()
    loss = loss + F.cross_entropy(critic(fake)[:, 1:], fake_classes)
    return loss + F.cross_entropy(critic(real)[:, 1:], classes) + 10 * penalty


def test_the_discriminators_loss_and_gradient_are_those_of_the_papers(world):
    """Catches a penalty without its second derivative, a flipped sign, a mean taken twice."""
    fake = world.generator(conditioned(world.noise, world.classes, K)).detach()
    mix, asked = torch.rand(B, generator=rng("mix")).double(), world.classes.roll(1)
    loss = reference_discriminator_loss(world.discriminator, world.real, world.classes, fake, asked, mix)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*world.discriminator.parameters()])])
    adversaries = Adversaries(world.generator, world.discriminator)
    thetas = flatten(world.generator), flatten(world.discriminator)
    losses, gradient = adversaries.discriminator_step(
        *thetas,
        conditioned(world.noise, world.classes, K),
        asked,
        world.real,
        world.classes,
        mix,
        B,
        1.0,
        10.0,
    )
    # The generator's images are made anew inside, from the same noise.
    total = losses["classification"] - losses["distance"] + 10 * losses["penalty"]
    assert torch.allclose(total, loss.detach(), rtol=1e-12) and losses["penalty"] > 0
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_parts_of_a_batch_add_up_to_its_losses(world):
    fake = world.generator(conditioned(world.noise, world.classes, K)).detach()
    mix = torch.rand(B, generator=rng("mix")).double()

    def losses(rows):
        judged = discriminator_losses(
            world.discriminator,
            world.real[rows],
            world.classes[rows],
            fake[rows],
            world.classes[rows],
            mix[rows],
            B,
        )
        return judged | {
            f"generator {name}": value
            for name, value in generator_losses(world.discriminator(fake[rows]), world.classes[rows], B).items()
        }

    whole, first, second = losses(slice(None)), losses(slice(0, 2)), losses(slice(2, None))
    for name, value in whole.items():
        assert torch.allclose(first[name] + second[name], value, rtol=1e-12), name


@pytest.mark.parametrize("form", ["raw", "log_softmax"])
def test_the_global_loss_is_a_mean_over_batch_and_classes(form):
    fake, real = torch.randn(2, B, K, generator=rng("logits")).double()
    expected = 0.0
    for row in range(B):
        a, b = fake[row], real[row]
        if form == "log_softmax":
            a, b = a - a.exp().sum().log(), b - b.exp().sum().log()
        expected += float(((a - b) ** 2).sum()) / (B * K)
    assert float(global_loss(fake, real, form, B)) == pytest.approx(expected, rel=1e-12)
    assert float(global_loss(real, real, form, B)) == 0


def test_the_local_loss_is_what_its_forms_say():
    fake, real = torch.randn(2, B, 2, 2, 2, generator=rng("features")).double()
    means = fake.mean(0) - real.mean(0)
    expected = {
        "l1_sum": means.abs().sum(),
        "mse_mean": (means**2).mean(),
        "per_sample": ((fake - real) ** 2).mean(),
    }
    for form, value in expected.items():
        assert torch.allclose(local_loss(fake, real, form, B, unchanged, 1), value, rtol=1e-12), form


@pytest.mark.parametrize("form", ["l1_sum", "mse_mean"])
def test_the_local_loss_is_zero_when_the_batches_agree_in_any_order(form):
    features = torch.randn(B, 4, generator=rng("features")).double()
    assert float(local_loss(features.flip(0), features, form, B, unchanged, 1)) < 1e-14
    assert float(local_loss(features.flip(0), features, "per_sample", B, unchanged, 1)) > 0.1


def matching(world, weights=(0.01, 0.001), draw=None):
    network = FeatureNetwork(world.judge, "3")
    draw = draw or InTurn(("color", "crop", "cutout"), shared=True).draw(rng("augment"), B)
    return Matching(
        network=network,
        theta_P=flatten(world.judge),
        seen=lambda x: (x + 1) / 2,
        augment=draw,
        global_weight=weights[0],
        local_weight=weights[1],
        logits="log_softmax",
        features="l1_sum",
        summed=unchanged,
    )


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)], ids=["global", "local"])
def test_each_matching_loss_reaches_the_generator_and_no_other_network(world, weights):
    fake = world.generator(conditioned(world.noise, world.classes, K))
    (value,) = matching(world, weights).losses(fake, world.real, B).values()
    parameters = [*world.generator.parameters()]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(g.abs().sum() for g in gradients) > 0
    assert all(p.grad is None for p in world.judge.parameters())


def reference_generator_loss(world, theta, local, weights=(0.01, 0.001)):
    """DiM's loss, and with ``local`` the seed paper's, on modules, without code of ours but the draw."""
    unflatten(theta, world.generator)
    fake = world.generator(conditioned(world.noise, world.classes, K))
    judged = world.discriminator(fake)
    loss = -judged[:, 0].mean() + F.cross_entropy(judged[:, 1:], world.classes)
    draw = InTurn(("color", "crop", "cutout"), shared=True).draw(rng("augment"), B)
    pairs = draw(torch.cat([world.real, fake]) / 2 + 0.5)
    real, made_up = pairs.split(B)
    with torch.no_grad():
        target = F.log_softmax(world.judge(real), 1)
    loss = loss + weights[0] * ((F.log_softmax(world.judge(made_up), 1) - target) ** 2).mean()
    if local:
        block = world.judge[:4]
        loss = loss + weights[1] * (block(made_up).mean(0) - block(real).mean(0)).abs().sum()
    return loss, torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*world.generator.parameters()])])


@pytest.mark.parametrize("local", [False, True], ids=["dim", "global and local"])
def test_the_generators_gradient_is_that_of_a_plain_loop(world, local):
    """Siamese augmentation of the whole pair, weights, signs, and what is held fixed."""
    weights = (0.01, 0.001 if local else 0.0)
    theta = flatten(world.generator)
    expected, gradient = reference_generator_loss(world, theta, local)
    losses, ours = Adversaries(world.generator, world.discriminator).generator_step(
        theta,
        flatten(world.discriminator),
        conditioned(world.noise, world.classes, K),
        world.classes,
        world.real,
        B,
        1.0,
        matching(world, weights),
    )
    assert set(losses) == {"adversarial", "classification", "global"} | ({"local"} if local else set())
    total = losses["adversarial"] + losses["classification"] + 0.01 * losses["global"]
    total = total + 0.001 * losses.get("local", 0.0)
    assert torch.allclose(total, expected.detach(), rtol=1e-10)
    assert torch.allclose(ours, gradient, rtol=1e-8, atol=1e-12)


def test_without_weights_it_is_the_conditional_gan(world):
    """To the bit: what has no weight is not computed at all."""
    adversaries = Adversaries(world.generator, world.discriminator)
    given = (
        flatten(world.generator),
        flatten(world.discriminator),
        conditioned(world.noise, world.classes, K),
        world.classes,
        world.real,
        B,
        1.0,
    )
    plain, zero = (adversaries.generator_step(*given, m) for m in (None, matching(world, (0.0, 0.0))))
    assert torch.equal(plain[1], zero[1]) and plain[0].keys() == zero[0].keys()
    assert not Generative(global_weight=0, local_weight=0).phase("distil").matched
    assert Generative(local_weight=0).matched and not Generative().phase("gan").matched


def test_batch_norm_is_torchs_and_its_standing_statistics_are_of_each_image_alone(world):
    ours, theirs = BatchNorm(4).double(), nn.BatchNorm2d(4).double()
    x = torch.randn(B, 4, 3, 3, generator=rng("x")).double()
    assert torch.allclose(ours(x), theirs(x), rtol=1e-12)
    noise = [conditioned(n, torch.arange(128) % K, K).double() for n in standing_noise(8, K, 4)]
    take_standing_statistics(world.generator, noise)
    images = world.generator(noise[0])
    assert torch.allclose(images[:3], world.generator(noise[0][:3]), rtol=1e-9)
    first, linear = batch_norms(world.generator)[0], world.generator[0]
    seen = torch.stack([linear(part) for part in noise])
    assert torch.allclose(first.mean, seen.mean((0, 1)), rtol=1e-9)
    assert torch.allclose(first.variance, seen.var(1, unbiased=False).mean(0), rtol=1e-9)


def test_batch_norm_over_parts_of_a_batch_is_that_of_the_whole():
    """Two ranks in two threads: values and gradients, through the sums between them."""
    from tests.references.threads import over_two

    x = torch.randn(B, 4, 3, 3, generator=rng("x")).double()
    weight = torch.randn(B, 4, 3, 3, generator=rng("weight")).double()
    norm = nn.BatchNorm2d(4).double()
    whole = x.clone().requires_grad_()
    out = norm(whole)
    (expected,) = torch.autograd.grad((out * weight).sum(), whole)

    def part(rank, summed):
        layer, rows = BatchNorm(4).double(), slice(0, 4) if rank == 0 else slice(4, B)
        layer.summed = summed
        own = x[rows].clone().requires_grad_()
        given = layer(own)
        return given.detach(), torch.autograd.grad((given * weight[rows]).sum(), own)[0]

    first, second = over_two(part)
    assert torch.allclose(torch.cat([first[0], second[0]]), out.detach(), rtol=1e-10)
    assert torch.allclose(torch.cat([first[1], second[1]]), expected, rtol=1e-8, atol=1e-12)


def test_endless_batches_pass_through_everything_again_and_again():
    passes = [[endless_batch(10, 4, 2 * p + n, 0, "x") for n in range(2)] for p in range(3)]
    for first, second in passes:
        assert len({*first.tolist(), *second.tolist()}) == 8
    assert not torch.equal(passes[0][0], passes[1][0])
    assert torch.equal(endless_batch(10, 4, 3, 0, "x"), passes[1][1])
    assert sorted(endless_batch(3, 4, 5, 0, "x").tolist()) == [0, 1, 2], "fewer items than a batch"


def test_draws_are_the_same_in_any_process_and_differ_by_phase_and_step():
    method = Generative(batch_size=4, discriminator_steps=2)
    distil, gan = method.phase("distil"), method.phase("gan")

    def draw(step, phase):
        return method.draw(step, phase, 0, 20, K)

    assert torch.equal(draw(3, distil).noise, draw(3, distil).noise)
    assert not torch.equal(draw(3, distil).noise, draw(4, distil).noise)
    assert not torch.equal(draw(3, distil).real, draw(3, gan).real[:4])
    first, second = draw(0, distil).critic
    assert torch.equal(draw(0, distil).real, first.real) and not torch.equal(first.real, second.real)
    assert set(second.classes.tolist()) <= {0, 1, 2} and float(second.mix.min()) >= 0


def test_operations_in_turn_are_shared_or_drawn_for_each_image_and_can_be_divided():
    images = torch.rand(1, *SHAPE, generator=rng("image")).expand(B, -1, -1, -1)
    shared = InTurn(("color", "crop", "cutout"), shared=True).draw(rng("draw"), B)(images)
    own = InTurn(("color", "crop", "cutout")).draw(rng("draw"), B)
    assert torch.allclose(shared[0], shared[5]) and not torch.allclose(own(images)[0], own(images)[5])
    assert torch.equal(part_of(own, 2, 4)(images[2:4]), own(images)[2:4])


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS.members if kind != "torchvision"])
def test_every_network_has_a_middle(kind):
    """Its blocks end where they are said to: a hook there sees features of every image."""
    layers = initialised(NETWORKS.members[kind](), (1, 32, 32), K, rng(kind))
    network = FeatureNetwork(layers, layer_named(layers, "middle", "where"))
    logits, features = network.look(flatten(layers), torch.rand(2, 1, 32, 32))
    assert logits.shape == (2, K) and features.shape[0] == 2 and features.ndim in (2, 4)


def test_the_middle_is_that_of_the_papers():
    """Second block of the ConvNet, layer2 of a ResNet: 64 maps of 16 x 16 at width 32."""
    for member, shape in ((ConvNet(), (2, 128, 8, 8)), (ResNet10(width=32), (2, 64, 16, 16))):
        layers = initialised(member, (3, 32, 32), 10, rng("layers"))
        network = FeatureNetwork(layers, layer_named(layers, "middle", "where"))
        assert network.look(flatten(layers), torch.rand(2, 3, 32, 32))[1].shape == shape


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    layers = ConvNet(2, 4).build((1, 8, 8), K)
    assert layer_named(layers, "0", "x") == "3" and layer_named(layers, "1", "x") == "7"
    with pytest.raises(ConfigError, match="a block 0 to 1") as error:
        layer_named(layers, "layer2", "method.pool.layers[0]")
    assert "method.pool.layers[0]" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": ("1", "2")}, "one for each"),
        ({"networks": ()}, "empty"),
        ({"net_steps": -1}, "0 or more"),
        ({"steps_per_network": 0}, "1 or more"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        build(Pool, {"networks": ["convnet"], **settings})


def test_a_judge_that_mixes_images_is_refused_where_ranks_see_parts():
    mixing = ConvNet(2, 4, norm="batch")
    for number, networks in enumerate([(mixing,), (ConvNet(2, 4), mixing)]):
        division = Generative(pool=Pool(networks=networks)).division(small_job.world())
        with pytest.raises(ConfigError, match="normalises over the batch") as caught:
            DeepSpeedRanks(num_ranks=2).check(division)
        assert caught.value.where == f"method.pool.networks[{number}]"
        DeepSpeedRanks(num_ranks=1).check(division)
    unmatched = Generative(pool=Pool(networks=(mixing,)), global_weight=0, local_weight=0)
    DeepSpeedRanks(num_ranks=2).check(unmatched.division(small_job.world()))
