"""Preprocessing against closed forms."""

import torch

from distributed_dd.data.digits import Digits
from distributed_dd.data.material import Material
from distributed_dd.data.whitening import ZCA, Fitted, RegularisedZCA, Standardise


def images(n=400):
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=rng) / 4
    return (torch.rand(n, 12, generator=rng) @ mix).view(n, 3, 2, 2)


def test_zca_whitens_to_s_over_s_plus_eps():
    """The covariance of z must have eigenvalues S / (S + eps); catches eps added to a root instead."""
    x, eps = images(), 0.1
    z = ZCA(eps).fit(x).apply(x).flatten(1).double()
    covariance = torch.cov(z.T)
    original = torch.linalg.eigvalsh(torch.cov(x.flatten(1).double().T))
    assert torch.allclose(torch.linalg.eigvalsh(covariance), original / (original + eps), atol=1e-5)
    assert z.mean(0).abs().max() < 1e-5


def test_zca_is_zero_phase():
    """W is symmetric: whitened images keep their orientation."""
    fitted = ZCA().fit(images())
    assert torch.allclose(fitted.forward, fitted.forward.T, atol=1e-5)


def test_standardised_channels_have_mean_zero_and_deviation_one():
    z = Standardise().fit(images()).apply(images())
    assert z.mean((0, 2, 3)).abs().max() < 1e-5 and (z.std((0, 2, 3)) - 1).abs().max() < 1e-4


def test_statistics_come_from_the_images_that_were_fitted():
    """Catches whitening the test split with its own statistics."""
    fitted = ZCA().fit(images())
    one = images()[:1] + 5.0
    expected = (one - fitted.mean).flatten(1) @ fitted.forward
    assert torch.allclose(fitted.apply(one).flatten(1), expected)


def test_a_costly_fit_is_made_once_and_read_back_the_same(monkeypatch):
    """A resumed run must see the same bits, whatever the number of threads."""
    said, fits = [], []
    fit = ZCA.fit
    monkeypatch.setattr(ZCA, "fit", lambda self, images: fits.append(1) or fit(self, images))
    first = Material(Digits().load(), ZCA(), said.append).fitted
    again = Material(Digits().load(), ZCA(), said.append).fitted
    assert len(fits) == 1 and len(said) == 1
    assert all(torch.equal(a, b) for a, b in zip(first.tensors().values(), again.tensors().values(), strict=True))
    assert Material(Digits().load(), ZCA(eps=0.2), said.append).fitted.mean.shape == (1, 8, 8) and len(fits) == 2


def regularised(x, ridge):
    """The steps of KIP's whitening one after the other, by another route: through singular values."""
    channels = (x.double() - x.double().mean((0, 2, 3), keepdim=True)) / x.double().std((0, 2, 3), keepdim=True)
    rows = channels.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    values = singular.square() / len(rows)
    return rows, (right.T / (values + ridge * (values.sum() / rows.shape[1])).sqrt()) @ right


def test_regularised_zca_is_kips():
    """Catches a covariance that is centred again, a ridge that is no share of the mean eigenvalue, another order."""
    x = images()
    rows, whiten = regularised(x, 0.1)
    fitted = RegularisedZCA(0.1).fit(x)
    assert torch.allclose(fitted.apply(x).flatten(1).double(), rows @ whiten, atol=1e-4)
    assert torch.allclose(fitted.forward.double(), whiten, atol=1e-4 * whiten.abs().max())


def test_regularised_zca_goes_back_to_an_image_of_average_contrast():
    """All but the image's own mean and norm comes back; brightness and contrast do not count."""
    x = images()
    fitted = RegularisedZCA().fit(x)
    z = fitted.apply(x)
    back = fitted.invert(z)
    assert torch.allclose(fitted.apply(back), z, atol=1e-4)
    contrast = ((x - fitted.mean) * fitted.scale).flatten(1)
    contrast = (contrast - contrast.mean(1, keepdim=True)).norm(dim=1).mean()
    assert torch.allclose(((back - fitted.mean) * fitted.scale).flatten(1).norm(dim=1), contrast, rtol=1e-3)


def test_an_image_without_contrast_stays_finite_and_few_images_stay_tame():
    """Fewer images than pixels: directions in which none lies keep their length, and are not blown up."""
    fitted = RegularisedZCA().fit(images(5))
    flat = fitted.apply(torch.zeros(1, 3, 2, 2) + fitted.mean)
    assert torch.equal(flat, torch.zeros_like(flat))
    assert torch.linalg.eigvalsh(fitted.forward.double())[0].item() > 0
    assert (torch.linalg.eigvalsh(fitted.forward.double()) - 1).abs().lt(1e-4).sum() >= 12 - 5


def test_all_parts_of_a_fit_travel():
    fitted = RegularisedZCA().fit(images())
    again = Fitted.of({f"x.{name}": part for name, part in fitted.tensors().items()}, "x.")
    assert torch.equal(again.apply(images()), fitted.apply(images())) and again.scale is not None
    assert Fitted.of(Standardise().fit(images()).tensors()).scale is None
