"""Preprocessing against closed forms."""

import torch

from distributed_dd.data.digits import Digits
from distributed_dd.data.material import Material
from distributed_dd.data.whitening import ZCA, Standardise


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
