"""The sampled losses against the Gauss-Newton matrix, worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian as torch_hessian

from bocb_mm.optim_wrappers.hessian import (
    bernoulli,
    categorical,
    focal_modulation,
    gaussian,
    sampled_losses,
)

DRAWS = 20_000


def gradients(sample, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gradient of ``sample(logits, generator)`` for a linear model, drawn DRAWS times.

    The draws stand beside each other in one batch with weights of their own, so one backward
    gives all gradients: (DRAWS, classes, features).
    """
    w = weights.expand(DRAWS, *weights.shape).clone().requires_grad_()
    logits = torch.einsum('nf,kcf->knc', x, w).flatten(0, 1)
    return torch.autograd.grad(sample(logits, torch.Generator().manual_seed(0)), w)[0]


def estimate(sample, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over draws of the squared gradient."""
    return gradients(sample, x, weights).square().mean(0)


def diagonal(loss, weights: torch.Tensor) -> torch.Tensor:
    """Diagonal of the exact Hessian of ``loss(weights)``."""
    n = weights.numel()
    return torch_hessian(loss, weights).reshape(n, n).diagonal().reshape(weights.shape)


@pytest.fixture
def linear():
    """Inputs (5, 3), weights (4, 3): for a linear model Gauss-Newton is the Hessian itself."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 3, generator=generator), torch.randn(4, 3, generator=generator)


WEIGHT = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5])


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['mean', 'weighted'])
def test_categorical_is_the_hessian_of_cross_entropy(linear, weight):
    x, w = linear
    labels = torch.tensor([0, 1, 2, 3, 0])  # any labels: the Hessian does not depend on them
    scale = torch.ones(5) if weight is None else weight

    def loss(v):
        return (F.cross_entropy(x @ v.T, labels, reduction='none') * scale).sum() / 5

    rows = None if weight is None else weight.repeat(DRAWS)
    got = estimate(lambda z, g: categorical(z, rows, 5.0, g), x, w)
    torch.testing.assert_close(got, diagonal(loss, w), rtol=0.06, atol=1e-3)


def test_cross_entropy_is_batch_size_times_the_squared_gradient_of_the_mean(linear):
    """The form that the Sophia paper writes: B g * g."""
    x, w = linear
    one, two = w.clone().requires_grad_(), w.clone().requires_grad_()
    seed = torch.Generator().manual_seed(3)
    g_ours = torch.autograd.grad(categorical(x @ one.T, None, None, seed), one)[0]
    logits = x @ two.T
    labels = torch.multinomial(
        logits.detach().softmax(-1), 1, generator=torch.Generator().manual_seed(3)
    )
    g_mean = torch.autograd.grad(F.cross_entropy(logits, labels.squeeze(-1)), two)[0]
    torch.testing.assert_close(g_ours**2, 5 * g_mean**2)


def test_bernoulli_is_the_hessian_of_binary_cross_entropy(linear):
    x, w = linear

    def loss(v):  # mmpretrain's BCE: sum over classes, mean over images
        return F.binary_cross_entropy_with_logits(x @ v.T, torch.zeros(5, 4), reduction='sum') / 5

    got = estimate(lambda z, g: bernoulli(z, None, 5.0, g), x, w)
    torch.testing.assert_close(got, diagonal(loss, w), rtol=0.06, atol=1e-3)


def test_gaussian_is_the_hessian_of_the_squared_error(linear):
    x, w = linear
    mask = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.5]])

    def loss(v):  # KeypointMSELoss: mean over all pixels of mask * error^2
        return ((x @ v.T - 1.0).square() * mask).mean()

    rows = mask.repeat(DRAWS, 1)
    got = estimate(lambda z, g: gaussian(z, rows, 20.0, g), x, w)
    torch.testing.assert_close(got, diagonal(loss, w), rtol=0.06, atol=1e-3)


def test_sampled_losses_have_mean_gradient_zero(linear):
    """Bartlett's first identity; without it the squares of different images would mix."""
    x, w = linear
    for sample in (
        lambda z, g: categorical(z, None, 5.0, g),
        lambda z, g: bernoulli(z, None, 5.0, g),
        lambda z, g: bernoulli(z, None, 5.0, g, focal_modulation(z, 2.0, 0.25)),
        lambda z, g: gaussian(z, None, 20.0, g),
    ):
        grads = gradients(sample, x, w)
        error = grads.std(0) / DRAWS**0.5
        assert (grads.mean(0).abs() < 5 * error + 1e-9).all()


@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0])
@pytest.mark.parametrize('alpha', [0.25, 0.5])
def test_focal_modulation_is_the_difference_of_the_gradients(gamma, alpha):
    z = torch.linspace(-6, 6, 25, dtype=torch.float64)

    def gradient(label: float) -> torch.Tensor:
        v = z.clone().requires_grad_()
        p = v.sigmoid()
        p_t, a_t = (p, alpha) if label else (1 - p, 1 - alpha)
        return torch.autograd.grad((-a_t * (1 - p_t) ** gamma * p_t.log()).sum(), v)[0]

    got = focal_modulation(z, gamma, alpha).double()
    torch.testing.assert_close(got, gradient(0.0) - gradient(1.0), rtol=1e-5, atol=1e-6)
    if gamma == 0 and alpha == 0.5:  # half of cross entropy, whose gradients differ by 1
        torch.testing.assert_close(got, torch.full_like(got, 0.5))


def real_losses():
    """The loss modules themselves: (module, call(logits, n), factor for DRAWS blocks in one call).

    ``n`` images of 4 outputs; the targets are any, for the Hessian does not depend on them.
    """
    from mmdet.models.losses import CrossEntropyLoss as DetCE
    from mmpose.models.losses import KeypointMSELoss, KLDiscretLoss
    from mmpretrain.models.losses import CrossEntropyLoss, LabelSmoothLoss

    def labels(z):
        return torch.arange(len(z)) % 4

    def soft(z):
        return torch.full_like(z, 0.25)

    def rows(z):
        return WEIGHT.repeat(len(z) // 5)

    return {
        'cross entropy': (
            CrossEntropyLoss(loss_weight=2.0),
            lambda m, z: m(z, labels(z), avg_factor=5),
            1,
        ),
        'soft labels': (CrossEntropyLoss(use_soft=True), lambda m, z: m(z, soft(z)), DRAWS),
        'label smoothing': (
            LabelSmoothLoss(label_smooth_val=0.1, num_classes=4, loss_weight=2.0),
            lambda m, z: m(z, labels(z), avg_factor=5),
            1,
        ),
        'bce, rsb': (
            CrossEntropyLoss(use_sigmoid=True),
            lambda m, z: m(z, soft(z), avg_factor=5),
            1,
        ),
        'mmdet, weighted': (
            DetCE(loss_weight=0.5),
            lambda m, z: m(z, labels(z), rows(z), avg_factor=3),
            1,
        ),
        'mmdet, label 0 ignored': (
            DetCE(),
            lambda m, z: m(z, (torch.arange(len(z)) % 5 != 1).long(), ignore_index=0, avg_factor=5),
            1,
        ),
        'mmdet, sigmoid': (
            DetCE(use_sigmoid=True),
            lambda m, z: m(z, labels(z), rows(z), avg_factor=3),
            1,
        ),
        'heatmap': (
            KeypointMSELoss(use_target_weight=True, loss_weight=3.0),
            lambda m, z: m(z[:, :, None, None], soft(z)[:, :, None, None], rows(z)[:, None].expand(-1, 4)),
            DRAWS,
        ),
        'simcc': (
            KLDiscretLoss(beta=2.0, use_target_weight=True),
            lambda m, z: m((z[:, None], z[:, None]), (soft(z)[:, None],) * 2, rows(z)[:, None]),
            1,
        ),
    }  # fmt: skip


def test_real_loss_modules_give_their_own_hessian(linear):
    """Through the taps, with each module's own weight, normaliser and reduction."""
    x, w = linear
    for name, (module, call, factor) in real_losses().items():
        exact = diagonal(lambda v, m=module, c=call: c(m, x @ v.T), w)

        def sample(z, generator, m=module, c=call):
            with sampled_losses(m, generator) as found:
                c(m, z)
            return found.total

        got = estimate(sample, x, w) * factor
        error = (got - exact).abs() / (0.06 * exact.abs() + 1e-3 * exact.abs().max())
        assert (error <= 1).all(), (name, got, exact)


def test_losses_that_cannot_be_sampled():
    """Class weights make the loss depend on the true label; the caller then falls back."""
    from mmpretrain.models.losses import AsymmetricLoss, CrossEntropyLoss

    generator = torch.Generator()
    for module in (CrossEntropyLoss(class_weight=[1.0, 2.0]), AsymmetricLoss()):
        with sampled_losses(module, generator) as found:
            target = torch.tensor([0, 1]) if hasattr(module, 'use_soft') else torch.eye(2)
            module(torch.zeros(2, 2, requires_grad=True), target)
        assert found.total is None and not found.kinds
