"""SGD in full: against its naive twin, against torch.optim.SGD, and what it refuses."""

import laws
import naive
import numpy as np
import pytest
from kit import replicas, statistical
from test_engine import (
    LEAST_SQUARES,
    PLANE,
    WELL,
    least_squares_gradient,
    plane_gradient,
    same_bits,
    well_gradient,
)

import langevin as lv
from langevin.errors import ParameterError, UnsoundError
from langevin.preparation import warmest
from langevin.schedules import Cosine, Cyclic, Exponential, Steps, Table, Triangular, Warmup
from langevin.stability import check_stability

STEPS, SEED, N = 42, 11, 70
SCHEDULES = {
    "steps": Steps(0.05, (10, 25), 0.5),
    "cosine": Cosine(0.05, 40, 0.1),
    "exponential": Exponential(0.05, 15.0),
    "triangular": Triangular(0.05, 12, 0.2),
    "cyclic": Cyclic(0.05, (1.0, 0.3, 0.6), 5),
    "warm-up": Warmup(Cosine(0.05, 40), 7),
    "warm-up of a number": Warmup(0.05, 7),
    "table": Table(0.05, np.linspace(1, 0.1, STEPS)),
}


def simulate(surface, dynamics, **options):
    options = {"n_replicas": N, "n_steps": STEPS, "seed": SEED, "progress": False, **options}
    return lv.simulate(surface, dynamics, **options)


def as_function(value):
    """A schedule as the naive twin takes it."""
    return (lambda t: value.at(t)) if isinstance(value, lv.schedules.Schedule) else value


def close(found, expected):
    positions, buffers = expected
    assert np.allclose(found.positions, positions[:, -1], rtol=1e-9, atol=1e-12)
    if found.velocities is not None:
        assert np.allclose(found.velocities, buffers, rtol=1e-9, atol=1e-12)


# --- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("surface, gradient", [(WELL, well_gradient), (PLANE, plane_gradient)])
def test_momentum_and_weight_decay_equal_the_naive_twin(surface, gradient, nesterov):
    decays = np.linspace(0.0, 0.5, N)
    options = dict(momentum=0.8, weight_decay=decays, nesterov=nesterov)
    found = simulate(surface, lv.SGD(0.03, 2.0, **options))
    starts = np.array([surface.minima()[r % 2].position for r in range(N)])
    common = dict(learning_rate=0.03, batch_size=2.0, sigma=surface.noise.sigma)
    close(found, naive.sgd(gradient, starts, STEPS, SEED, **common, **options))
    wrong = options | dict(nesterov=not nesterov)  # the twin can fail
    other = naive.sgd(gradient, starts, STEPS, SEED, **common, **wrong)[0]
    assert not np.allclose(found.positions, other[:, -1], atol=1e-3)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_schedules_equal_the_naive_twin(name, momentum):
    """The same kernel for every schedule: factors are arguments."""
    eta, size = SCHEDULES[name], Triangular(4.0, 9, 0.25)
    found = simulate(WELL, lv.SGD(eta, size, momentum=momentum))
    starts = np.array([WELL.minima()[r % 2].position for r in range(N)])
    common = dict(learning_rate=as_function(eta), batch_size=as_function(size), momentum=momentum)
    close(found, naive.sgd(well_gradient, starts, STEPS, SEED, **common))


def test_schedules_of_one_value_per_replica():
    rates = np.linspace(0.01, 0.05, N)
    whole = simulate(PLANE, lv.SGD(Steps(rates, (9,), 0.3), 2.0))
    for r in (0, 33, N - 1):
        alone = lv.SGD(Steps(rates[r], (9,), 0.3), 2.0)
        start = PLANE.minima()[r % 2].position
        one = simulate(PLANE, alone, n_replicas=1, first_replica=r, start=start)
        assert same_bits(one.positions, whole.positions[r : r + 1])


@pytest.mark.parametrize(
    "noise",
    [
        lv.Isotropic(1.0),
        lv.AlphaStable(1.5, 0.3),  # quietened by S**(-1/3)
        lv.StateDependent("1 + x**2", convention="stratonovich"),  # a drift of eta/(2 S)
    ],
    ids=lambda noise: type(noise).__name__,
)
def test_a_constant_schedule_is_no_schedule(noise):
    """Factors that never change: of the rate, the noise, and the drift that noise induces."""
    surface = WELL.replace(noise=noise)
    flat = simulate(surface, lv.SGD(Table(0.1, np.full(STEPS, 0.5)), Table(1.0, np.full(STEPS, 4))))
    plain = simulate(surface, lv.SGD(0.05, 4.0)).positions
    assert np.allclose(flat.positions, plain, rtol=1e-11, atol=1e-13)
    assert not np.allclose(plain, simulate(surface, lv.SGD(0.05, 2.0)).positions)


def test_windows_do_not_matter_under_a_schedule(monkeypatch):
    import importlib

    module = importlib.import_module("langevin.simulate")
    cases = [
        (WELL, lv.SGD(Cosine(0.05, 250), Triangular(4.0, 50), momentum=0.5)),
        (LEAST_SQUARES, lv.SGD(0.05, Triangular(9.0, 50), sampling="epoch_shuffle")),
    ]
    for surface, dynamics in cases:
        whole = simulate(surface, dynamics, n_steps=250)
        with monkeypatch.context() as patch:
            patch.setattr(module, "WINDOW", 1)
            short = simulate(surface, dynamics, n_steps=250)
        assert same_bits(whole.positions, short.positions)


# --- data -----------------------------------------------------------------------------------------

SIZES = np.random.default_rng(3).integers(1, 24, N)


@pytest.mark.parametrize(
    "options",
    [
        dict(batch_size=5, sampling="epoch_shuffle"),
        dict(batch_size=SIZES, sampling="epoch_shuffle"),
        dict(batch_size=SIZES, sampling="epoch_shuffle", drop_last=False),
        dict(batch_size=5, momentum=0.6, nesterov=True, weight_decay=0.2),
        dict(batch_size=Triangular(9.0, 8), sampling="with_replacement"),
        dict(batch_size=Triangular(9.0, 8), sampling="without_replacement"),
        dict(batch_size=Triangular(9.0, 8), sampling="epoch_shuffle", drop_last=False),
        dict(
            batch_size=Triangular(9.0, 8), sampling="epoch_shuffle", learning_rate=Cosine(0.1, 40)
        ),
    ],
)
def test_mini_batches_equal_the_naive_twin(options):
    options = {"learning_rate": 0.1, **options}
    found = simulate(LEAST_SQUARES, lv.SGD(**options))
    starts = np.tile(LEAST_SQUARES.minima()[0].position, (N, 1))
    mine = {k: as_function(v) for k, v in options.items()} | dict(l2=LEAST_SQUARES.l2)
    close(found, naive.minibatch_sgd(least_squares_gradient, 23, starts, STEPS, SEED, **mine))


def test_the_places_of_an_epoch():
    """Sizes 5 of 23 examples: four batches an epoch, or five, the last of three."""
    assert naive.epochs([5] * 5, 23) == [(0, 0, 5), (0, 5, 5), (0, 10, 5), (0, 15, 5), (1, 0, 5)]
    assert naive.epochs([5] * 6, 23, drop_last=False)[4:] == [(0, 20, 3), (1, 0, 5)]


# --- torch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, rates",
    [
        (dict(), None),
        (dict(momentum=0.9), None),
        (dict(momentum=0.9, nesterov=True), None),
        (dict(momentum=0.9, weight_decay=0.3), None),
        (dict(momentum=0.9, nesterov=True, weight_decay=0.3), Cosine(0.1, 60, 0.2)),
        (dict(momentum=0.5), Triangular(0.1, 14, 0.3)),
    ],
)
def test_torch_takes_the_same_steps(options, rates):
    """torch.optim.SGD on the same quadratic, step for step, noise switched off."""
    torch = pytest.importorskip("torch")
    hessian = np.array([[2.0, 0.6], [0.6, 0.5]])
    surface = lv.Surface("x**2 + 0.6*x*y + y**2/4", noise=lv.Isotropic(0.0))
    point = torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True)
    matrix = torch.tensor(hessian)
    optimiser = torch.optim.SGD([point], lr=0.1, **options)
    if rates is not None:
        torch_rates = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda t: rates.factors(np.array([t]))[0]
        )
    for step in range(1, 61):
        optimiser.zero_grad()
        (point @ matrix @ point / 2).backward()
        optimiser.step()
        if rates is not None:
            torch_rates.step()
        if step in (1, 2, 7, 60):
            dynamics = lv.SGD(0.1 if rates is None else rates, 1.0, **options)
            ours = simulate(surface, dynamics, n_steps=step, n_replicas=1, start=[1.5, -2.0])
            assert np.allclose(ours.positions[0], point.detach().numpy(), rtol=1e-12, atol=1e-14)


# --- schedules as such ----------------------------------------------------------------------------


def test_schedules_have_their_shapes():
    assert np.allclose(Steps(2.0, (3, 5), 0.5).values(7), [2, 2, 2, 1, 1, 0.5, 0.5])
    cosine = Cosine(1.0, 10, 0.2).values(12)
    assert cosine[0] == 1 and np.isclose(cosine[5], 0.6) and np.allclose(cosine[10:], 0.2)
    assert np.allclose(Triangular(1.0, 4, 0.2).values(5), [0.2, 0.6, 1.0, 0.6, 0.2])
    assert np.allclose(Cyclic(3.0, (1, 2), 2).values(5), [3, 3, 6, 6, 3])
    assert np.allclose(Warmup(2.0, 4).values(6), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    assert np.allclose(Exponential(1.0, 2.0).values(3), np.exp([0, -0.5, -1]))
    assert np.allclose(Exponential(2.0, 2.0, 0.5).values(4), [2, 2 * np.exp(-0.5), 1, 1])
    assert np.allclose(Warmup(Steps(2.0, (3,), 0.5), 2).values(4), [1, 2, 2, 1])


@statistical(comparisons=2, seed=SEED)
def test_exchanged_schedules_reach_the_same_law(seed, check):
    """eta(t) at constant S, or constant eta with S(t): the same eta/S at the same time."""
    rates = Steps(0.02, (150,), 0.25)
    to, sizes = lv.schedules.exchange(rates, 1.0, to=0.02, n_steps=750)
    n_long, n_short = 750, len(sizes.factors_by_step)
    assert to == 0.02 and n_short == 300  # 150 steps, then 600 at a quarter of the rate
    assert np.isclose(sizes.values(n_short).sum(), n_long)  # the same examples
    n = replicas(100_000)
    surface = lv.Surface("x**2/2", noise=lv.Isotropic(1.0))
    options = dict(n_replicas=n, start=[0.3], seed=seed)
    slow = simulate(surface, lv.SGD(rates, 1.0), n_steps=n_long, **options).positions
    fast = simulate(surface, lv.SGD(to, sizes), n_steps=n_short, **options).positions
    exact = [
        laws.sgd_variance(0.005, 1.0, 1.0) * (1 - 0.995 ** (2 * 600))
        + laws.sgd_variance(0.02, 1.0, 1.0) * (1 - 0.98**300) * 0.995 ** (2 * 600),
        laws.sgd_variance(0.02, 0.25, 1.0) * (1 - 0.98**300)
        + laws.sgd_variance(0.02, 1.0, 1.0) * (1 - 0.98**300) * 0.98**300,
    ]
    for found, variance in zip((slow, fast), exact, strict=True):
        check.z((found.var() / variance - 1) * np.sqrt(n / 2), "variance")
    assert abs(exact[0] / exact[1] - 1) < 0.02  # alike to the order of the step
    constant = simulate(surface, lv.SGD(0.02, 1.0), n_steps=n_short, **options).positions
    check.twin((constant.var() / exact[1] - 1) * np.sqrt(n / 2), "no schedule")


def test_schedules_are_exchanged_by_the_examples_seen():
    """Milestones at 150 and 300 steps of one example: 150, then 38 and 28 larger steps."""
    to, sizes = lv.schedules.exchange(Steps(0.02, (150, 300), 0.25), 1.0, to=0.02, n_steps=750)
    expected = np.repeat([1.0, 4.0, 16.0], [150, 38, 28])
    assert to == 0.02 and np.allclose(sizes.values(len(sizes.factors_by_step)), expected)


def test_a_schedule_has_no_single_law():
    dynamics = lv.SGD(Cosine(0.1, 100), 2.0)
    for ask in (
        lambda: dynamics.temperature(WELL),
        lambda: dynamics.step_size,
        lambda: dynamics.noise_scale(100),
        lambda: lv.predict.chain(WELL, dynamics),
        lambda: lv.predict.boltzmann_gibbs(WELL, dynamics),
    ):
        with pytest.raises(UnsoundError, match=r"schedule.*at\(step\)"):
            ask()
    assert np.isclose(dynamics.at(0).temperature(WELL), lv.SGD(0.1, 2.0).temperature(WELL))


def test_ranges_are_chosen_for_the_noisiest_step():
    """Of a schedule the largest eta/S; without one temperature, of the largest variance."""
    matrix = np.array([[1.0, 0.8], [0.8, 2.0]])
    crossed = PLANE.replace(noise=lv.Anisotropic(matrix))
    top = np.linalg.eigvalsh(matrix)[1]
    assert WELL.noise == lv.Isotropic(1.0)
    for surface, dynamics, expected in (
        (WELL, lv.SGD(Warmup(0.1, 100), 2.0), 0.1 / 2 / 2),
        (WELL, lv.SGD(Steps(0.1, (10,), 0.5), Steps(4.0, (20,), 0.25)), 0.05 / 1 / 2),
        (WELL, lv.SGD(np.array([0.1, 0.2]), 2.0), 0.2 / 2 / 2),
        (crossed, lv.SGD(0.1, 2.0, momentum=0.75), 0.1 / 2 / 0.25 * top / 2),
        (crossed, lv.SGD(Warmup(0.1, 100), np.array([4.0, 2.0])), 0.1 / 2 * top / 2),
        (WELL.replace(noise=lv.AlphaStable(1.5)), lv.SGD(0.1), None),
    ):
        found = warmest(surface, dynamics, 200)
        assert found is None if expected is None else np.isclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Steps(-1.0), "value"),
        (lambda: Steps(0.1, (5, 3)), "increasing"),
        (lambda: Steps(0.1, (5,), 0.0), "factor"),
        (lambda: Cosine(0.1, 0), "n_steps"),
        (lambda: Cosine(np.nan, 10), "value"),
        (lambda: Cosine(0.1, 10, -1.0), "final"),
        (lambda: Triangular(0.1, 1), "period"),
        (lambda: Triangular(0.1, 10, 2.0), "low"),
        (lambda: Cyclic(0.1, (), 3), "multipliers"),
        (lambda: Cyclic(0.1, (1.0, -1.0), 3), "multipliers"),
        (lambda: Exponential(0.1, 0.0), "steps"),
        (lambda: Table(0.1, [1.0, np.nan]), "factors_by_step"),
        (lambda: Table(0.1, np.ones((2, 2))), "factors_by_step"),
        (lambda: Steps(Cosine(0.1, 10)), "Warmup"),
        (lambda: Warmup("fast", 3), "value"),
        (lambda: lv.SGD(0.1, nesterov=True), "nesterov"),
        (lambda: lv.SGD(0.1, nesterov=1), "nesterov"),
        (lambda: lv.SGD(0.1, weight_decay=-1.0), "weight_decay"),
        (lambda: lv.SGD(0.1, drop_last="no"), "drop_last"),
        (lambda: lv.schedules.exchange(0.1, 1.0, to=0.1, n_steps=5), "exchange"),
    ],
)
def test_bad_schedules_are_named(make, says):
    with pytest.raises(ParameterError, match=says):
        make()


def test_schedules_that_do_not_fit_the_run():
    with pytest.raises(ParameterError, match="70000 steps"):
        simulate(WELL, lv.SGD(Table(0.05, np.ones(70_000)), 2.0), n_steps=70_001)
    with pytest.raises(ParameterError, match="23 examples"):
        simulate(LEAST_SQUARES, lv.SGD(0.05, Steps(40.0), sampling="epoch_shuffle"))
    with pytest.raises(ParameterError, match="one size for all"):
        simulate(LEAST_SQUARES, lv.SGD(0.05, Steps(np.full(N, 4.0))))
    with pytest.raises(ParameterError, match="epoch_shuffle"):
        simulate(WELL, lv.SGD(0.05, sampling="epoch_shuffle"))
    with pytest.raises(UnsoundError, match="unstable at every minimum"):
        simulate(WELL, lv.SGD(Cosine(10.0, 20, 0.5), 1.0))


def test_an_unstable_phase_may_be_survived():
    """Refused is only a schedule that is unstable at every step of the run."""
    for rates in (Steps(10.0, (10,), 1e-3), Warmup(10.0, 1000)):
        check_stability(WELL, lv.SGD(rates, 2.0), 20)
    with pytest.raises(UnsoundError, match="unstable at every minimum"):
        check_stability(WELL, lv.SGD(Steps(10.0, (10,), 1e-3), 2.0), 10)
