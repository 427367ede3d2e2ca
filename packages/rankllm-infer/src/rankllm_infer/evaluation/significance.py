"""Significance of differences between rankings: intervals and tests over per-query values.

Shapes: Q queries, R resamples. Everything is seeded: the same values give the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankllm_core.errors import ConfigError

Values = NDArray[np.float64]

_EXACT_AT_MOST = 16
"""Maximum number of non-zero differences for which all sign patterns are enumerated: 2 ** 16 patterns."""
_CELLS = 4_000_000
"""Numbers drawn at a time, which limits memory to 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomisationTest:
    """Result of a paired randomisation test."""

    p: float
    """Two-sided p-value: how often chance alone gives a mean difference at least as far from zero as the observed
    one."""
    is_exact: bool
    """True if all sign patterns were enumerated; otherwise a random sample was used."""


def bootstrap_interval(
    values: Sequence[float], *, n_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: queries are resampled with replacement.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Raises ConfigError without values,
    for a value that is not finite, n_resamples below 1, or a level outside the open interval (0, 1).
    """
    values_Q = _as_values(values, n_resamples)
    if not 0 < level < 1:
        raise ConfigError(f"confidence level {level:g}: expected more than 0 and less than 1")
    rng = np.random.default_rng(seed)
    n = len(values_Q)
    means_R = np.concatenate(
        [values_Q[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in _chunks(n_resamples, n)]
    )
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def randomisation_test(differences: Sequence[float], *, n_resamples: int = 10_000, seed: int = 0) -> RandomisationTest:
    """Fisher's paired randomisation test: under the null hypothesis, each difference could equally have the opposite
    sign.

    differences: one per query, system minus baseline. With up to 16 non-zero differences, all sign patterns are
    enumerated; otherwise n_resamples are sampled and the observed one is counted with them, so that p is never 0 and
    never too small. Sources: Smucker, Allan and Carterette, CIKM 2007; for counting the observed pattern, Phipson and
    Smyth, 2010. Raises ConfigError without differences, for one that is not finite, or for n_resamples below 1.
    """
    values_Q = _as_values(differences, n_resamples)
    moved_Q = np.abs(values_Q[values_Q != 0])
    # Sums of the same numbers in a different order differ in the last digits, but must count as equal.
    least = abs(values_Q.sum()) - 1e-9 * moved_Q.sum()
    if len(moved_Q) <= _EXACT_AT_MOST:
        return RandomisationTest(p=float((np.abs(_all_sums(moved_Q)) >= least).mean()), is_exact=True)
    rng = np.random.default_rng(seed)
    n_extreme = 0
    for rows in _chunks(n_resamples, len(moved_Q)):
        signs = rng.integers(2, size=(rows, len(moved_Q)), dtype=np.int8) * 2.0 - 1.0
        n_extreme += int((np.abs(signs @ moved_Q) >= least).sum())
    return RandomisationTest(p=(n_extreme + 1) / (n_resamples + 1), is_exact=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for multiple comparisons: return adjusted p-values in the given order.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = [0.0] * len(p_values)
    greatest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = greatest
    return corrected


def _as_values(values: Sequence[float], n_resamples: int) -> Values:
    if not len(values):
        raise ConfigError("found no query to resample; expected at least one")
    if n_resamples < 1:
        raise ConfigError(f"expected at least 1 resample, found {n_resamples}")
    values_Q = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values_Q).all():
        bad = int(np.flatnonzero(~np.isfinite(values_Q))[0])
        raise ConfigError(f"value {bad + 1} of {len(values_Q)} is {values_Q[bad]}, expected a finite number")
    return values_Q


def _all_sums(values: Values) -> Values:
    """Return the sums of the values under all 2 ** n sign patterns."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _chunks(n_rows: int, n_columns: int) -> Iterator[int]:
    """Yield row counts that add up to n_rows, each limited to _CELLS numbers."""
    most = max(1, _CELLS // max(1, n_columns))
    for begin in range(0, n_rows, most):
        yield min(most, n_rows - begin)
