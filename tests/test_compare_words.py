"""What a comparison says: its table, its notes, and what it refuses to compare."""

import matplotlib
import numpy as np
import pytest

import langevin as lv
from langevin import plot, predict
from langevin.errors import ParameterError
from langevin.experiments import measures

matplotlib.use("Agg")
WELL = lv.Surface("x**4/4 - 2*x**3/15 - x**2/2", noise=lv.Isotropic(1.0))
PLANE = lv.Surface("(x**2 - 1)**2 + y**2", noise=lv.Isotropic(1.0))
LANGEVIN = lv.Overdamped(0.2, 0.05)


def run(surface, dynamics, **given):
    observe = (lv.Histogram(bins=60), lv.Occupation(), lv.Moments())
    options = dict(n_replicas=4096, n_steps=4000, burn_in=2000, seed=1, observe=observe)
    return lv.simulate(surface, dynamics, **(options | given), progress=False)


@pytest.fixture(scope="module")
def result():
    return run(WELL, LANGEVIN)


def test_a_shape_that_is_certainly_off_is_said(result):
    """No single row differs, yet the histogram does: the words must not say otherwise."""
    wrong = lv.compare(result, predict.boltzmann_gibbs(WELL, LANGEVIN))
    assert wrong.distances[0].interval[0] > 4 * wrong.distances[0].noise
    assert wrong.verdict == "agrees"  # within the wanted resolution
    assert "the whole histogram is off: its total variation is at least" in wrong.statement


def test_a_table_fits_a_hundred_columns(result):
    plane = run(PLANE, lv.Overdamped(0.4, 0.05), n_steps=300, burn_in=100)
    laws = predict.boltzmann_gibbs(WELL, LANGEVIN), predict.laplace(PLANE, plane.dynamics)
    other = run(WELL, LANGEVIN, seed=2)
    told = [lv.compare(result, laws[0]), lv.compare(plane, laws[1], allow_unequilibrated=True)]
    for text in map(str, [*told, lv.compare(result, other)]):
        assert max(map(len, text.splitlines())) <= 100, text
    assert "KS of 4,096 finals" in str(told[0]) and "chi2 of 4,096 finals" in str(told[0])


def test_diverged_replicas_are_told():
    gone = run(WELL, lv.Overdamped(0.2, 0.5), on_divergence="absorb", n_steps=1000, burn_in=500)
    found = lv.compare(gone, predict.fokker_planck(WELL, gone.dynamics), allow_unequilibrated=True)
    count = int((gone.diverged >= 0).sum())
    assert count > 100 and f"{count:,} of 4,096 replicas diverged" in " ".join(str(found).split())
    assert all(len(word) < 40 for word in str(found).split())  # no number of twenty digits


def test_what_cannot_be_compared_is_refused_in_words(result):
    with pytest.raises(ParameterError, match="has 2 dimensions, the result 1"):
        lv.compare(result, predict.fokker_planck(PLANE, LANGEVIN, cells=32))
    with pytest.raises(ParameterError, match="the first argument must be the Result"):
        lv.compare(None, predict.chain(WELL, LANGEVIN))
    scaling = predict.scaling(WELL, lv.SGD(0.05, 0.2))
    with pytest.raises(ParameterError, match="a Scaling") as refused:
        lv.compare(result, scaling)
    assert len(str(refused.value)) < 250
    for wrong in (result, np.zeros(3)):
        with pytest.raises(ParameterError, match=r"result\.density\(\)"):
            plot.density(wrong)
    with pytest.raises(ParameterError, match=r"plot\.density"):
        plot.density_maps(result.density())


def test_a_passage_that_began_elsewhere_is_told():
    left, right = (m.position for m in WELL.minima())
    law = predict.escape(WELL, LANGEVIN, left, right)
    passage = dict(observe=(lv.FirstPassage("x > 1.2198"),), n_steps=20_000, burn_in=0)
    there = run(WELL, LANGEVIN, start=left, n_replicas=512, **passage)
    mixed = run(WELL, LANGEVIN, n_replicas=512, **passage)
    assert "note: the prediction starts" in str(lv.compare(mixed, law))
    assert "note: the prediction starts" not in str(lv.compare(there, law))
    assert measures.predicted(law)["first_passage.mean"] == law.mean_passage_time
