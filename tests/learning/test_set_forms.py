"""Forms of a set: each against an independent reference, and what any of them promises."""

import numpy
import pytest
import scipy.fft
import torch

from distributed_dd.errors import ConfigError
from distributed_dd.learning.chance import generator
from distributed_dd.learning.set_forms import SET_FORMS, form, seen, stored
from distributed_dd.learning.set_forms.formation import Formation
from distributed_dd.learning.set_forms.frequency import Frequency, variance_of_coefficients
from distributed_dd.learning.set_forms.pixels import Pixels
from distributed_dd.learning.set_forms.quantised import Quantised
from distributed_dd.outer.live_bytes import peak_live_bytes

SHAPE = (2, 7, 5)
FORMS = [Pixels(), Formation(2), Formation(3), Frequency(0.3), Frequency(1.0), Quantised(8), Quantised(4, 3)]
EACH = pytest.mark.parametrize("settings", FORMS, ids=str)
LINEAR = pytest.mark.parametrize("settings", [f for f in FORMS if not isinstance(f, Quantised)], ids=str)


def numbers(*shape, key=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(key, "numbers"), dtype=torch.float64).to(dtype)


def codec_of(settings, dtype=torch.float64):
    return settings.fitted(SHAPE, lambda: numbers(50, *SHAPE, key=1, dtype=dtype))


def pictures_of(codec, num_rows, dtype=torch.float64):
    return numbers(num_rows * codec.pictures, *SHAPE, key=2, dtype=dtype)


def test_tiles_are_cut_by_hand_and_enlarged_by_torch():
    """Catches tiles in another order, corners that are aligned, and a side that does not divide cut elsewhere."""
    codec, rows = codec_of(Formation(2)), numbers(3, *SHAPE)
    enlarged = [
        torch.nn.functional.interpolate(tile, size=(7, 5), mode="bilinear", align_corners=False)
        for tile in (rows[:, :, :4, :3], rows[:, :, :4, 3:], rows[:, :, 4:, :3], rows[:, :, 4:, 3:])
    ]
    for number, picture in enumerate(codec.decode(rows)):
        assert torch.equal(picture, enlarged[number % 4][number // 4])


def test_a_picture_is_made_smaller_by_means_into_its_own_tile():
    """Catches pixels that are left out, and pictures that change places."""
    codec = Formation(2).fitted((1, 8, 8), lambda: numbers(1))
    pictures = numbers(8, 1, 8, 8)
    rows = codec.encode(pictures)
    means = pictures.numpy().reshape(8, 4, 2, 4, 2).mean((2, 4))
    assert rows.shape == (2, 1, 8, 8)
    for row, tiles in enumerate(means.reshape(2, 4, 4, 4)):
        expected = numpy.block([[tiles[0], tiles[1]], [tiles[2], tiles[3]]])
        assert rows[row, 0].numpy() == pytest.approx(expected)


def test_coefficients_are_those_of_scipy_and_the_rest_is_left_out():
    codec, rows = codec_of(Frequency(0.3)), numbers(2, 3, 21)
    assert codec.pictures == 3 and int(codec.mask.sum()) == 21  # 0.3 of 70
    for number, picture in enumerate(codec.decode(rows)):
        spectrum = numpy.zeros(SHAPE)
        spectrum[codec.mask.numpy()] = rows.flatten(0, 1)[number].numpy()
        for channel in range(2):
            expected = scipy.fft.idctn(spectrum[channel], norm="ortho")
            assert picture[channel].numpy() == pytest.approx(expected, abs=1e-12)
    pictures = pictures_of(codec, 2)
    spectra = scipy.fft.dctn(pictures.numpy(), axes=(2, 3), norm="ortho")
    assert codec.encode(pictures).flatten(0, 1).numpy() == pytest.approx(spectra[:, codec.mask.numpy()], abs=1e-12)


def test_the_coefficients_that_vary_most_are_kept(monkeypatch):
    """Catches a mean square for a variance, and a statistic of the last block alone."""
    monkeypatch.setattr("distributed_dd.learning.set_forms.frequency.BLOCK_BYTES", 8 * 70 * 7)
    spectrum = numpy.zeros((50, *SHAPE))
    spectrum[:, 0, 0, 0] = 100.0  # large, and always the same
    spread = [(0, 3, 1), (1, 0, 2), (0, 0, 4), (1, 6, 4)]
    for size, place in enumerate(spread):
        spectrum[:, *place] = (1 + size) * numbers(50, key=size).numpy()
    images = torch.from_numpy(scipy.fft.idctn(spectrum, axes=(2, 3), norm="ortho"))
    assert variance_of_coefficients(images).numpy() == pytest.approx(spectrum.var(0), abs=1e-9)
    mask = Frequency(3 / 70).fitted(SHAPE, lambda: images).mask
    assert {tuple(place) for place in mask.nonzero().tolist()} == set(spread[1:])


def test_a_mask_is_taken_back_and_one_of_other_images_refused():
    codec = codec_of(Frequency(0.3))
    again = Frequency(0.3).codec(SHAPE, codec.tensors())
    rows = numbers(2, 3, 21)
    assert torch.equal(again.decode(rows), codec.decode(rows))
    with pytest.raises(ConfigError, match="mask"):
        Frequency(0.4).codec(SHAPE, codec.tensors())


@pytest.mark.parametrize("bits", [8, 4])
def test_levels_are_those_of_numpy(bits):
    """Catches a range of the whole picture, 2 ** bits steps for levels, and halves that are rounded up."""
    codec, levels = codec_of(Quantised(bits)), 2**bits - 1
    pictures = pictures_of(codec, 4)
    pictures[2, 1] = 0.25  # a channel of one value
    decoded = codec.decode(codec.encode(pictures))
    low, high = (getattr(pictures.numpy(), end)((2, 3), keepdims=True) for end in ("min", "max"))
    step = (high - low) / levels
    codes = numpy.round((pictures.numpy() - low) / numpy.where(step, step, 1))
    assert decoded.numpy() == pytest.approx(low + codes * step, abs=1e-12)
    assert (decoded - pictures).abs().max() <= step.max() / 2 * (1 + 1e-9)
    assert torch.equal(decoded[2, 1], pictures[2, 1])


@pytest.mark.parametrize("settings", [Quantised(8), Quantised(4), Quantised(4, 3)], ids=str)
def test_whole_numbers_are_packed_and_say_the_same(settings):
    """Catches halves of a byte that change places, and the last number of an odd count."""
    codec = settings.fitted((1, 7, 5), lambda: numbers(1))
    rows = codec.encode(numbers(2 * codec.pictures, 1, 7, 5, dtype=torch.float32))
    packed = codec.packed(rows)
    assert packed["codes"].dtype == torch.uint8
    assert sum(tensor.nbytes for tensor in packed.values()) == 2 * settings.num_bytes((1, 7, 5))
    assert torch.equal(codec.opened(packed), codec.decode(rows))
    first = packed["codes"][0, 0, 0].item()
    code = first if settings.bits == 8 else first // 16
    assert packed["low"][0, 0, 0] + code * packed["step"][0, 0, 0] == codec.decode(rows)[0, 0, 0, 0]


@EACH
def test_what_is_kept_takes_the_bytes_that_are_stated(settings):
    codec = codec_of(settings, torch.float32)
    rows = codec.encode(pictures_of(codec, 3, torch.float32))
    packed = codec.packed(rows)
    assert sum(tensor.nbytes for tensor in packed.values()) == 3 * settings.num_bytes(SHAPE)
    assert rows[0].numel() == settings.numbers(SHAPE) and codec.pictures == settings.pictures(SHAPE)
    assert torch.equal(codec.opened(packed), codec.decode(rows))


@LINEAR
def test_a_gradient_is_pulled_back_as_differences_say(settings):
    """Catches an adjoint that is not of this map, and rows that get another row's gradient."""
    codec = codec_of(settings)
    rows = codec.encode(pictures_of(codec, 3))
    target = pictures_of(codec, 3).flip(0)

    def loss(rows):
        return ((codec.decode(rows) - target).sin() * target).sum()

    pictures = codec.decode(rows).requires_grad_()
    (gradient,) = torch.autograd.grad(((pictures - target).sin() * target).sum(), pictures)
    pulled = codec.pulled_back(rows, gradient)
    assert pulled.shape == rows.shape
    for key in range(3):
        direction = numbers(*rows.shape, key=key)
        slope = (loss(rows + 1e-5 * direction) - loss(rows - 1e-5 * direction)) / 2e-5
        assert slope.item() == pytest.approx((pulled * direction).sum().item(), rel=1e-7)


def test_rounding_lets_gradients_through():
    codec = codec_of(Quantised(4, 3))
    rows, gradient = codec.encode(pictures_of(codec, 2)), pictures_of(codec, 2).flip(0)
    assert torch.equal(codec.pulled_back(rows, gradient), codec.encode(gradient))


@EACH
def test_what_was_decoded_is_stored_as_it_was(settings):
    """Decoded pictures lie in the space of the form: nothing more is lost. Only tiles are smoothed again."""
    codec = codec_of(settings)
    once = codec.decode(codec.encode(pictures_of(codec, 3)))
    again = codec.decode(codec.encode(once))
    if isinstance(settings, Formation):
        flat = torch.full_like(once, 0.7)
        once, again = flat, codec.decode(codec.encode(flat))
    assert (again - once).abs().max() <= 1e-12


def test_a_whole_spectrum_and_one_tile_are_the_picture_itself():
    for settings in (Frequency(1.0), Formation(1)):
        codec = codec_of(settings)
        pictures = pictures_of(codec, 3)
        assert (codec.decode(codec.encode(pictures)) - pictures).abs().max() <= 1e-13


@EACH
def test_blocks_change_nothing(settings, monkeypatch):
    codec = codec_of(settings)
    pictures = pictures_of(codec, 7)
    rows, gradient = codec.encode(pictures), pictures.flip(0)
    expected = codec.decoded(rows), codec.pulled_back(rows, gradient)
    monkeypatch.setattr(form, "BLOCK_BYTES", 8 * 70 * codec.pictures * 2)  # two rows
    assert torch.allclose(codec.decoded(rows), expected[0], rtol=0, atol=1e-14)
    assert torch.allclose(codec.pulled_back(rows, gradient), expected[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("settings", [Formation(2), Frequency(0.3), Quantised(4, 3)], ids=str)
def test_beside_its_result_it_holds_no_more_of_a_larger_set(settings, monkeypatch):
    """Catches one graph of the whole set."""
    codec = codec_of(settings)
    monkeypatch.setattr(form, "BLOCK_BYTES", 8 * 70 * codec.pictures)

    def beside(num_rows, forth):
        rows = codec.encode(pictures_of(codec, num_rows))
        gradient = pictures_of(codec, num_rows)
        work = (lambda: codec.decoded(rows)) if forth else (lambda: codec.pulled_back(rows, gradient))
        work()  # torch's own first time
        there = rows.nbytes + (0 if forth else gradient.nbytes)  # counted as soon as it is cut
        return peak_live_bytes(work) - work().nbytes - there

    for forth in (True, False):
        assert beside(64, forth) == beside(8, forth)


def test_a_set_is_grouped_by_rows_and_taken_apart_again():
    """Catches labels of other pictures, and classes that are counted twice."""
    codec = codec_of(Formation(2))
    classes = torch.tensor([0, 0, 1]).repeat_interleave(4)
    labels, rate = numbers(12, 3), torch.tensor(0.1)
    before = {"images": pictures_of(codec, 3), "labels": labels, "targets": -labels, "classes": classes}
    kept = stored({**before, "learning_rate": rate}, codec)
    assert kept["labels"].shape == (3, 4, 3) and kept["classes"].tolist() == [0, 0, 1] and kept["learning_rate"] is rate
    assert torch.equal(kept["labels"][1, 2], labels[6])
    after = seen(kept, codec)
    assert all(torch.equal(after[name], before[name]) for name in ("labels", "targets", "classes"))
    assert torch.equal(after["images"], codec.decode(kept["images"]))
    with pytest.raises(ValueError, match="one class"):
        stored({**before, "classes": torch.arange(12) // 3}, codec)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (Formation(6), "set.form.factor"),
        (Frequency(0.01), "set.form.share"),
        (Quantised(8, 4), "set.form"),
        (Quantised(4, 8), "set.form"),
    ],
    ids=str,
)
def test_a_form_that_does_not_fit_is_refused(settings, where):
    with pytest.raises(ConfigError) as refusal:
        settings.check(SHAPE)
    assert refusal.value.where == where and refusal.value.allowed


def test_every_form_that_fits_takes_the_bytes_of_pixels_at_most():
    for shape in ((1, 8, 8), (3, 32, 32), (1, 28, 28)):
        for settings in (*FORMS, Frequency(0.1), Frequency(1 / 3), Quantised(8, 3), Quantised(4, 6)):
            settings.check(shape)
            assert 0 < settings.num_bytes(shape) <= 4 * shape[0] * shape[1] * shape[2]
    assert {type(settings) for settings in FORMS} == set(SET_FORMS.members.values())
