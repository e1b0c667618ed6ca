"""Kernel ridge regression against closed forms, in float64 whatever it is given."""

import pytest
import torch

from distributed_dd.errors import ConfigError, DivergedError
from distributed_dd.learning.kernels.ridge import memory_needed, predict, ridge_weights, solved_labels
from distributed_dd.outer.live_bytes import peak_live_bytes

RIDGE = 1e-6


def problem(num_images=7, num_predicted=20, num_features=12):
    rng = torch.Generator().manual_seed(0)
    features_nF, features_tF = (
        torch.randn(rows, num_features, generator=rng, dtype=torch.float64) for rows in (num_images, num_predicted)
    )
    return features_nF, features_tF, torch.randn(num_images, 3, generator=rng, dtype=torch.float64)


def test_it_is_the_ridge_regression_of_the_features():
    """Catches a ridge that is not a share of the mean of the diagonal, and a factor of the wrong side."""
    features_nF, features_tF, targets_nK = problem()
    penalty = 0.1 * features_nF.square().sum() / len(features_nF)
    moments_FF = features_nF.T @ features_nF + penalty * torch.eye(12, dtype=torch.float64)
    expected = features_tF @ torch.linalg.solve(moments_FF, features_nF.T @ targets_nK)
    weights_nK = ridge_weights(features_nF @ features_nF.T, targets_nK, 0.1)
    assert torch.allclose(predict(features_tF @ features_nF.T, weights_nK), expected, rtol=1e-12)


def test_it_is_solved_in_float64_whatever_the_kernels_dtype():
    """Catches a ridge of 1e-6 that is added in float32, where nearly equal rows make the matrix singular."""
    features_nF, _, targets_nK = problem()
    features_nF = torch.cat([features_nF, features_nF + 1e-5])
    kernel_nn = (features_nF @ features_nF.T).float()
    targets_nK = torch.cat([targets_nK, targets_nK]).float()
    weights_nK = ridge_weights(kernel_nn, targets_nK, RIDGE)
    ridge = RIDGE * kernel_nn.double().trace() / len(kernel_nn)
    back = kernel_nn.double() @ weights_nK + ridge * weights_nK
    assert weights_nK.dtype == torch.float64
    assert torch.allclose(back, targets_nK.double(), rtol=0, atol=1e-8)


def test_it_is_differentiable_by_the_kernel_and_the_targets():
    features_nF, features_tF, targets_nK = problem()

    def loss(features_nF, targets_nK):
        weights_nK = ridge_weights(features_nF @ features_nF.T, targets_nK, 0.01)
        return predict(features_tF @ features_nF.T, weights_nK).square().mean()

    leaves = features_nF.requires_grad_(), targets_nK.requires_grad_()
    assert torch.autograd.gradcheck(loss, leaves)


def test_solved_labels_predict_what_they_were_solved_for():
    """Labels that are known to give the targets come back; other targets are missed by the least possible."""
    features_nF, features_tF, targets_nK = problem()
    kernel_tn, kernel_nn = features_tF @ features_nF.T, features_nF @ features_nF.T
    predictions_tK = predict(kernel_tn, ridge_weights(kernel_nn, targets_nK, 0.1))
    assert torch.allclose(solved_labels(kernel_tn, kernel_nn, predictions_tK, 0.1), targets_nK, rtol=1e-9)
    wanted_tK = predictions_tK + torch.randn(predictions_tK.shape, generator=torch.Generator().manual_seed(1))
    labels_nK = solved_labels(kernel_tn, kernel_nn, wanted_tK, 0.1).requires_grad_()
    missed = (predict(kernel_tn, ridge_weights(kernel_nn, labels_nK, 0.1)) - wanted_tK).square().sum()
    (slope_nK,) = torch.autograd.grad(missed, labels_nK)
    assert slope_nK.abs().max() < 1e-9


def test_a_matrix_that_cannot_be_factored_is_explained():
    features_nF, features_tF, targets_nK = problem()
    twice = torch.cat([features_nF, features_nF])
    targets = torch.cat([targets_nK, targets_nK])
    with pytest.raises(DivergedError, match=r"14 x 14 .* not positive definite(.|\n)*raise the ridge"):
        ridge_weights(twice @ twice.T - 1e-9 * torch.eye(14), targets, 0.0)
    broken = features_nF @ features_nF.T
    broken[2, 3] = float("nan")
    with pytest.raises(DivergedError, match="not finite"):
        ridge_weights(broken, targets_nK, RIDGE)
    with pytest.raises(ConfigError, match=r"kernel: its shape is \(7, 12\)"):
        ridge_weights(features_nF, targets_nK, RIDGE)
    with pytest.raises(ConfigError, match=r"targets: their shape is \(7,\)"):
        ridge_weights(features_nF @ features_nF.T, targets_nK[:, 0], RIDGE)
    with pytest.raises(ConfigError, match="3 images are too few to solve for the labels of 7"):
        solved_labels(features_tF[:3] @ features_nF.T, features_nF @ features_nF.T, targets_nK[:3], RIDGE)


def test_the_memory_that_is_announced_is_what_it_takes():
    """Catches an estimate that is not of the square, or below what is alive at once in the gradient."""
    features_nF, _, targets_nK = problem(num_images=200, num_features=300)

    def gradient():
        kernel_nn = (features_nF @ features_nF.T).float().requires_grad_()
        ridge_weights(kernel_nn, targets_nK, RIDGE).square().sum().backward()

    peak = peak_live_bytes(gradient)
    assert 0.7 * memory_needed(200) < peak < 1.02 * memory_needed(200)
