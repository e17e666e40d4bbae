"""Weights at equal training loss: what `AtLoss` keeps, against runs that end there."""

import numpy as np
import pytest

from langevin.checkpoint import Checkpoint
from langevin.errors import CheckpointError, ParameterError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import classifier  # noqa: E402

import langevin as lv  # noqa: E402
from langevin import neural  # noqa: E402

LEVELS = (1.0, 0.8, 0.6, 1e-9)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def train(observe, n_steps=60, rate=0.2, surface=None, **more):
    surface = classifier(norm=True, batch_norm="batch") if surface is None else surface
    more = {"n_replicas": 3, "seed": 4, "dtype": "float64"} | more
    return lv.simulate(
        surface, lv.Adam(rate, batch_size=10), n_steps=n_steps, observe=observe, progress=False,
        **more,
    )  # fmt: skip


def test_the_weights_are_those_of_a_run_that_ends_at_the_first_look_below():
    result = train((neural.AtLoss(LEVELS, every=3), neural.Loss(every=3)))
    found, curves = result["at_loss"], result["loss"]
    reached = 0
    for (r, k), step in np.ndenumerate(found.steps):
        below = np.flatnonzero(curves.values[r] <= LEVELS[k])
        if not len(below):
            assert step == -1 and np.isnan(found.losses[r, k])
            assert np.isnan(found.positions[r, k]).all()
            continue
        assert step == curves.steps[below[0]]
        assert found.losses[r, k] == curves.values[r, below[0]]
        alone = train((), n_steps=int(step))
        np.testing.assert_array_equal(found.positions[r, k], alone.positions[r])
        reached += 1
    assert 6 <= reached <= 9 and not found.everywhere and not result.stopped
    assert len(np.unique(found.steps[:, 1:3])) > 2  # not all at the same time


def test_a_run_stops_when_all_have_reached_the_lowest_level():
    observe = (neural.AtLoss(LEVELS[:2], every=3, stop=True), neural.Loss(every=3))
    result = train(observe, n_steps=6_000)
    assert result.stopped and not result.interrupted
    assert result.steps_done == result["at_loss"].steps.max() < 300
    assert result["loss"].steps[-1] == result.steps_done
    whole = train((neural.AtLoss(LEVELS[:2], every=3),), n_steps=result.steps_done + 9)
    assert not whole.stopped and whole.steps_done == result.steps_done + 9
    np.testing.assert_array_equal(whole["at_loss"].positions, result["at_loss"].positions)


def test_who_diverged_is_not_waited_for():
    more = {"on_divergence": "absorb", "n_steps": 6_000}
    observe = (neural.AtLoss(LEVELS[:2], every=3, stop=True),)
    result = train(observe, rate=np.array([0.2, 1e300, 0.2]), **more)
    assert result.stopped and result.diverged[1] >= 0
    assert (result["at_loss"].steps[1] == -1).all()
    assert (result["at_loss"].steps[[0, 2]] >= 0).all()


def test_a_checkpoint_carries_what_was_found(tmp_path, monkeypatch):
    observe = (neural.AtLoss(LEVELS, every=3),)
    whole = train(observe)["at_loss"]
    first, last = whole.steps[whole.steps >= 0].min(), whole.steps.max()
    with monkeypatch.context() as patch:

        def cut(self, done):
            self.write(done)
            if done >= (first + last) // 2:
                raise KeyboardInterrupt

        patch.setattr(Checkpoint, "due", cut)
        with pytest.raises(KeyboardInterrupt):
            train(observe, checkpoint=tmp_path)
    result = train(observe, checkpoint=tmp_path)
    assert first < result.resumed_at < last
    for part in ("steps", "losses", "positions"):
        np.testing.assert_array_equal(getattr(result["at_loss"], part), getattr(whole, part))
    with pytest.raises(CheckpointError, match="at_loss"):
        train((neural.AtLoss((1.0, 0.5), every=3),), checkpoint=tmp_path)


def test_a_table_has_the_levels():
    pytest.importorskip("xarray")
    table = train((neural.AtLoss(LEVELS), neural.Loss())).to_xarray()
    assert table["at_loss"].dims == ("replica", "at_loss_level", "parameter")
    assert table["at_loss_steps"].dims == ("replica", "at_loss_level")
    np.testing.assert_array_equal(table["at_loss_level"], LEVELS)


@pytest.mark.parametrize("levels", [(), (0.1, 0.1), (0.1, 0.2), (np.nan,), [[0.1]], "low"])
def test_levels_that_do_not_fall_are_refused(levels):
    with pytest.raises(ParameterError, match="that fall"):
        train((neural.AtLoss(levels),))
