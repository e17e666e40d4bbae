"""The statistical test kit: what a randomised test declares, and what the declarations add up to.

A randomised test fails now and then though nothing is wrong (a false alarm), and passes now and
then though something is (a missed bug). Both probabilities are declared, and kept::

    @statistical(comparisons=8, seed=2)
    def test_the_variance(seed, check):
        x = simulate(..., n_replicas=replicas(100_000), seed=seed)
        check.z(variance_z(x, exact), "variance")       # numbers, or an array of them
        check.twin(variance_z(x, 2 * exact), "noise off by sqrt(2)")

``comparisons`` bounds how many numbers are compared, each at the bar of 4 standard errors, so an
attempt alarms with a probability of at most ``comparisons * P(|Z| > 4)``. A test that alarms is
repeated with a fresh seed, and fails only when it alarms ``attempts`` times in a row, a number that
the kit chooses so that the probability of it is at most 1e-9. The first attempt has the declared
seed: the usual run costs nothing more, and is the same every time. tests/test_kit.py adds up all
declared tests: the whole suite raises a false alarm less than once in a million.

A twin is the same comparison with a wrong law, and must be rejected. How far it lies from 0, in
standard errors, says how often a bug of that size would slip through in one of the attempts:
``attempts * P(N(twin, 2) < bar)``, 2 because the twin was itself measured. The sum over all twins
must be at most the declared ``missed_bug``.

How to convert a test: return arrays of z from its helpers rather than their maximum; ``assert
abs(z) < 5`` becomes ``check.z(z, name)``, ``assert abs(wrong) > 5`` becomes ``check.twin(wrong,
name)``; every seed follows ``seed``; today's seed goes into the decorator. Of an ``Estimate`` say
``check.estimate(estimate, exact, name)``, which knows its degrees of freedom; of a p-value
``check.p``, of the number of rare events ``check.count``, of anything else with a known probability
``check.holds``. A plain ``assert`` in such a test is for what no seed can change. Then run
``python tests/smoke_seeds.py --only test_file.py``: 200 seeds, no alarm too many, p-values uniform.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

BUDGET = 1e-6  # of the false alarms of all tests together
SHARE = 1e-9  # of those of one test
BAR = 4.0
ATTEMPTS = 9  # more would mean that an attempt says nothing

smoke = None  # smoke_seeds.py puts here what runs a test instead: smoke(test, declaration, options)
scale = 1.0  # and here by how much it shrinks the ensembles


def replicas(n: int, fewest: int = 1_024) -> int:
    """``n``, or the fewer replicas of a smoke test, multiples of 64."""
    return n if scale == 1.0 else min(n, max(int(n * scale) // 64 * 64, fewest))


@functools.cache
def beyond(bar: float, dof: float | None = None) -> float:
    """P(|T| > bar) of Student's t, or of a normal variable without ``dof``."""
    return float(2 * (stats.norm.sf(bar) if dof is None else stats.t.sf(bar, dof)))


def slips(size: float, bar: float) -> float:
    """Probability that a repetition of a twin seen at ``size`` stays below the bar."""
    return float(stats.norm.cdf((bar - size) / math.sqrt(2)))


@dataclass(frozen=True)
class Declaration:
    """What a test declares.

    ``comparisons``: how many numbers are compared, at a ``bar`` in standard errors, with Student's
    law where ``dof`` is given. ``share``: of all false alarms, what this test may cause.
    ``missed_bug``: the probability that a bug as large as the twins slips through. ``twin``: the
    test with the twins, where it is another one. ``smoke=False``: too slow for many seeds.
    """

    comparisons: int
    seed: int = 0
    bar: float = BAR
    dof: float | None = None
    share: float = SHARE
    missed_bug: float = 1e-6
    twin: str = ""
    smoke: bool = True

    def __post_init__(self):
        if not (self.comparisons > 0 and 0 <= self.missed_bug < 1 and self.bar >= BAR):
            raise ValueError(f"{self}: at least one comparison, a bar of at least {BAR}")
        if not self.attempts:
            raise ValueError(
                f"an attempt alarms wrongly with probability {self.alarm:.2g}: raise bar=, or "
                "compare fewer numbers"
            )

    @property
    def comparing(self) -> float:
        """P(a comparison alarms in one attempt | nothing is wrong)."""
        return self.comparisons * beyond(self.bar, self.dof)

    def alarm_of(self, attempts: int) -> float:
        """P(one of so many attempts alarms | nothing is wrong): a twin not rejected alarms too."""
        return self.comparing + self.missed_bug / attempts

    @functools.cached_property
    def attempts(self) -> int:
        """Alarms in a row that fail the test: as many as its share of false alarms needs."""
        enough = (n for n in range(1, ATTEMPTS + 1) if self.alarm_of(n) ** n <= self.share)
        return next(enough, 0)

    @property
    def alarm(self) -> float:
        """P(one attempt alarms | nothing is wrong)."""
        return self.alarm_of(max(self.attempts, 1))

    @property
    def false_alarm(self) -> float:
        """P(the test fails | nothing is wrong)."""
        return self.alarm**self.attempts


class Alarm(AssertionError):
    """Comparisons beyond the bar, or twins within it."""


@dataclass
class Check:
    """Records the comparisons of one attempt. Numbers may be arrays."""

    declaration: Declaration
    seed: int = 0
    twins: bool = True  # False in smoke tests, whose ensembles are too small for them
    charged: float = 0.0
    missed: float = 0.0
    n_twins: int = 0
    n_compared: int = 0
    alarms: list[str] = field(default_factory=list)
    p_values: dict[str, np.ndarray] = field(default_factory=dict)
    signs: dict[str, np.ndarray] = field(default_factory=dict)
    seen: Counter = field(default_factory=Counter)
    weakest: tuple[float, str] = (math.inf, "")
    kept: dict = field(default_factory=dict)

    def z(self, z, name="", dof=None) -> None:
        """Differences in standard errors, normal or with Student's law, must be below the bar."""
        z = np.ravel(np.asarray(z, dtype=float))
        self._charge(z.size, beyond(self.declaration.bar, dof))
        name = self._named(name)
        self.p_values[name] = beyond_each(z, dof)
        self.signs[name] = np.sign(z)
        for value in z[~(np.abs(z) <= self.declaration.bar)]:  # NaN alarms as well
            self.alarms.append(f"{name}: {value:.2f} standard errors")

    def estimate(self, estimate, expected, name="") -> None:
        """An Estimate or Estimates against what they should be."""
        value, stderr = np.asarray(estimate.value), np.asarray(estimate.stderr)
        self.z((value - expected) / stderr, name, estimate.dof)

    def p(self, p, name="") -> None:
        """p-values, uniform if nothing is wrong, must be above P(|Z| > bar)."""
        p = np.ravel(np.asarray(p, dtype=float))
        level = beyond(self.declaration.bar)
        self._charge(p.size, level)
        name = self._named(name)
        self.p_values[name] = p
        for value in p[~(p >= level)]:
            self.alarms.append(f"{name}: p = {value:.2g}")

    def count(self, found: int, n: int, probability: float, name="") -> None:
        """``found`` of ``n`` independent events, by the exact binomial law."""
        law = stats.binom(n, probability)
        level = beyond(self.declaration.bar)
        self._charge(1, level)
        name = self._named(name)
        below, at = law.cdf(found - 1), law.pmf(found)
        lot = np.random.default_rng((self.seed, zlib.crc32(name.encode()))).random()
        self.p_values[name] = np.array([2 * min(u := below + lot * at, 1 - u)])  # exactly uniform
        p = 2 * min(below + at, law.sf(found - 1))
        if not p >= level:
            self.alarms.append(f"{name}: {found} events, {n * probability:.1f} expected")

    def holds(self, condition, false_alarm: float, name="") -> None:
        """Something that is untrue with at most this probability if nothing is wrong."""
        self._charge(1, false_alarm)
        if not condition:
            self.alarms.append(f"{self._named(name)}: does not hold")

    def verdict(self, comparison, name="") -> None:
        """``compare()`` agrees; it differs from what is right at its ``significance``."""
        wanted = {"agrees"} if self.twins else {"agrees", "undecided"}  # of a smaller ensemble
        self.holds(comparison.verdict in wanted, comparison.significance, name)

    def twin(self, z=None, name="", *, p=None) -> None:
        """The same comparison with a wrong law, as numbers z or as one p-value: rejected."""
        self.n_twins += 1
        if not self.twins:
            return
        size = float(stats.norm.isf(max(p, 1e-300) / 2)) if z is None else np.abs(z).max()
        self.missed += slips(size, self.declaration.bar)
        self.weakest = min(self.weakest, (float(size), str(name)))
        if not size > self.declaration.bar:
            self.alarms.append(f"twin {name!r} is not rejected: {size:.2f} standard errors")

    def once(self, name, function, *arguments):
        """What no seed changes and is slow to compute: kept for the next attempts."""
        if name not in self.kept:
            self.kept[name] = function(*arguments)
        return self.kept[name]

    def _named(self, name) -> str:
        self.seen[name] += 1
        return name if self.seen[name] == 1 else f"{name} {self.seen[name]}"

    def _charge(self, n: int, each: float) -> None:
        self.n_compared += n
        self.charged += n * each

    def close(self) -> None:
        """Raises where more was compared than declared, and Alarm."""
        declared = self.declaration
        if self.charged > declared.comparing * (1 + 1e-9):
            each = beyond(declared.bar, declared.dof)
            raise RuntimeError(
                f"{self.n_compared} comparisons were made, whose false alarms add up to "
                f"{self.charged:.2g}: declare comparisons={math.ceil(self.charged / each)} with "
                f"dof={declared.dof}."
            )
        if self.twins and not (self.n_twins or declared.twin):
            raise RuntimeError("no twin: compare with a wrong law too, or name the test that does.")
        if self.alarms:
            raise Alarm("; ".join(self.alarms[:8]))


def spread_z(z, dof=None):
    """z of the spread of z-scores (n, ...): sqrt(2 S) is nearly normal (Fisher), S chi-square."""
    z = np.asarray(z)
    squares = (z**2).sum(axis=0) * (1.0 if dof is None else (dof - 2) / dof)
    return np.sqrt(2 * squares) - math.sqrt(2 * len(z) - 1)


def beyond_each(z, dof=None):
    """Two-sided p-values."""
    return 2 * (stats.norm.sf(np.abs(z)) if dof is None else stats.t.sf(np.abs(z), dof))


def fresh(name: str, seed: int, number: int) -> int:
    """A seed that no other test or attempt has; attempt 0 keeps the declared one."""
    if number == 0:
        return seed
    words = np.random.SeedSequence((zlib.crc32(name.encode()), seed, number)).generate_state(2)
    return int(words[0]) << 16 | int(words[1]) >> 16


def attempt(test, declaration, number, options, name="", **given) -> tuple[Check, str]:
    """One attempt: what was recorded, and why it alarmed, or nothing."""
    seed = fresh(name or test.__qualname__, declaration.seed, number)
    check = Check(declaration, seed, **given)
    try:
        test(seed=seed, check=check, **options)
        check.close()
    except AssertionError as error:
        if not check.alarms:  # an assertion that follows an alarm is part of it
            raise
        return check, str(error) if isinstance(error, Alarm) else "; ".join(check.alarms)
    return check, ""


def statistical(**declared):
    """Declares a randomised test ``test(seed, check, ...)``; the arguments are of Declaration."""
    declaration = Declaration(**declared)

    def decorate(test):
        @functools.wraps(test)
        def repeated(**options):
            if smoke is not None:
                return smoke(test, declaration, options)
            alarms, kept = [], {}
            for number in range(declaration.attempts):
                check, alarm = attempt(test, declaration, number, options, kept=kept)
                missed = check.missed * declaration.attempts
                if number == 0 and not alarm and missed > declaration.missed_bug:
                    raise AssertionError(
                        f"bugs as large as the twins would be missed with probability {missed:.2g},"
                        f" declared: missed_bug={declaration.missed_bug:.2g}. The smallest twin, "
                        f"{check.weakest[1]}, is {check.weakest[0]:.2f} standard errors away."
                    )
                if not alarm:
                    return None
                alarms.append(f"seed {check.seed}: {alarm}")
            raise Alarm(f"{len(alarms)} alarms in a row:\n" + "\n".join(alarms))

        signature = inspect.signature(test)
        kept = [p for name, p in signature.parameters.items() if name not in ("seed", "check")]
        repeated.__signature__ = signature.replace(parameters=kept)
        repeated.declaration = declaration
        return repeated

    return decorate


@contextmanager
def modules_of(folder: str) -> Iterator[None]:
    """Inside, the scripts of validations/ or benchmarks/ can be imported.

    Both have a harness.py: modules of these names that were there before are set aside.
    """
    path = Path(__file__).parent.parent / folder
    own = {file.stem for file in path.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in own & set(sys.modules)}
    sys.path.insert(0, str(path))
    try:
        yield
    finally:
        sys.path.remove(str(path))
        for name in own & set(sys.modules):
            del sys.modules[name]
        sys.modules.update(before)
