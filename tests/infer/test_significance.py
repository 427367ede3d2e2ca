"""Intervals and tests: closed forms, hand counts, and error rates where the truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rankllm_core.errors import ConfigError
from rankllm_infer.evaluation.significance import bootstrap_interval, holm, randomisation_test


@pytest.mark.parametrize(
    ("differences", "extreme", "patterns"),
    [
        # All on one side: only the pattern itself and its mirror image are as extreme.
        ([0.1, 0.2, 0.3], 2, 8),
        # |0.1 - 0.3| = 0.2; of ++, +-, -+, --: 0.4, 0.2, 0.2, 0.4 are all at least that.
        ([0.1, -0.3], 4, 4),
        # Sum 5 of {1, 2, 4} with signs: 7, 5, 3, 1 and their mirror images; 7 and 5 count.
        ([-1.0, 2.0, 4.0], 4, 8),
        # Sum 1 is the least possible of {1, 2, 4}.
        ([-1.0, -2.0, 4.0], 8, 8),
        ([0.5], 2, 2),
        # Zeros change nothing.
        ([0.0, 0.1, 0.0, 0.2, 0.3], 2, 8),
        ([0.0, 0.0], 1, 1),
        # 0.1 + 0.2 - 0.3 is not 0.0 in binary, but equal in fact: every pattern is as extreme.
        ([0.1, 0.2, -0.3], 8, 8),
    ],
)
def test_small_samples_count_every_sign_pattern(differences, extreme, patterns):
    """p is a fraction counted by hand, and the same for mirrored differences."""
    test = randomisation_test(differences)
    assert (test.p, test.is_exact) == (extreme / patterns, True)
    assert randomisation_test([-value for value in differences]).p == test.p


def test_the_exact_test_agrees_with_a_loop_over_all_patterns():
    """Ten differences, enumerated one by one."""
    differences = [0.31, -0.12, 0.05, 0.44, -0.2, 0.13, 0.0625, -0.01, 0.3, 0.27]
    observed = abs(math.fsum(differences))
    sums = [
        abs(math.fsum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    expected = sum(value >= observed - 1e-12 for value in sums) / 2**10
    assert randomisation_test(differences).p == pytest.approx(expected, abs=1e-12)


def test_drawn_patterns_come_near_the_exact_count():
    """17 equal differences: p is a two-sided binomial tail, 2 * P(at most 4 of 17 heads)."""
    differences = [0.1] * 13 + [-0.1] * 4
    exact = 2 * sum(math.comb(17, heads) for heads in range(5)) / 2**17
    test = randomisation_test(differences, n_resamples=100_000)
    assert not test.is_exact
    # Four standard errors of a proportion.
    assert test.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 100_000))


def test_drawn_patterns_never_give_zero():
    """The observed pattern is included: at least 1 of 1,001."""
    assert randomisation_test([1.0] * 50, n_resamples=1_000).p == 1 / 1_001


def test_without_an_effect_one_test_in_twenty_is_below_a_twentieth():
    """The definition of a p-value: 400 samples of 30 differences around zero."""
    rng = np.random.default_rng(7)
    p_values = [randomisation_test(rng.normal(size=30), n_resamples=500, seed=n).p for n in range(400)]
    n_below = sum(p <= 0.05 for p in p_values)
    # Binomial: 20 expected, standard deviation 4.4.
    assert 5 <= n_below <= 35


def test_the_interval_of_a_constant_has_no_width():
    """The mean is the same for every resample."""
    assert bootstrap_interval([0.25] * 9) == (0.25, 0.25)
    assert bootstrap_interval([0.7]) == (0.7, 0.7)


def test_the_interval_is_that_of_the_normal_law_for_many_values():
    """400 values, half 0 and half 1: mean 0.5, standard error 0.5 / 20 = 0.025, times 1.96 on each side."""
    low, high = bootstrap_interval([0.0, 1.0] * 200, n_resamples=20_000)
    assert (low, high) == (pytest.approx(0.451, abs=0.003), pytest.approx(0.549, abs=0.003))
    narrow = bootstrap_interval([0.0, 1.0] * 200, n_resamples=20_000, level=0.5)
    assert narrow == (pytest.approx(0.5 - 0.6745 * 0.025, abs=0.003), pytest.approx(0.5 + 0.6745 * 0.025, abs=0.003))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """300 samples of 40 values from 0 to 1, whose true mean is 0.5."""
    rng = np.random.default_rng(3)
    intervals = [bootstrap_interval(rng.random(40), n_resamples=500, seed=n) for n in range(300)]
    n_covered = sum(low <= 0.5 <= high for low, high in intervals)
    # 285 expected, standard deviation 3.8; percentile intervals are a little too narrow.
    assert 267 <= n_covered <= 297


def test_the_same_seed_gives_the_same_figures():
    """And a different seed gives different ones."""
    values = [0.1, 0.9, 0.4, 0.4, 0.8]
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    differences = [0.1, -0.05, 0.2] * 10
    first, again, other = (randomisation_test(differences, seed=seed).p for seed in (1, 1, 2))
    assert first == again != other


def test_large_samples_are_drawn_in_parts():
    """More numbers than are kept in memory: 10,000 queries, 1,000 resamples."""
    values = np.random.default_rng(0).random(10_000)
    low, high = bootstrap_interval(values, n_resamples=1_000)
    # The standard error of 10,000 uniform values is sqrt(1 / 12) / 100 = 0.0029.
    assert high - low == pytest.approx(2 * 1.96 * 0.002887, rel=0.12)
    assert randomisation_test(values - 0.5 + 0.02, n_resamples=1_000).p == 1 / 1_001


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        # Sorted .01 .02 .04, times 3, 2, 1.
        ([0.02, 0.04, 0.01], [0.04, 0.04, 0.03]),
        # .01 * 4, .03 * 3 = .09, .03 * 2 = .06 is raised to .09, .05 * 1 is raised to .09.
        ([0.03, 0.05, 0.01, 0.03], [0.09, 0.09, 0.04, 0.09]),
        # Nothing is above 1.
        ([0.6, 0.9], [1.0, 1.0]),
    ],
)
def test_holm_multiplies_the_smallest_most(p_values, corrected):
    """By hand; corrected values are monotonic."""
    assert holm(p_values) == pytest.approx(corrected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([]),
        lambda: randomisation_test([]),
        lambda: bootstrap_interval([1.0], n_resamples=0),
        lambda: randomisation_test([1.0], n_resamples=0),
        lambda: bootstrap_interval([1.0], level=1.0),
        lambda: bootstrap_interval([1.0, math.nan]),
        lambda: randomisation_test([0.5, math.nan]),
        lambda: randomisation_test([0.5, -math.inf]),
    ],
)
def test_what_cannot_be_computed_is_refused(call):
    """No values, a non-finite value, no resamples, a level that is not a probability."""
    with pytest.raises(ConfigError, match="expected"):
        call()
