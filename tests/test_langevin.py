"""Overdamped integrators and underdamped splittings: exact laws, twins, and refusals."""

import naive
import numpy as np
import pytest
from kit import replicas, statistical

import langevin as lv
from langevin.errors import LangevinError, ParameterError, UnsoundError

N = 200_000


def ended(surface, dynamics, n_steps=403, n_replicas=N, seed=5, **options):
    return lv.simulate(
        surface,
        dynamics,
        n_replicas=n_replicas,
        n_steps=n_steps,
        seed=seed,
        progress=False,
        **options,
    )


def score(samples, variance):
    """z of a Gaussian sample's variance about 0: the standard error is var sqrt(2/n)."""
    samples = samples.astype(float)
    return ((samples**2).mean() / variance - 1) / np.sqrt(2 / len(samples))


# --- a quartic well -------------------------------------------------------------------------------


@statistical(comparisons=16, seed=5, missed_bug=1e-6)
def test_baoab_agrees_with_boltzmann_gibbs_where_euler_differs(seed, check):
    """A quartic well at a large step: the error of BAOAB is of higher order than that of Euler."""
    surface = lv.surfaces.double_well()
    options = dict(n_replicas=replicas(40_000), n_steps=4000, burn_in=1500, seed=seed)
    options["observe"] = lv.Occupation(every=10)
    law = lv.predict.boltzmann_gibbs(surface, temperature=0.2)
    baoab = ended(surface, lv.Underdamped(0.2, 1.0, 0.25), **options)
    euler = ended(surface, lv.Overdamped(0.2, 0.25), **options)
    check.verdict(lv.compare(baoab, law, resolution=0.02))
    check.twin(lv.compare(euler, law, resolution=0.02).z, "Euler's step")


# --- naive twins ----------------------------------------------------------------------------------


def twin(dynamics, x, step_count, replica, noises):
    """The same path with Python floats, from the same random words."""
    v, before = 0.0, 0.0
    slope = lambda y: y**3 - 0.4 * y**2 - y  # noqa: E731
    for s in range(step_count):
        z = [naive.noise(5, replica, s, component, "float64") for component in range(noises)]
        if isinstance(dynamics, lv.Underdamped):
            share = {c: dynamics.dt / dynamics.splitting.count(c) for c in "ABO"}
            decay = np.exp(-dynamics.friction * share["O"])
            spread = np.sqrt(dynamics.temperature * (1 - decay**2))
            for letter in dynamics.splitting:
                if letter == "B":
                    v -= share["B"] * slope(x)
                elif letter == "A":
                    x += share["A"] * v
                else:
                    v = decay * v + spread * z.pop(0)
            continue
        amplitude = np.sqrt(2 * dynamics.temperature * dynamics.dt)
        if dynamics.integrator == "heun":
            y = x - dynamics.dt * slope(x) + amplitude * z[0]
            x = x - dynamics.dt * (slope(x) + slope(y)) / 2 + amplitude * z[0]
        else:
            x = x - dynamics.dt * slope(x) + amplitude * (before + z[0]) / 2
            before = z[0]
    return x, v


@pytest.mark.parametrize(
    "dynamics, noises",
    [
        (lv.Overdamped(0.2, 0.1, integrator="heun"), 1),
        (lv.Overdamped(0.2, 0.1, integrator="leimkuhler_matthews"), 1),
        (lv.Underdamped(0.2, 0.7, 0.2), 1),
        (lv.Underdamped(0.2, 0.7, 0.2, splitting="OBABO"), 2),
        (lv.Underdamped(0.2, 0.7, 0.2, splitting="BAOA"), 1),
    ],
    ids=["heun", "leimkuhler_matthews", "BAOAB", "OBABO", "BAOA"],
)
def test_a_run_equals_its_twin(dynamics, noises):
    surface = lv.surfaces.double_well(0.4)
    result = ended(surface, dynamics, n_steps=22, n_replicas=70, start=[0.5])
    for replica in (0, 1, 63, 69):
        x, v = twin(dynamics, 0.5, 22, replica, noises)
        assert result.positions[replica, 0] == pytest.approx(x, abs=1e-11)
        if result.velocities is not None:
            assert result.velocities[replica, 0] == pytest.approx(v, abs=1e-11)
    alone = ended(surface, dynamics, n_steps=22, n_replicas=1, start=[0.5], first_replica=69)
    assert (alone.positions[0] == result.positions[69]).all()


def test_the_split_form_equals_the_fused_one(monkeypatch):
    """Surfaces of many operations take their steps in separate loops: the same numbers."""
    from langevin.engines import cpu

    dynamics = lv.Underdamped(0.2, 0.7, 0.2, splitting="OBABO")
    surface = lv.surfaces.double_well(0.4)
    fused = ended(surface, dynamics, n_steps=22, n_replicas=70)
    monkeypatch.setattr(cpu, "FUSED_OPERATIONS", 0)
    split = ended(surface, dynamics, n_steps=22, n_replicas=70)
    assert np.allclose(fused.positions, split.positions, rtol=1e-12, atol=1e-13)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("splitting", ["", "BA", "BOB", "baoab", "BAXAB", None, 3, "BAO" * 5])
def test_splittings_refused(splitting):
    with pytest.raises(ParameterError, match="splitting"):
        lv.Underdamped(0.1, 1.0, 0.1, splitting=splitting)


def test_other_refusals():
    for bad in ((-0.1, 1, 0.1), (0.1, -1, 0.1), (0.1, 1, 0.0), ("a", 1, 0.1), (0.1, [[1]], 0.1)):
        with pytest.raises(ParameterError):
            lv.Underdamped(*bad)
    well = lv.surfaces.quadratic([[4.0]])
    with pytest.raises(UnsoundError, match="dt < 1"):
        ended(well, lv.Underdamped(0.1, 1.0, 1.0), n_steps=4)
    ended(well, lv.Underdamped(0.1, 1.0, 0.99), n_steps=4, n_replicas=2)
    heavy = lv.Underdamped(0.1, 1.0, 1.0, masses=[0.5, 2.0])  # what must diverge, whatever H
    assert heavy.curvature_limit == 8.0
    X, y = lv.surfaces.diabetes()
    data = lv.surfaces.linear_regression(X, y)
    for dynamics in (lv.Underdamped(0.1, 1.0, 0.1), lv.Overdamped(0.1, 0.1, integrator="heun")):
        with pytest.raises(LangevinError, match="on data"):
            ended(data, dynamics, n_steps=4, n_replicas=2)
        with pytest.raises(UnsoundError, match="boltzmann_gibbs"):
            lv.predict.chain(well, dynamics)
        assert lv.predict.quadratic(well, dynamics).gaussian
    assert lv.predict.boltzmann_gibbs(well, lv.Underdamped(0.1, 1.0, 0.1)).temperature == 0.1


@statistical(comparisons=2, seed=5)
def test_leimkuhler_matthews_on_data(seed, check):
    """With the full gradient of a least squares it samples exp(-L/T) exactly."""
    X, y = lv.surfaces.diabetes()
    surface = lv.surfaces.linear_regression(X[:20, :2], y[:20])
    dynamics = lv.Overdamped(0.1, 0.2, integrator="leimkuhler_matthews")
    result = ended(surface, dynamics, n_replicas=replicas(40_000), n_steps=200, seed=seed)
    (minimum,) = surface.minima()
    for k in range(2):
        variance = 0.1 * np.linalg.inv(minimum.hessian)[k, k]
        away = result.positions[:, k] - minimum.position[k]
        check.z(score(away, variance), "variance")
        check.twin(score(away, variance * 1.1), "a tenth too large")
