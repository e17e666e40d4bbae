"""The Hessian's diagonal, exact, where a network is a chain of linear layers and kinks.

With ReLUs between them, the outputs are linear in each weight by itself, so that only the loss
bends: ``d2 L/dW_ij**2 = sum_n a_nj**2 (J_n' H_n J_n)_ii``, with the layer's inputs a, the Jacobian
J of the outputs with respect to what the layer gives, and the loss's own Hessian H in the outputs.
All layers together cost about as much as one product of the Hessian for each output.
"""

from __future__ import annotations

import torch

from langevin.neural.derivatives import Derivatives
from langevin.neural.stacked import Batched, Unknown

NUMBERS = 2**24  # of the Jacobians, held at once


def exact_diagonal(own: Derivatives) -> torch.Tensor | None:
    """The Hessian's diagonal (dim,), penalty included; None for a network of another kind."""
    from langevin.engines.perceptron import layers_of
    from langevin.engines.perceptron_text import IDENTITY, RECTIFIED

    try:
        found = layers_of(own, Batched(own.module, "running"))
    except Unknown:
        return None
    if found is None or own.joint or not set(found[0][:, 4].tolist()) <= {IDENTITY, RECTIFIED}:
        return None
    X, y = own.examples(slice(0, 1))
    try:
        _of_the_loss(own, own.module(X).detach(), y)
    except Exception:  # a loss that vmap refuses, with whatever error of its own
        return None
    layers = [(*row, slope) for row, slope in zip(found[0].tolist(), found[1], strict=True)]
    kinked = [kind == RECTIFIED for *_, kind, _ in layers]
    widest, n_outputs = max(row[3] for row in layers), layers[-1][3]
    at_once = max(1, NUMBERS // (widest * n_outputs))
    total = torch.zeros_like(own.theta)
    for low in range(0, own.n, at_once):
        X, y = own.examples(slice(low, min(low + at_once, own.n)))
        inputs, slopes = [X.flatten(1)], []
        for (w, b, n_in, n_out, _, below), kink in zip(layers, kinked, strict=True):
            z = inputs[-1] @ own.theta[w : w + n_in * n_out].view(n_out, n_in).T
            z = z if b < 0 else z + own.theta[b : b + n_out]
            slopes.append(torch.where(z > 0, torch.ones_like(z), below) if kink else None)
            inputs.append(z * slopes[-1] if kink else z)
        bend = _of_the_loss(own, inputs.pop(), y).to(own.kind)
        J = torch.eye(n_outputs, dtype=own.kind).expand(len(X), -1, -1)
        for (w, b, n_in, n_out, _, _), a, slope in reversed(
            list(zip(layers, inputs, slopes, strict=True))
        ):
            J = J if slope is None else J * slope[:, None]
            curved = (J * (bend @ J)).sum(1)  # (examples, n_out)
            total[w : w + n_in * n_out] += (curved.T @ a.square()).flatten()
            if b >= 0:
                total[b : b + n_out] += curved.sum(0)
            if a is not inputs[0]:
                J = J @ own.theta[w : w + n_in * n_out].view(n_out, n_in)
    return total / own.n + own.surface.l2


def _of_the_loss(own, outputs, y):
    """Second derivatives of each example's loss in its outputs, (examples, outputs, outputs)."""

    def one(output, target):
        return own.surface.loss(output[None], target[None]).sum()

    return torch.func.vmap(torch.func.hessian(one))(outputs, y)
