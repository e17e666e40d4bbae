"""predict.finite_step against the exact law of the discrete step, at several small steps."""

import numpy as np
import pytest
import scipy.integrate

import langevin as lv
from langevin import predict
from langevin.errors import LangevinError, ParameterError, UnsoundError

WELL = lv.surfaces.double_well(0.4)
SINGLE = lv.Surface("x**4/4 + x**3/3 + x**2/2", noise=lv.Isotropic(1.0))
PLANE = lv.Surface("x**4/4 - 0.4*x**3/3 - x**2/2 + 3*y**2/2 + x*y/2", noise=lv.Isotropic(1.0))
EDGES = np.linspace(-3.5, 3.5, 1401)


def distance(law, other, edges=EDGES):
    """Total variation between two laws over bins."""
    return np.abs(law.bin_probabilities(edges) - other.bin_probabilities(edges)).sum() / 2


def squared_slope(points):
    return (WELL.gradient(points) ** 2).sum(-1)


def order(steps, errors):
    """The fitted power of the step and its standard error."""
    design = np.stack([np.log(steps), np.ones(len(steps))], axis=1)
    coefficients, residual, *_ = np.linalg.lstsq(design, np.log(errors), rcond=None)
    variance = residual[0] / (len(steps) - 2) * np.linalg.inv(design.T @ design)
    return coefficients[0], np.sqrt(variance[0, 0])


def test_the_error_is_second_order_in_the_step():
    steps = np.array([0.005, 0.01, 0.02, 0.04])
    errors = {"finite step": [], "gibbs": [], "wrong sign": [], "no laplacian": []}
    for eta in steps:
        exact = predict.chain(WELL, lv.Overdamped(0.12, eta)).bin_probabilities(EDGES)
        law = predict.finite_step(WELL, lv.Overdamped(0.12, eta))
        gibbs, first = (p.bin_probabilities(EDGES) for p in (law.gibbs, law))
        square = law.gibbs.bin_probabilities(EDGES, weight=squared_slope) / 0.48
        half = square - gibbs * law.gibbs.average(squared_slope) / 0.48
        wrong = {"gibbs": gibbs, "finite step": first, "wrong sign": 2 * gibbs - first}
        wrong["no laplacian"] = gibbs + eta * half
        for name, p in wrong.items():
            errors[name].append(np.abs(p - exact).sum() / 2)
    power, stderr = order(steps, errors["finite step"])
    assert abs(power - 2) < 0.05 and stderr < 0.02
    for name in ("gibbs", "wrong sign", "no laplacian"):
        assert abs(order(steps, errors[name])[0] - 1) < 0.1, name  # one order worse
    # As measured once for a double well of curvature 4: Gibbs .0129, corrected .0005 at .02.
    assert errors["finite step"][2] < errors["gibbs"][2] / 40


def test_the_known_figures_of_total_variation():
    """Gibbs .0064/.0129/.0266 and corrected .0001/.0005/.0020 at steps .01/.02/.04."""
    surface = lv.Surface("x**4 - x**2")
    for eta, gibbs, corrected in (
        (0.01, 0.0064, 0.0001),
        (0.02, 0.0129, 0.0005),
        (0.04, 0.0266, 0.0020),
    ):
        law = predict.finite_step(surface, temperature=0.18, step=eta)
        exact = predict.chain(surface, lv.Overdamped(0.18, eta))
        assert distance(law.gibbs, exact) == pytest.approx(gibbs, abs=1.1e-4)
        assert distance(law, exact) == pytest.approx(corrected, abs=1.1e-4)
        assert law.size == pytest.approx(gibbs, rel=0.06)


@pytest.mark.parametrize("temperature", [0.05, 0.12])
def test_the_slope_of_the_ratio_is_the_chains(temperature):
    law = predict.finite_step(WELL, temperature=temperature, step=0.01)
    steps = np.array([0.01, 0.005, 0.0025])
    dynamics = [lv.Overdamped(temperature, h) for h in steps]
    logs = [np.log(predict.chain(WELL, d).ratio(0, 1) / law.gibbs.ratio(0, 1)) for d in dynamics]
    once = 2 * (logs / steps)[1:] - (logs / steps)[:-1]
    twice = (4 * once[1] - once[0]) / 3
    assert law.slope(0, 1) == pytest.approx(twice, rel=2e-5)
    assert law.slope(0, 1) == -law.slope(1, 0)
    # The wrong laws: the limit T -> 0 at a temperature that is not low, and the other sign.
    assert abs(law.low_temperature_slope(0, 1) / twice - 1) > 0.05
    assert abs(-law.slope(0, 1) / twice - 1) > 1
    # The average Laplacian of a basin is the linear form integrated over it, exactly.
    bend = law.gibbs.basin_averages(law._bend)
    assert bend[0] - bend[1] == pytest.approx(law.slope(0, 1), rel=1e-12)
    factor = law.occupation() / law.gibbs.occupation()
    assert law.ratio(0, 1) / law.gibbs.ratio(0, 1) == pytest.approx(factor[0] / factor[1])


def test_the_limit_of_low_temperature():
    gaps = []
    for temperature in (0.01, 0.005, 0.0025):
        law = predict.finite_step(WELL, temperature=temperature, step=0.02)
        gaps.append(law.slope(0, 1) / law.low_temperature_slope(0, 1) - 1)
        ratio = predict.laplace(WELL, temperature=temperature).ratio(0, 1)
        a, b = (m.hessian[0, 0] for m in WELL.minima())
        assert law.low_temperature_ratio(0, 1) == pytest.approx(ratio * np.exp(0.005 * (b - a)))
    assert np.array(gaps[:-1]) / gaps[1:] == pytest.approx(2, rel=0.08)  # linear in T
    assert abs(gaps[-1]) < 0.01
    assert law.low_temperature_slope(0, 1) > 0  # the left well is the flatter one


def heavy_ball(surface, temperature, eta, m, low, high):
    """The stationary law of heavy ball on (x, x - x_previous), both on one grid; nodes, density."""
    spread = np.sqrt(2 * temperature * eta * (1 - m))
    x = np.linspace(low, high, int((high - low) / (0.9 * spread)) + 1)
    h = x[1] - x[0]
    reach = int(8 * np.sqrt(2 * temperature * eta / (1 + m)) / h) + 1
    k = np.arange(-reach, reach + 1)
    slope = surface.gradient(x[:, None])[:, :, None]
    kernel = np.exp(-((k[:, None] * h - m * k * h + eta * slope) ** 2) / (2 * spread**2))
    kernel *= h / (np.sqrt(2 * np.pi) * spread)  # [x, new k, k]
    p = np.exp(-surface.energy(x[:, None]) / temperature)[:, None] * np.exp(
        -((k * h) ** 2) * (1 + m) / (4 * temperature * eta)
    )
    for _ in range(20_000):
        moved = (kernel @ p[:, :, None])[:, :, 0]
        new = np.zeros_like(p)
        for column, shift in enumerate(k):
            target = slice(max(shift, 0), len(x) + min(shift, 0))
            new[target, column] = moved[max(-shift, 0) : len(x) - max(shift, 0), column]
        new /= new.sum()
        change, p = np.abs(new - p).sum(), new
        if change < 1e-11:
            return x, p.sum(1) / h
    raise AssertionError("the heavy ball chain did not settle")


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.8])
def test_momentum_takes_eta_over_one_plus_m(momentum):
    """Second-order error against the chain of heavy ball; eta itself, or eta/(1-m), is first."""
    temperature = 0.25
    steps = np.array([0.06, 0.03, 0.015]) * (1 - momentum) ** 2 * (1 if momentum else 0.5)
    right, wrong = [], []
    for eta in steps:
        batch = eta / (2 * temperature * (1 - momentum))
        law = predict.finite_step(SINGLE, lv.SGD(eta, batch, momentum=momentum))
        assert law.temperature == pytest.approx(temperature)
        x, p = heavy_ball(SINGLE, temperature, eta, momentum, -2.7, 2.3)
        gibbs, first = law.gibbs.density(x[:, None]), law.density(x[:, None])
        right.append(np.abs(p - first).sum() * (x[1] - x[0]) / 2)
        as_if = gibbs + (first - gibbs) * (1 + momentum) if momentum else 2 * gibbs - first
        wrong.append(np.abs(p - as_if).sum() * (x[1] - x[0]) / 2)
    power, stderr = order(steps, right)
    assert abs(power - 2) < 0.15 and stderr < 0.06
    assert order(steps, wrong)[0] < 1.25
    assert wrong[-1] > 10 * right[-1]


def test_a_quadratic_surface_of_any_dimension():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4))
    surface = lv.surfaces.quadratic(a @ a.T / 4 + np.eye(4))
    for momentum in (0.0, 0.6):
        steps, errors, zeroth = np.array([0.04, 0.02, 0.01]), [], []
        for eta in steps * (1 - momentum) ** 2:
            dynamics = lv.SGD(eta, 4.0, momentum=momentum)
            law, exact = (
                predict.finite_step(surface, dynamics),
                predict.quadratic(surface, dynamics),
            )
            scale = np.abs(exact.covariance[:4, :4]).max()
            errors.append(np.abs(law.moments()[1] - exact.covariance[:4, :4]).max() / scale)
            zeroth.append(np.abs(law.gibbs.moments()[1] - exact.covariance[:4, :4]).max() / scale)
        assert abs(order(steps, errors)[0] - 2) < 0.1
        assert abs(order(steps, zeroth)[0] - 1) < 0.1
    assert (
        law.occupation() == pytest.approx([1.0]) and law.ratio(0, 0) == 1 and law.slope(0, 0) == 0
    )


@pytest.mark.parametrize("dim", [1, 2])
def test_the_quadratic_closed_form_is_the_law_by_quadrature(dim):
    """The same surface with a term too small to matter is integrated instead of solved."""
    h = np.array([[2.0]]) if dim == 1 else np.array([[2.0, 0.7], [0.7, 1.0]])
    quadratic = lv.surfaces.quadratic(h)
    names = ("x", "y")[:dim]
    text = "x**2" if dim == 1 else "x**2 + 0.7*x*y + y**2/2"
    nearly = lv.Surface(text + " + 1e-13*x**4", variables=names)
    exact, other = (predict.finite_step(s, temperature=0.3, step=0.1) for s in (quadratic, nearly))
    points = np.random.default_rng(1).normal(size=(20, dim))
    assert exact.density(points) == pytest.approx(other.density(points), rel=1e-9)
    for a, b in zip(exact.moments(), other.moments(), strict=True):
        assert a == pytest.approx(b, abs=1e-9)
    edges = np.array([-np.inf, -0.7, -0.1, 0.4, 1.0])
    for axes in (0, dim - 1):
        expected = other.bin_probabilities(edges, axes=axes)
        assert exact.bin_probabilities(edges, axes=axes) == pytest.approx(expected, abs=1e-10)
    if dim == 1:
        assert exact.cdf(edges) == pytest.approx(other.cdf(edges), abs=1e-10)
        assert exact.size == pytest.approx(other.size, rel=1e-3)
    else:
        pair = (edges, np.array([-0.3, 0.2, np.inf]))
        expected = other.bin_probabilities(pair)
        assert exact.bin_probabilities(pair) == pytest.approx(expected, abs=1e-10)
        assert exact.size >= other.size * (1 - 1e-9)  # a bound above one dimension
        with pytest.raises(UnsoundError, match="one dimension"):
            exact.cdf(0.0)


def test_two_dimensions_against_a_fine_grid():
    law = predict.finite_step(PLANE, temperature=0.2, step=0.05)
    x, y = np.linspace(-4, 4, 801), np.linspace(-4, 4, 801)
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    p = np.exp(-PLANE.energy(points) / 0.2)
    p /= p.sum()
    bend = (PLANE.gradient(points) ** 2).sum(-1) / 0.8
    bend -= np.trace(PLANE.hessian(points), axis1=-2, axis2=-1) / 2
    q = p * (1 + 0.05 * (bend - (p * bend).sum()))  # the trapezoid rule is exact for this p
    mean, covariance = law.moments()
    assert mean == pytest.approx(np.einsum("ij,ijk->k", q, points), abs=1e-9)
    offset = points - mean
    assert covariance == pytest.approx(np.einsum("ij,ijk,ijl->kl", q, offset, offset), abs=1e-9)
    assert law.density(points[400, 400]) == pytest.approx(q[400, 400] / 1e-4, rel=1e-9)
    assert law.size == pytest.approx(np.abs(q - p).sum() / 2, rel=1e-3)  # kinks
    whole = law.bin_probabilities((np.array([-np.inf, 0.0, np.inf]), np.array([-np.inf, np.inf])))
    assert whole.sum() == pytest.approx(1, abs=1e-12)
    assert whole.sum(1) == pytest.approx(law.bin_probabilities([-np.inf, 0, np.inf], axes=0))
    # Integrating by parts over a basin needs its true border: on a staircase it would not hold.
    bends = law.gibbs.basin_averages(law._bend)
    assert bends[0] - bends[1] == pytest.approx(law.slope(0, 1), rel=1e-9)
    assert law.occupation().sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(UnsoundError, match="one dimension"):
        law.cdf(0.0)


def test_more_than_two_dimensions_at_low_temperature():
    surface = lv.Surface("(x**2 - 1)**2 + x**3/5 + 2*y**2 + z**2*(1 + x/4)")
    law = predict.finite_step(surface, temperature=0.01, step=0.02)
    a, b = (np.trace(m.hessian) for m in surface.minima())
    expected = predict.laplace(surface, temperature=0.01).ratio(0, 1) * np.exp(-0.005 * (a - b))
    assert law.ratio(0, 1) == pytest.approx(expected)
    p = law.occupation()
    assert p[0] / p[1] == pytest.approx(expected) and p.sum() == pytest.approx(1)
    for name in ("gibbs", "size", "negative_mass"):
        with pytest.raises(UnsoundError, match="3 dimensions"):
            getattr(law, name)
    for call in (law.moments, lambda: law.density(np.zeros(3)), lambda: law.slope(0, 1)):
        with pytest.raises(UnsoundError, match="3 dimensions"):
            call()


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_modified_loss_is_the_one_descent_follows(momentum):
    """Noise-free descent in a well decays as gradient flow on the modified loss: h + e h**2/2."""
    h, eta = 2.0, 1e-3
    law = predict.finite_step(lv.surfaces.quadratic(h), lv.SGD(eta, 1.0, momentum=momentum))
    curvature = 2 * law.modified_loss(np.array([1.0]))
    roots = np.roots([1, -(1 + momentum - eta * h), momentum])
    rate = -np.log(np.abs(roots).max()) * (1 - momentum) / eta
    assert abs(rate - curvature) < 0.1 * abs(rate - h)
    assert law.modified_loss(np.zeros((3, 1))) == pytest.approx(np.zeros(3))
    if momentum == 0:
        assert curvature == pytest.approx(h + eta * h**2 / 2)


def test_the_form_is_linear_and_says_when_it_is_negative():
    law = predict.finite_step(lv.surfaces.quadratic(4.0), temperature=0.2, step=0.45)
    quadrature = scipy.integrate.quad(lambda x: min(law.density(np.array([x])), 0), -2, 2)[0]
    assert law.negative_mass == 0 and quadrature == 0
    two = lv.surfaces.wide_and_sharp()
    law = predict.finite_step(two, temperature=0.1, step=0.1)
    x = np.linspace(-1, 0.7, 200_001)
    negative = -np.minimum(law.density(x[:, None]), 0).sum() * (x[1] - x[0])
    assert 1e-4 < law.negative_mass == pytest.approx(negative, rel=1e-2)
    assert "below 0" in law.regime
    with pytest.raises(UnsoundError, match=r"of it negative.*predict\.chain"):
        predict.finite_step(two, temperature=0.01, step=0.3)
    # Exponentiated, the first order has no integral on a surface that outgrows a quadratic.
    far = np.array([6.0])
    steep = predict.finite_step(WELL, temperature=0.12, step=0.08)
    exponent = 0.08 * WELL.gradient(far)[0] ** 2 / 0.48 - WELL.energy(far) / 0.12
    assert exponent > 0 and steep.density(far) == 0
    assert steep.bin_probabilities([-np.inf, np.inf]) == pytest.approx([1.0], abs=1e-12)
    with pytest.raises(UnsoundError, match=r"predict\.chain"):
        predict.finite_step(WELL, temperature=0.12, step=0.9)


def test_refusals_name_who_can_answer():
    underdamped = lv.Underdamped(0.1, 1.0, 0.05)
    for dynamics in (
        underdamped,
        lv.Overdamped(0.1, 0.01, integrator="leimkuhler_matthews"),
        lv.SGD(0.01, momentum=0.5, nesterov=True),
    ):
        with pytest.raises(UnsoundError, match=r"predict\.quadratic.*boltzmann_gibbs") as refused:
            predict.finite_step(WELL, dynamics)
        # Only what can answer is named: no chain knows the Langevin integrators.
        assert ("predict.chain" in str(refused.value)) == isinstance(dynamics, lv.SGD)
    with pytest.raises(ParameterError, match="temperature= and step="):
        predict.finite_step(WELL, temperature=0.1)
    with pytest.raises(ParameterError, match="not both"):
        predict.finite_step(WELL, lv.Overdamped(0.1, 0.01), step=0.01)
    with pytest.raises(ParameterError, match="above 0"):
        predict.finite_step(WELL, temperature=0.1, step=-1.0)
    with pytest.raises(UnsoundError, match="unstable at every minimum"):
        predict.finite_step(WELL, temperature=0.1, step=2.0)
    with pytest.raises(LangevinError, match="per replica"):
        predict.finite_step(WELL, lv.SGD([0.01, 0.02]))
    with pytest.raises(UnsoundError, match="not Isotropic"):
        anisotropic = PLANE.replace(noise=lv.Anisotropic([[1.0, 0.0], [0.0, 2.0]]))
        predict.finite_step(anisotropic, lv.SGD(0.01))
    rng = np.random.default_rng(0)
    data = lv.surfaces.linear_regression(rng.normal(size=(20, 1)), rng.normal(size=20))
    with pytest.raises(UnsoundError, match="real mini-batches"):
        predict.finite_step(data, lv.SGD(0.01, 4))
    with pytest.raises(ParameterError, match="2 minima"):
        predict.finite_step(WELL, temperature=0.1, step=0.01).slope(0, 2)
    with pytest.raises(ParameterError, match="2 minima"):
        predict.finite_step(WELL, temperature=0.1, step=0.01).ratio(0, 2)


def test_ringing_wells_are_refused():
    """At m = .95, eta = .064 the chain's ratio is 6 % off Gibbs, where first order says 0.9 %."""
    for m, eta in ((0.95, 0.064), (0.9, 0.016)):
        sgd = lv.SGD(eta, eta / (2 * (1 - m) * 0.12), momentum=m)
        with pytest.raises(UnsoundError, match=r"several times larger.*predict\.chain"):
            predict.finite_step(WELL, sgd)
    exact = predict.chain(WELL, sgd).ratio(0, 1)
    gibbs = predict.boltzmann_gibbs(WELL, sgd).ratio(0, 1)
    first = predict.finite_step(WELL, temperature=0.12, step=eta / (1 + m)).ratio(0, 1)
    assert exact / gibbs - 1 > 3 * (first / gibbs - 1) > 0
