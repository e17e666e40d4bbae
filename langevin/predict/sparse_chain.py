"""What chains on a sparse matrix share: how long they live, relax, and take to reach a region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks, reached, second_eigenvalue
from langevin.predict.kernel import MARGIN, WHO, Step

FOREVER = 1e11  # steps: what leaves more rarely are the tails of the law, cut off by the grid
NEGLIGIBLE = 2e-12  # mass lost a step at which no deeper domain is tried
SETTLED = 1e-3  # relative change of the mass lost
COARSE = 1.6  # times the nodes' distance, to find out how deep the domain must be
MAX_NONZEROS = 40_000_000  # about half a GB
MAX_OPERATIONS = 2e10
TRAPPED = 1e-6  # change of probabilities with closer nodes that a smaller margin may cure
SHORT_LIVED = 1e-3  # of the replicas may escape before they reach a region


class SparseChain:
    """A chain on ``matrix`` (n, n) with the law ``weights`` (n,), of which ``lost`` goes a step."""

    matrix: Any
    weights: np.ndarray
    loss: np.ndarray
    blocks: np.ndarray
    smoothing: int
    lost: float
    unit: float

    @property
    def lifetime(self) -> float:
        """Steps before escape to infinity; a run longer than this is not stationary."""
        return np.inf if self.lost * FOREVER < 1 else 1 / self.lost

    @cached_property
    def relaxation_steps(self) -> float:
        """``-1/ln |lambda_2|``: the number of steps in which memory of the start decays by e.

        Accurate to ``1e-15`` times itself, relatively; inf where it is above 1e13.
        """
        size = second_eigenvalue(self.matrix, self.weights)
        return np.inf if size > 1 - 1e-13 else 0.0 if size <= 0 else float(-1 / np.log(size))

    @property
    def relaxation_time(self) -> float:
        """``relaxation_steps`` in the dynamics' time: steps for SGD, units of dt for Langevin."""
        return self.relaxation_steps * self.unit

    def _check_step(self, step: Any) -> None:
        if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or step < 1:
            raise ParameterError(f"at(step={step!r}): needs a whole number of steps, at least 1.")
        if (step - 1) * self.matrix.nnz > MAX_OPERATIONS:
            raise ParameterError(
                f"at(step={step}): {step * self.matrix.nnz:.1e} operations (at most "
                f"{MAX_OPERATIONS:.0e}). Use the stationary law itself (relaxation takes "
                f"{self.relaxation_steps:.3g} steps), or fewer steps."
            )

    def _mean_visits(self, source: np.ndarray, free: np.ndarray, region: str) -> float:
        """Total mean number of looks outside the region, from ``source`` (n,) on the nodes.

        ``free`` (n,) is the share of each node's cell outside. A node that is left with the mass
        ``free`` of what reaches it makes the rest of the mass leave the chain.
        """
        if not (free < 0.5).any():
            raise UnsoundError(
                f"hitting_time({region!r}): the region is outside of where replicas live, or "
                "thinner than a step. Give a region that they reach."
            )
        free = np.where(np.abs(free - 1) < 1e-13, 1.0, np.where(np.abs(free) < 1e-14, 0.0, free))
        here = free != 0
        if not here.any():  # the region is everywhere
            return 0.0
        here[here] = reached(self.matrix[here][:, here], source[here])
        rows, w = self.matrix[here], free[here]
        # Summed, not 1 minus the rest: what leaves is far below the rounding of 1.
        gone = self.loss[here] + np.asarray(self.matrix[~here].sum(axis=0)).ravel()[here]
        part = (rows[:, here] * w).tocsc()
        blocks = Blocks(part, (1 - w) + w * gone, self.blocks[here], self.smoothing)
        u = blocks.visits(source[here], source[here] + self.weights[here])
        free = w
        escaped = float(self.loss[here] @ (free * u))
        if escaped > SHORT_LIVED:
            raise UnsoundError(
                f"hitting_time({region!r}): {escaped:.2g} of the replicas escape to infinity "
                "before they reach the region, so the mean time is that of a part of them. Reduce "
                "the learning rate (or dt), or simulate with on_divergence='absorb'."
            )
        return float(free @ u)


def refuse_size(nonzeros: float) -> None:
    """Refuses a matrix beyond MAX_NONZEROS."""
    if nonzeros > MAX_NONZEROS:
        raise UnsoundError(
            f"{WHO}: this step needs a matrix of about {nonzeros:.1e} entries (at most "
            f"{MAX_NONZEROS:.0e}). A small step is near the continuum: use predict.fokker_planck, "
            "predict.finite_step or predict.boltzmann_gibbs. For one that overshoots, simulate."
        )


def dilated(mask: np.ndarray, reach: tuple[int, int]) -> np.ndarray:
    """The cells (nx, ny) bool within ``reach`` cells, along each axis, of one where mask holds."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=tuple(2 * r + 1 for r in reach), mode="constant")


def deep_enough(solve: Callable[[float], Any], depth: float) -> float:
    """The depth of the domain beyond which the mass that leaves ``solve(depth)`` hardly changes.

    Where replicas do escape, the domain ends beyond where the noise-free map runs away.
    """
    result, slow = solve(depth), 0
    for _ in range(8):
        if result.lost < NEGLIGIBLE:
            break
        try:
            deeper = solve(1.35 * depth)
        except UnsoundError:  # too large: this depth has to do, or is refused
            break
        settled = abs(deeper.lost - result.lost) <= SETTLED * result.lost
        if settled:
            break
        # What the grid cuts off falls exponentially with its depth, what escapes settles.
        slow = slow + 1 if 0.5 < deeper.lost / result.lost < 0.95 else 0
        result, depth = deeper, 1.35 * depth
        if slow == 4 and result.lost > 1e-6:
            raise UnsoundError(
                f"{WHO}: {result.lost:.1e} of the replicas leave each step, however wide the domain"
                ": the step is at the edge of divergence and no stationary law is found. Reduce "
                "the learning rate (or dt), or simulate with on_divergence='absorb'."
            )
    if result.lost > SHORT_LIVED:
        refuse_short_lives(result)
    return depth


def best_margin(step: Step, solve: Callable[[Step], Any]) -> Any:
    """``solve(step)`` with the widest margin of the domain at which closer nodes agree.

    Beyond the domain the map may be so steep that no nodes resolve it, and an edge then traps mass
    that in truth escapes. Without a margin lifetimes come out somewhat short.
    """
    found = []
    for margin in (MARGIN, MARGIN / 2, 0.0):
        found.append(solve(replace(step, margin=margin)))
        if not found[-1].error > TRAPPED:
            break
    return min(found, key=lambda result: np.nan_to_num(result.error, nan=0.0))


def checked(result: Any) -> Any:
    """Refuse an inexact eigenpair or a lifetime too short to relax in; state the regime."""
    if not result.residual < 1e-9:
        raise UnsoundError(
            f"{WHO}: the eigenvector's residual is {result.residual:.1e}, not below 1e-9. "
            "Give a smaller spacing=, or simulate."
        )
    if result.error > 1e-3:
        raise UnsoundError(
            f"{WHO}: probabilities change by {result.error:.1e} with closer nodes: the "
            "gradient jumps, or changes within one step. Give a smaller spacing=, or simulate."
        )
    accuracy = f" (probabilities to about {result.error:.0e})" if result.error > 1e-9 else ""
    if np.isinf(result.lifetime):
        return replace(result, regime="exact for the discrete step, at any step size" + accuracy)
    refuse_short_lives(result)
    regime = (
        "exact for the discrete step while replicas survive: quasi-stationary, a replica escapes "
        f"to infinity after {result.lifetime:.3g} steps on average{accuracy}"
    )
    return replace(result, regime=regime)


def refuse_short_lives(result: Any) -> None:
    """Refuses a law that replicas leave for infinity before they have settled in it."""
    if result.lifetime < 100 * result.relaxation_steps:
        raise UnsoundError(
            f"{WHO}: replicas escape to infinity after {result.lifetime:.3g} steps on "
            f"average, but relaxing takes {result.relaxation_steps:.3g}: there is no stationary "
            "law. Reduce the learning rate (or dt), or the noise."
        )
