"""Gibbs laws in 2-D up to the true border of the basins, against independent integrals."""

import re

import numpy as np
import pytest
from scipy.integrate import quad

import langevin as lv
from langevin import predict
from langevin.surfaces.basins import Basins

TEMPERATURES = [0.05, 0.12, 0.25]


def profile(x):
    return x**4 / 4 - 0.4 * x**3 / 3 - x**2 / 2


def wells(u, v):
    """``profile(u) + v**2`` of two formulas u and v."""
    return f"{u}**4/4 - 0.4*{u}**3/3 - {u}**2/2 + {v}**2"


def turned(angle):
    """The separable surface turned by an angle: its separatrix is the line at right angles."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return lv.Surface(wells(f"({c!r}*x + {s!r}*y)", f"({-s!r}*x + {c!r}*y)"))


def line_ratio(temperature):
    """p_A/p_B of the one-dimensional profile."""
    options = {"epsabs": 0, "epsrel": 1e-13, "limit": 400}
    weight = lambda x: np.exp(-(profile(x) + 0.84) / temperature)  # noqa: E731
    return (
        quad(weight, -8, 0, points=[-0.8], **options)[0]
        / (quad(weight, 0, 8, points=[1.2], **options)[0])
    )


class Staircase(Basins):
    """Basins as unions of the label grid's cells."""

    def separatrices(self, low, high):
        return None


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("angle", [0.0, np.pi / 4, 0.37, 1.9])
def test_an_oblique_separatrix(angle, temperature):
    law = predict.boltzmann_gibbs(turned(angle), temperature=temperature)
    expected = line_ratio(temperature)
    first = 0 if angle < np.pi / 2 else 1  # turned further, the wells change their order
    assert law.ratio(first, 1 - first) == pytest.approx(expected, rel=1e-11)
    assert "could not" not in law.regime
    assert law.unassigned == 0 and law.occupation().sum() == pytest.approx(1, abs=1e-12)
    z = quad(lambda x: np.exp(-profile(x) / temperature), -8, 8, points=[-0.8, 1.2], limit=400)[0]
    z *= np.sqrt(np.pi * temperature)
    u, v = 0.3, 0.2
    c, s = np.cos(angle), np.sin(angle)
    density = np.exp(-(profile(u) + v**2) / temperature) / z
    assert law.density(np.array([c * u - s * v, s * u + c * v])) == pytest.approx(density, rel=1e-9)


def test_the_staircase_of_the_label_grid_would_fail():
    surface = turned(0.0)
    surface._cache["basins"] = Staircase(surface)
    law = predict.boltzmann_gibbs(surface, temperature=0.12)
    assert abs(law.ratio(0, 1) / line_ratio(0.12) - 1) > 1e-4
    assert "could not all be traced" in law.regime
    share = float(law.regime.rsplit("hold ", 1)[1].split()[0])
    assert abs(law.occupation()[0] - 1 / (1 + 1 / line_ratio(0.12))) < share < 0.01


BEND = 0.15
CURVED = lv.Surface(wells(f"(x + {BEND}*(x**2 - y**2)/2)", f"(y + {BEND}*x*y)"))


def conformal_mass(low, high, temperature):
    """The mass of low < u < high, by quadrature in (u, v).

    u + i v = z + BEND z**2/2 is analytic, so it carries gradient lines to gradient lines: the
    separatrix u = 0 is a hyperbola in (x, y). An area shrinks by |1 + 2 BEND (u + i v)|. The map is
    two to one: a mirror image of both wells lies beyond x = -1/BEND.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)

    def rule(a, b, n):
        edges = np.linspace(a, b, n + 1)
        half = np.diff(edges)[:, None] / 2
        return ((edges[:-1, None] + half) + half * nodes).ravel(), (half * weights).ravel()

    (u, wu), (v, wv) = rule(low, high, 60), rule(-4, 4, 60)
    density = np.exp(-(profile(u)[:, None] + 0.84 + v**2) / temperature)
    return wu @ (density / np.abs(1 + 2 * BEND * (u[:, None] + 1j * v))) @ wv


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_a_curved_separatrix_known_by_a_conformal_map(temperature):
    law = predict.boltzmann_gibbs(CURVED, temperature=temperature)
    left, right = (conformal_mass(*side, temperature) for side in ((-3, 0), (0, 4)))
    assert law.ratio(2, 3) == pytest.approx(left / right, rel=1e-11)
    assert law.ratio(1, 0) == pytest.approx(left / right, rel=1e-11)
    assert law.occupation()[:2].sum() == pytest.approx(0.5, rel=1e-11)


def test_runs_count_nearly_the_same_basins():
    """Points beside the hyperbola: the lines in the cells put it right to 1e-3 of a cell."""
    basins = CURVED.basins()
    v = np.linspace(-2, 2, 4001)
    z = (np.sqrt(1 + 2j * BEND * v) - 1) / BEND  # the separatrix u = 0
    normal = 1 / np.conj(1 + BEND * z)
    normal /= np.abs(normal)
    cell = ((basins.high - basins.low) / 512).min()
    moved = [z + side * 1e-3 * cell * normal for side in (-1, 1)]
    points = [np.stack([w.real, w.imag], axis=-1) for w in moved]
    inside = (np.abs(points[0][:, 1]) < basins.high[1]) & (points[0][:, 0] < basins.high[0])
    left, right = (basins.label(p)[inside] for p in points)
    assert (left == 2).mean() > 0.99 and (right == 3).mean() > 0.99
    stairs = basins.labels[
        tuple(((points[0] - basins.low) / (basins.high - basins.low) * 512)[inside].astype(int).T)
    ]
    assert (stairs == 2).mean() < 0.7  # the cell's centre alone is a coin toss


def test_mueller_brown_does_not_depend_on_the_axes():
    """Turned by half a radian, every cell, crossing and node is another; the ratios are not."""
    surface = lv.surfaces.mueller_brown(0.01)
    c, s = float(np.cos(0.5)), float(np.sin(0.5))
    formula = re.sub(r"\bx\b", "X", surface.formula)
    formula = re.sub(r"\by\b", f"({-s!r}*x + {c!r}*y)", formula)
    formula = re.sub(r"\bX\b", f"({c!r}*x + {s!r}*y)", formula)
    turned = lv.Surface(formula, **surface.parameters)
    corners = np.array([[-1.7, -0.6], [-1.7, 2.2], [1.3, -0.6], [1.3, 2.2]])
    corners = corners @ np.array([[c, s], [-s, c]])
    turned._box = corners.min(axis=0), corners.max(axis=0)
    places = [m.position @ np.array([[c, -s], [s, c]]) for m in turned.minima()]
    old = [np.abs([m.position - p for m in surface.minima()]).max(1).argmin() for p in places]
    assert sorted(old) == [0, 1, 2]
    for temperature in (0.25,):
        here = predict.boltzmann_gibbs(surface, temperature=temperature).occupation()
        there = predict.boltzmann_gibbs(turned, temperature=temperature).occupation()
        assert there == pytest.approx(here[old], rel=1e-9)


def test_mueller_browns_separatrices_part_the_flow():
    """An ODE solver started 1e-7 beside them ends in the basin of its side."""
    surface = lv.surfaces.mueller_brown(0.01)
    basins = surface.basins()
    for separatrix in basins.separatrices(basins.low, basins.high):
        for k, branch in enumerate(separatrix.branches):
            points, tangents = branch(np.array([0.1, 0.4]) * separatrix.lengths[k])
            normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=-1)
            sides = (separatrix.left, separatrix.right)[:: 1 if k == 0 else -1]
            for label, sign in zip(sides, (1, -1), strict=True):
                for start in points + sign * 1e-7 * normals:
                    assert flowed(surface, start) == label


def flowed(surface, start):
    from scipy.integrate import solve_ivp

    end = solve_ivp(
        lambda t, x: -surface.gradient(x), (0, 200), start, method="LSODA", rtol=1e-10, atol=1e-13
    ).y[:, -1]
    places = np.array([m.position for m in surface.minima()])
    return int(np.linalg.norm(places - end, axis=1).argmin())


def test_a_saddle_that_is_degenerate_is_said_to_be():
    law = predict.boltzmann_gibbs(lv.Surface("x**3 - 3*x*y**2 + (x**2 + y**2)**2"), temperature=0.1)
    assert "could not all be traced" in law.regime
    assert law.occupation() == pytest.approx([1 / 3] * 3, rel=1e-3)
