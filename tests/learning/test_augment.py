"""DSA against independent references, and the promise of draw-then-apply."""

import pytest
import torch

from distributed_dd.learning.augment import OPERATIONS, Color, Crop, Cutout, Flip, Rotate, Scale, Siamese
from distributed_dd.learning.chance import generator


def batch(n=3, channels=2, height=6, width=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, height, width, dtype=torch.float64, generator=rng)


def sampled(x, matrices):
    """Bilinear sampling written out pixel by pixel: corners are at -1 and 1, zeros outside."""
    n, _, height, width = x.shape
    out = torch.zeros_like(x)
    for i in range(n):
        for row in range(height):
            for column in range(width):
                at = torch.tensor([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1, 1.0]).double()
                u, v = matrices[i].double() @ at
                u, v = (u + 1) / 2 * (width - 1), (v + 1) / 2 * (height - 1)
                left, top = int(torch.floor(u)), int(torch.floor(v))
                for dy in (0, 1):
                    for dx in (0, 1):
                        y, z = top + dy, left + dx
                        if 0 <= y < height and 0 <= z < width:
                            weight = (1 - abs(float(v) - y)) * (1 - abs(float(u) - z))
                            out[i, :, row, column] += weight * x[i, :, y, z]
    return out


def test_color_is_brightness_then_saturation_then_contrast():
    """Catches another order, and means taken over the wrong axes."""
    x = batch()
    drawn = Color(torch.tensor([0.3, -0.2, 0.0]), torch.tensor([0.5, 2.0, 1.0]), torch.tensor([1.4, 0.5, 1.0]))
    for i in range(3):
        one = x[i] + float(drawn.brightness[i])
        grey = (one[0] + one[1]) / 2
        one = torch.stack([(c - grey) * float(drawn.saturation[i]) + grey for c in one])
        mean = one.mean()
        one = (one - mean) * float(drawn.contrast[i]) + mean
        assert torch.allclose(drawn(x)[i], one, atol=1e-6)
    assert torch.allclose(drawn(x)[2], x[2])  # the neutral draw


def test_crop_shifts_with_zeros_coming_in():
    x = batch()  # pads: rows int(6 / 8 + .5) = 1, columns int(8 / 8 + .5) = 1
    down, right = torch.tensor([0.0, 0.5, 0.99]), torch.tensor([0.99, 0.5, 0.0])
    out = Crop(down, right)(x)
    assert torch.equal(out[1], x[1])
    assert torch.equal(out[0, :, 1:, :-1], x[0, :, :-1, 1:]) and not out[0, :, 0].any()
    assert not out[0, :, :, -1].any()
    assert torch.equal(out[2, :, :-1, 1:], x[2, :, 1:, :-1]) and not out[2, :, -1].any()


def test_crop_offsets_are_all_alike_probable():
    drawn = Crop.draw(generator(0, "crop"), 30_000)
    from distributed_dd.learning.augment import _shifted

    counts = torch.bincount(_shifted(drawn.down, 32)[:, 0], minlength=9)
    assert len(counts) == 9 and (counts.double() / 30_000 - 1 / 9).abs().max() < 0.01


def test_cutout_zeroes_a_square_of_half_the_side():
    x = torch.ones(200, 1, 8, 8)
    out = Cutout.draw(generator(0, "cutout"), 200)(x)
    holes = (out == 0).flatten(1).sum(1)
    assert holes.max() == 16 and holes.min() >= 4  # a corner keeps at least a quarter of the square
    inside = Cutout(torch.tensor([0.5]), torch.tensor([0.5]))(x[:1])[0, 0]
    rows = (inside == 0).any(1).nonzero().flatten()
    assert len(rows) == 4 and (inside[rows][:, rows] == 0).all()


def test_flip_mirrors_half_of_the_images_left_to_right():
    x = batch(2)
    out = Flip(torch.tensor([True, False]))(x)
    assert torch.equal(out[0], x[0, :, :, torch.arange(7, -1, -1)]) and torch.equal(out[1], x[1])
    assert abs(float(Flip.draw(generator(0, "flip"), 10_000).mirrored.double().mean()) - 0.5) < 0.02


def test_scale_and_rotate_equal_bilinear_sampling_by_hand():
    x = batch(2)
    scale = Scale(torch.tensor([0.9, 1.2]), torch.tensor([1.1, 0.85]))
    matrices = [torch.tensor([[a, 0, 0], [0, b, 0]]) for a, b in zip(*scale.on(x), strict=True)]
    assert torch.allclose(scale(x), sampled(x, matrices), atol=1e-7)
    angles = torch.tensor([0.2, -0.25])
    matrices = [torch.tensor([[a.cos(), -a.sin(), 0], [a.sin(), a.cos(), 0]]) for a in angles]
    assert torch.allclose(Rotate(angles)(x), sampled(x, matrices), atol=1e-6)


def test_rotation_and_scale_stay_in_their_ranges():
    rng = generator(0, "ranges")
    assert Rotate.draw(rng, 5000).radians.abs().max() <= 15 * torch.pi / 180
    drawn = Scale.draw(rng, 5000)
    assert drawn.x_factor.min() >= 1 / 1.2 and drawn.x_factor.max() <= 1.2
    assert not torch.equal(drawn.x_factor, drawn.y_factor)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_draw_gives_the_same_bits_and_is_differentiable(name):
    """Replay rests on the first, image gradients on the second."""
    x = batch(n=2, height=4, width=4).requires_grad_()
    drawn = Siamese(operations=(name,)).draw(generator(1, name), 2)
    assert torch.equal(drawn(x), drawn(x)) and drawn(x).shape == x.shape and drawn(x).dtype == x.dtype
    assert torch.autograd.gradcheck(drawn, (x,), atol=1e-6)


def test_one_operation_per_batch_all_of_them_in_turn_and_parameters_per_image():
    seen = {type(Siamese().draw(generator(0, "which", i), 4)).__name__ for i in range(100)}
    assert seen == {cls.__name__ for cls in OPERATIONS.values()}
    drawn = Siamese(operations=("rotate",)).draw(generator(0, "each"), 4)
    assert len(set(drawn.radians.tolist())) == 4
    shared = Siamese(operations=("rotate",), shared=True).draw(generator(0, "each"), 4)
    x = batch(1).expand(4, -1, -1, -1)
    assert all(torch.equal(shared(x)[0], out) for out in shared(x))


def test_draws_leave_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    Siamese().draw(generator(0, "state"), 8)
    assert torch.equal(state, torch.random.get_rng_state())
