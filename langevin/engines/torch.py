"""The engine for networks: rows of parameters, batched gradients, the core engine's own step.

A chunk of replicas takes a window of steps while its parameters are in cache; replicas of one batch
size share chunks, so that no example is computed in vain. Mini-batches, noise and updates are those
of the core engine (streams.py), so a network whose loss is a FiniteSum's takes its very steps.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from langevin.dynamics import Adam
from langevin.engines import compiling, perceptron
from langevin.engines.streams import Indices, Normals, Update
from langevin.engines.windows import EPOCH, OFFSET, RATE, SIZE, Schedules
from langevin.neural.dropout import Draw
from langevin.neural.evaluation import Evaluation
from langevin.neural.memory import Chunks
from langevin.neural.observers import BatchLoss, View
from langevin.preparation import LIMIT
from langevin.schedules import Schedule

CACHED = 1_000_000  # parameters of a chunk of replicas
SMALL = 200_000  # parameters of all replicas below which a second thread costs more than it gives
WINDOW = 64  # steps of a chunk before the next one's turn
WINDOW_SECONDS = 0.5  # that a window of compiled networks may take
SPEED = 8e10  # operations a second and core, roughly


@dataclass
class State:
    """Everything a training carries from window to window; rows are replicas."""

    positions: np.ndarray  # parameters, then buffers or velocities, (rows, n_replicas, dim)
    began: np.ndarray
    fate: np.ndarray  # step at which a replica's loss was not finite, or -1
    batch_sums: np.ndarray  # (3, n_replicas): number, sum and sum of squares of batch losses
    coefficients: np.ndarray
    parameters: np.ndarray  # none: a network's are its positions
    key: tuple
    extra: tuple  # the data


class Engine:
    """One training: ``advance`` moves all replicas; observers look between windows."""

    place = torch.device("cpu")
    side_by_side = True  # chunks, one thread each
    native = True  # on the CPU, where perceptrons are compiled

    def __init__(self, surface: Any, dynamics: Any, run: dict[str, Any], observers: list[Any]):
        self.surface, self.dynamics, self.run, self.observers = surface, dynamics, run, observers
        self.dtype = run["dtype"]
        self.evaluation = Evaluation(surface, getattr(torch, self.dtype), self.place)
        self.n = run["n_replicas"]
        self.key = (run["seed"] & 0xFFFFFFFF, run["seed"] >> 32)
        self.ids = run["first_replica"] + np.arange(self.n, dtype=np.uint64)
        self.stochastic = dynamics.batch_size is not None
        self.update = Update(dynamics, self.dtype)
        self.names = self.update.step.coefficients
        self.coefficients = self._coefficients()
        self.schedule = Schedules(surface, dynamics, run["n_steps"])
        self.sizes = self._sizes()
        self.threads = _threads()
        layers = perceptron.trains(surface, self.evaluation)
        self.compiled = None
        if layers is not None and self.native:
            self.compiled = perceptron.Perceptron(layers, surface, self.update, self.dtype)
        self.chunks = Chunks(self._chunks(), self._task())
        self.window = self._window()
        self.normals: dict[int, Normals] = {}
        self.pool = ThreadPoolExecutor(self.threads)
        X, y = surface.X, surface.y
        self.X, self.y = self.evaluation.given(X, y)
        clip = getattr(dynamics, "clip_norm", None)
        kind = self.evaluation.kind
        self.clip = None if clip is None else torch.tensor(clip, dtype=kind).expand(self.n)

    def _coefficients(self) -> np.ndarray:
        from langevin.preparation import coefficients

        return coefficients(self.surface, self.dynamics, np.dtype(self.dtype))

    def _sizes(self) -> np.ndarray:
        """Examples of each replica's mini-batch, (n_replicas,)."""
        n = self.surface.n_examples
        if not self.stochastic:
            return np.full(self.n, n)
        given = self.dynamics.batch_size
        given = given.base if isinstance(given, Schedule) else given
        return np.broadcast_to(np.asarray(given, dtype=np.int64), self.n)

    def _chunks(self) -> list[np.ndarray]:
        """Replicas that are computed together: of one batch size, few enough for the cache."""
        if self.compiled:
            return np.split(np.arange(self.n), self.n)
        most = max(1, CACHED // self.surface.dim)
        found = []
        for size in np.unique(self.sizes):
            same = np.flatnonzero(self.sizes == size)
            parts = -(-len(same) // most)
            if len(same) * self.surface.dim > SMALL:  # worth a thread
                parts = max(parts, min(16, max(2, len(same) // 8), len(same)))
            found += [part for part in np.array_split(same, parts) if len(part)]
        return found

    @property
    def fused(self) -> bool:
        """Whether gradient and update are one compiled loop."""
        return bool(self.compiled and self.compiled.fused and self.clip is None)

    @property
    def how(self) -> str:
        """How gradients are computed, in words."""
        return "compiled" if self.compiled else self.evaluation.how

    def _window(self) -> int:
        """Steps between two looks at the clock: compiled networks need no more than a few looks."""
        if not self.compiled:
            return WINDOW
        seconds = (self.surface.dim * (6.0 * self.sizes + 100)).sum() / (SPEED * self.threads)
        return int(np.clip(WINDOW_SECONDS / seconds, 1, 8192))

    def _task(self) -> str:
        """What one replica computes at a time, in words."""
        shape = tuple(self.surface.X.shape[1:])
        return (
            f"one network of {self.surface.dim:,} parameters on {int(self.sizes.max()):,} examples "
            f"of shape {shape} in {self.dtype}"
        )

    def start(self, start: Any) -> State:
        """Each replica's parameters at step 0."""
        from langevin.neural.start import starting_rows

        rows = starting_rows(self.surface, start, self.ids, self.key, self.dtype)
        positions = np.zeros((len(self.update.rows), *rows.shape), rows.dtype)
        positions[0] = rows
        return State(
            positions=positions,
            began=rows,
            fate=np.full(self.n, -1, np.int64),
            batch_sums=np.zeros((3, self.n)),
            coefficients=self.coefficients,
            parameters=np.zeros(0),
            key=self.key,
            extra=self._data(),
        )

    def _data(self) -> tuple:
        """Everything that is learned, for a checkpoint to compare."""
        surface, labels = self.surface, self.surface.labels
        own = () if labels is None else (labels.table.numpy(), labels.which)
        return (surface.X.numpy(), surface.y.numpy(), *own)

    def advance(self, state: State, begin: int, end: int) -> None:
        """Steps begin + 1 ... end of all replicas that have not diverged."""
        window = self.schedule.window(begin, end) if self.schedule.rows else None
        alive = [k for k, chunk in enumerate(self.chunks) if (state.fate[chunk] < 0).any()]
        alive.sort(
            key=lambda k: -self.sizes[self.chunks.chunks[k]].sum()
        )  # short ones fill the gaps

        def move(number: int) -> None:
            self.chunks.work(number, lambda k, c: self._alive(k, state, c, begin, end, window))

        # torch.func puts parameters into the module itself, which two threads must not do at once.
        if not self.side_by_side or self.evaluation.how != "batched" or len(alive) < 2:
            for k in alive:
                move(k)
            self.chunks.tell()
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a chunk a core, not an operation on all of them
        try:
            for task in [self.pool.submit(move, k) for k in alive]:
                task.result()
        finally:
            torch.set_num_threads(threads)
        self.chunks.tell()

    def _alive(self, number: int, state: State, chunk, begin: int, end: int, window) -> None:
        """`_chunk` for those that have not diverged; the state is as it was if that fails."""
        chunk = chunk[state.fate[chunk] < 0]
        if not len(chunk):
            return
        kept = state.positions[:, chunk]
        try:
            task = self._fused if self.fused else self._chunk
            task(number, state, chunk, begin, end, window)
        except BaseException:
            state.positions[:, chunk] = kept
            raise

    def _fused(self, number: int, state: State, chunk, begin: int, end: int, window) -> None:
        """The steps of replicas whose network is compiled together with its update."""
        trace = np.empty((end - begin, len(chunk)))
        steps = np.arange(begin, end)
        for c, r in enumerate(chunk):
            base = self.coefficients[:, [r if self.coefficients.shape[1] > 1 else 0]]
            table = self._now(np.repeat(base, end - begin, 1), steps, window).T.copy()
            places = self._places(self.sizes[r], steps, window)
            given = [row[r] for row in state.positions], places, table
            one = np.array([r])
            draw = self._draw(one)
            if not self.update.n_normals:
                trace[:, c] = self.compiled.train(*given, [], (r, self.ids[r]), begin, draw)
                continue
            for k, step in enumerate(steps):
                noises = [z[0] for z in self._noises(number, one, step)]
                at = slice(k, k + 1)
                rows, replica = given[0], (r, self.ids[r])
                some = places[at], table[at], noises, replica, step, draw
                trace[at, c] = self.compiled.train(rows, *some)
        self._settle(state, chunk, trace, begin)

    def _draw(self, chunk: np.ndarray) -> Indices | None:
        """The mini-batches of some replicas."""
        if not self.stochastic:
            return None
        n, sampling = self.surface.n_examples, self.dynamics.sampling
        return Indices(sampling, n, self.ids[chunk], self.key)

    def _chunk(self, number: int, state: State, chunk, begin: int, end: int, window) -> None:
        whole = len(chunk) == self.n
        rows = list(state.positions)
        rows = rows if whole else [np.ascontiguousarray(r[chunk]) for r in rows]
        weights = torch.from_numpy(rows[0])
        out = torch.empty_like(weights)
        draw = self._draw(chunk)
        trace = np.empty((end - begin, len(chunk)))
        base = self.coefficients
        base = base[:, chunk] if base.shape[1] > 1 else base

        def slope(step: int, batch: int) -> np.ndarray:
            now = None if window is None else window[:, [step - begin]]
            if self.compiled:
                places = self._places(self.sizes[chunk], batch, now)
                replicas = zip(chunk, self.ids[chunk], strict=True)
                given = zip(rows[0], out.numpy(), places[:, None], replicas, strict=True)
                losses = [self.compiled.gradient(*some, batch, draw) for some in given]
            else:
                X, y, share = self._batch(draw, chunk, batch, now) if draw else self._all(chunk)
                noise = Draw(self.dtype, self.ids[chunk], batch, self.key)
                l2 = self.surface.l2
                losses = self.evaluation.gradient(weights, X, y, share, out, l2, noise)
            if self.clip is not None:
                clipped(out, self.clip[chunk])
            return np.asarray(losses)

        if self.update.carries:  # that of the last step's end, to the same bits
            slope(begin, begin * sum(self.update.before))
        for step in range(begin, end):
            now = self._now(base, step, None if window is None else window[:, [step - begin]])
            noises = self._noises(number, chunk, step)
            for part, before in enumerate(self.update.before):
                if before:
                    trace[step - begin] = slope(step, self.update.batch(step, part))
                count = self.update.parts[part][1]
                drawn, noises = noises[:count], noises[count:]
                self.update(part, rows, out.numpy(), drawn, now)
        if not whole:
            for all_rows, mine in zip(state.positions, rows, strict=True):
                all_rows[chunk] = mine
        self._settle(state, chunk, trace, begin)

    def _settle(self, state: State, chunk: np.ndarray, trace: np.ndarray, begin: int) -> None:
        """Notes which replicas diverged, and the sums of the mini-batches' losses."""
        good = np.isfinite(trace)
        lost = ~good.all(0) | ~(np.abs(state.positions[0][chunk]).max(1) < LIMIT)
        first = np.where(good.all(0), len(trace), (~good).argmax(0) + 1)
        state.fate[chunk[lost]] = begin + first[lost]
        kept = np.where(good, trace, 0.0)
        with np.errstate(over="ignore"):  # of a replica that is about to diverge
            sums = np.stack([good.sum(0), kept.sum(0), (kept**2).sum(0)])
        state.batch_sums[:, chunk] += sums

    def _batch(self, draw: Indices, chunk: np.ndarray, step: int, now) -> tuple:
        """Examples (copies, S, ...), targets, and each one's share of the mean."""
        places = self._places(self.sizes[chunk], step, now)
        sizes, epochs, offsets = np.ascontiguousarray(places.T)
        width = int(sizes.max())
        index = torch.from_numpy(draw.draw(step, sizes, epochs, offsets, width))
        there = index.view(-1).to(self.place)
        X = self.X.index_select(0, there).view(*index.shape, *self.X.shape[1:])
        y = self.y.index_select(0, there).view(*index.shape, *self.y.shape[1:])
        if self.surface.labels is not None:
            y = self.surface.labels.at(chunk, index).to(self.place)
        share = (np.arange(width) < sizes[:, None]) / sizes[:, None]
        return X, y, torch.from_numpy(share.astype(self.dtype)).to(self.place)

    def _places(self, sizes: Any, steps: Any, window: np.ndarray | None) -> np.ndarray:
        """Size, epoch and offset (..., 3) of mini-batches; ``sizes`` and ``steps`` broadcast."""
        sizes, steps = np.broadcast_arrays(sizes, steps)
        epochs = offsets = np.zeros_like(steps)
        if window is not None and len(window) > SIZE:
            sizes, epochs, offsets = (
                np.broadcast_to(window[row, : steps.size], steps.shape)
                for row in (SIZE, EPOCH, OFFSET)
            )
        elif self.stochastic and self.dynamics.sampling == "epoch_shuffle":
            n, s = self.surface.n_examples, sizes
            per_epoch = n // s if self.dynamics.drop_last else -(-n // s)
            epochs = steps // per_epoch
            offsets = (steps - epochs * per_epoch) * s
            sizes = np.minimum(s, n - offsets)
        return np.stack([sizes, epochs, offsets], axis=-1).astype(np.int64)

    def _all(self, chunk: np.ndarray) -> tuple:
        copies, n = len(chunk), self.surface.n_examples
        X = self.X.expand(copies, *self.X.shape)
        labels = self.surface.labels
        y = self.y.expand(copies, *self.y.shape) if labels is None else labels.of(chunk)
        share = torch.full((copies, n), 1 / n, dtype=self.evaluation.kind, device=self.place)
        return X, y.to(self.place), share

    def _now(self, base: np.ndarray, steps: Any, window: np.ndarray | None) -> np.ndarray:
        """The coefficients (names, n) of steps: scheduled ones, Adam's corrections."""
        names = self.names
        adam = isinstance(self.dynamics, Adam)
        if window is None and not adam:
            return base
        now, rate = base.copy(), names.index("learning_rate")
        if window is not None:
            now[rate] *= window[RATE, : np.size(steps)]
        if adam:
            first, second = self.dynamics.betas
            now[rate] /= 1 - first ** (steps + 1.0)
            now[names.index("root_correction")] = np.sqrt(1 - second ** (steps + 1.0))
        return now

    def _noises(self, number: int, chunk: np.ndarray, step: int) -> list[np.ndarray]:
        """The normals of a step, (replicas, dim) for each O of a splitting, or one, or none."""
        count, dim = self.update.n_normals, self.surface.dim
        if not count:
            return []
        known = self.normals.get(number)
        if known is None or not np.array_equal(known.ids, self.ids[chunk]):
            known = Normals(self.dtype, self.ids[chunk], count * dim, self.key)
            self.normals[number] = known
        table = known.at(step)
        return [table[:, k * dim : (k + 1) * dim] for k in range(count)]

    def look(self, state: State, step: int) -> None:
        """Lets the observers that are due measure, chunk by chunk."""
        due = [o for o in self.observers if step in o.due]
        if not due:
            return

        def measure(number: int, chunk: np.ndarray) -> None:
            rows = torch.from_numpy(np.ascontiguousarray(state.positions[0][chunk]))
            began = torch.from_numpy(np.ascontiguousarray(state.began[chunk]))
            buffers = state.positions[1][chunk] if len(state.positions) > 1 else None
            buffers = None if buffers is None else torch.from_numpy(buffers)
            sums, ids = state.batch_sums[:, chunk], self.ids[chunk]
            view = View(self.evaluation, rows, began, sums, chunk, buffers, step, ids)
            for observer in due:
                observer.record(step, chunk, view)

        for number in range(len(self.chunks)):
            self.chunks.work(number, measure)
        self.chunks.tell()
        if any(isinstance(o.observer, BatchLoss) for o in due):
            state.batch_sums[...] = 0

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()


def clipped(slopes: torch.Tensor, limits: torch.Tensor) -> None:
    """Shortens gradients (copies, dim) to norms (copies,), as torch.nn.utils.clip_grad_norm_."""
    norms = slopes.norm(dim=1)
    slopes.mul_((limits / (norms + 1e-6)).clamp_(max=1.0).unsqueeze(1))


def next_stop(observers: list[Any], done: int, n_steps: int, window: int = WINDOW) -> int:
    """The step up to which the next window may go."""
    stops = [int(o.due[o.due > done][0]) for o in observers if (o.due > done).any()]
    return min([n_steps, done + window, *stops])


def _threads() -> int:
    """The threads of a run; asking starts numba's, which changes torch's number: not for long."""
    own = torch.get_num_threads()
    number = compiling.n_threads()
    torch.set_num_threads(own)
    return number
