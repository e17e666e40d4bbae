"""Orders of the integrators, fitted to their measured errors on quartic wells.

The error of a stationary average against quadrature is measured at several steps dt, with the
standard error of 100,000 independent replicas; ``log|error| = a + p log dt + b dt**q`` is fitted
by weighted least squares, b dt**q being the next term of the expansion of the error (q = 1; a
palindromic splitting has even powers alone, q = 2). The order p comes with its standard error.
"""

import numpy as np
import pytest
from kit import replicas, statistical
from scipy.integrate import quad

import langevin as lv

N = replicas(100_000, fewest=12_800)


def average(f, energy, temperature):
    """<f> under exp(-U/T)."""

    def weigh(g):
        return quad(lambda x: g(x) * np.exp(-energy(x) / temperature), -9, 9, epsabs=1e-13)[0]

    return weigh(f) / weigh(lambda x: 1.0)


def fitted(dt, error, stderr, q):
    """The order, its standard error, and chi-square per degree of freedom of the fit."""
    design = np.stack([np.ones_like(dt), np.log(dt), dt**q], axis=1)
    weight = np.abs(error) / stderr  # the standard error of log|error|, inverted
    covariance = np.linalg.inv((design.T * weight**2) @ design)
    target = np.log(np.abs(error))
    answer = covariance @ ((design.T * weight**2) @ target)
    misfit = ((target - design @ answer) * weight) ** 2
    return answer[1], np.sqrt(covariance[1, 1]), misfit.sum() / (len(dt) - 3)


def second_moment(dynamics, burn_in, time, seed, temperature=0.25):
    """Error of <x**2> in U = x**4/4 + x**2/2 and its standard error."""
    well = lv.Surface("x**4/4 + x**2/2")
    watch = lv.Moments(every=max(1, int(0.3 / dynamics.dt)))
    moments = run(well, dynamics, burn_in, time, watch, seed).moments()
    exact = average(lambda x: x**2, lambda x: x**4 / 4 + x**2 / 2, temperature)
    return moments.covariance[0, 0] - exact, moments.covariance_stderr[0, 0]


def middle(dynamics, burn_in, time, seed):
    """Error of P(|x| < 1) in U = x**4/4 - x**2/2, where BAOAB's is largest against its noise."""
    well = lv.Surface("x**4/4 - x**2/2")
    dt, temperature = dynamics.dt, dynamics.temperature
    watch = lv.Histogram(3, range=(-3, 3), every=max(1, int(0.5 / dt)))
    density = run(well, dynamics, burn_in, time, watch, seed).density()
    exact = average(lambda x: abs(x) < 1, lambda x: x**4 / 4 - x**2 / 2, temperature)
    return density.probability[1] - exact, density.probability_stderr[1]


def run(surface, dynamics, burn_in, time, watch, seed):
    burn_in = int(burn_in / dynamics.dt)
    n_steps = burn_in + int(time / dynamics.dt)
    options = dict(start=[0.0], seed=seed, dtype="float32", progress=False, observe=watch)
    return lv.simulate(surface, dynamics, n_replicas=N, n_steps=n_steps, burn_in=burn_in, **options)


def euler(dt):
    return lv.Overdamped(0.25, dt)


def heun(dt):
    return lv.Overdamped(0.25, dt, integrator="heun")


def baoab(dt):
    return lv.Underdamped(1.0, 1.0, dt)


@pytest.mark.parametrize(
    "dynamics, measure, steps, burn_in, time, q, order",
    [
        (euler, second_moment, (0.03, 0.06, 0.1, 0.15), 10, 100, 1, 1),
        (heun, second_moment, (0.08, 0.12, 0.16, 0.2, 0.26), 10, 300, 1, 2),
        (baoab, middle, (0.15, 0.22, 0.3, 0.4), 25, 1500, 2, 2),
    ],
    ids=["euler_maruyama", "heun", "BAOAB"],
)
@statistical(comparisons=30, dof=63, seed=3, missed_bug=0.15)
def test_measured_order(seed, check, dynamics, measure, steps, burn_in, time, q, order):
    dt = np.array(steps)
    found = [measure(dynamics(s), burn_in, time, seed + k) for k, s in enumerate(steps)]
    error, stderr = np.array(found).T
    if check.twins:
        assert (np.abs(error) > 8 * stderr).all(), "every point carries information"
    power, uncertainty, misfit = fitted(dt, error, stderr, q)
    print(f"order {power:.3f} +- {uncertainty:.3f}, chi-square {misfit:.2f} a degree of freedom")
    if check.twins:
        assert uncertainty <= 0.15 / (N / 100_000) ** 0.5
    check.holds(misfit < 8, 0.0047, "chi-square of one degree of freedom")
    check.z((power - order) / uncertainty, "order", dof=63)
    wrong = 3 - order  # negative twin: an Euler of order 2, a Heun or BAOAB of order 1
    check.twin((power - wrong) / uncertainty, "the other order")
    # And of the whole procedure: errors of the other order are not taken for this one.
    planted = error * dt ** (wrong - order)
    planted_power, *_ = fitted(dt, planted, stderr * dt ** (wrong - order), q)
    check.twin((planted_power - order) / uncertainty, "planted errors")


@statistical(comparisons=1, seed=3)
def test_a_temperature_off_by_three_per_cent_would_be_seen(seed, check):
    """Errors that do not vanish with dt have no order 2."""
    dt = np.array([0.08, 0.12, 0.16, 0.2])
    hot = [lv.Overdamped(0.25 * 0.97, step, integrator="heun") for step in dt]
    found = [second_moment(dynamics, 10, 60, seed + k) for k, dynamics in enumerate(hot)]
    error, stderr = np.array(found).T
    power, uncertainty, _ = fitted(dt, error, stderr, 1)
    check.twin((power - 2) / uncertainty, "hot")
