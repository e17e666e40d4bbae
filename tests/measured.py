"""Small float64 networks that tests of measurements share, and brute force beside them."""

import numpy as np
import torch
from torch import nn

from langevin.neural import NeuralSurface


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier(*, n=61, hidden=6, norm=False, l2=0.05, batch_norm="batch", n_in=4):
    """3 classes of noisy linear labels: 61 examples are no multiple of anything used here."""
    X = numbers(n, n_in)
    y = (X[:, :3] + 0.5 * numbers(n, 3, seed=1)).argmax(1)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    layers = [nn.Linear(n_in, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.Tanh()]
    module = nn.Sequential(*layers, nn.Linear(hidden, 3)).double()
    torch.set_rng_state(state)
    if norm:  # buffers that are not at their start
        module.train()
        module(2 * X + 1)
    return NeuralSurface(module.eval(), (X, y), l2=l2, batch_norm=batch_norm)


def least_squares(n=61, dim=3, seed=0, noise=0.5):
    """(w u - v)**2/2 on Gaussian u; returns the surface, u and v."""
    u = numbers(n, dim, seed=seed)
    v = u @ torch.arange(1.0, dim + 1, dtype=torch.float64) + noise * numbers(n, seed=seed + 1000)
    module = nn.Linear(dim, 1, bias=False).double()
    return NeuralSurface(module, (u, v), loss="squared"), u.numpy(), v.numpy()


def whole_loss(surface):
    """theta -> loss on all examples in one piece, penalty included, as torch sees it."""
    module = surface.module
    if surface.batch_norm != "eval":
        from langevin.neural.stacked import with_statistics

        module = with_statistics(module, "batch")

    def loss(theta):
        views = {k: v[0] for k, v in surface.layout.views(theta[None]).items()}
        outputs = torch.func.functional_call(module, views, (surface.X,))
        penalty = 0.5 * surface.l2 * theta.square().sum()
        return surface.loss(outputs, surface.y).mean() + penalty

    return loss


def brute_hessian(surface, theta=None):
    theta = torch.as_tensor(surface.flat() if theta is None else theta)
    return torch.autograd.functional.hessian(whole_loss(surface), theta).numpy()


def brute_gradients(surface, theta=None):
    """Each example's gradient, one backward pass at a time, (n, dim)."""
    theta = torch.as_tensor(surface.flat() if theta is None else theta)
    found = []
    for k in range(surface.n_examples):
        alone = NeuralSurface(
            surface.module,
            (surface.X[k : k + 1], surface.y[k : k + 1]),
            loss=surface.loss,
            l2=surface.l2,
            batch_norm=surface.batch_norm,
        )
        leaf = theta.clone().requires_grad_()
        found.append(torch.autograd.grad(whole_loss(alone)(leaf), leaf)[0].numpy())
    return np.array(found)
