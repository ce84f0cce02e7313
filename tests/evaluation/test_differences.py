"""Intervals over seeds and people hold what they say, on synthetic tables whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bua_jax.evaluation.counts import BINS, Counts, count, metrics
from bua_jax.evaluation.differences import (
    Difference,
    Variance,
    difference,
    holm,
    pseudo_values,
    seeds_needed,
    table,
    variance,
)

PEOPLE, TABLES = 60, 1000
SPREADS = (0.5, 1.5, 3.0)  # a seed's standard deviation, in points
COVERED, CALLED = (0.91, 0.975), (0.025, 0.09)  # of 95 %, and of an A/A experiment


def rec_w(counts: Counts) -> np.ndarray:
    return counts.hits.sum(1) / counts.support.sum(1)


def counted(hits: np.ndarray, windows: np.ndarray) -> Counts:
    """Of one class, with hits and windows int[P]."""
    zeros = np.zeros(len(hits))
    support, right = windows[:, None].astype(float), hits[:, None].astype(float)
    nothing = np.zeros((len(hits), 3, BINS))
    return Counts(support, right, right, np.zeros((len(hits), 2)), zeros, nothing, False)


def drawn(
    rng: np.random.Generator, seeds: int, spread: float, effect: float
) -> tuple[list[Counts], list[Counts]]:
    """Two methods' counts by seed, about the same windows: the first is better by `effect` points.

    A person is as hard for both, and the first is better or worse for some; each window is as hard for
    both, and for all seeds.
    """
    windows = rng.integers(5, 40, PEOPLE)
    person = 0.45 + 0.10 * rng.standard_normal(PEOPLE)
    better = effect / 100 + 0.04 * rng.standard_normal(PEOPLE)
    owner = np.repeat(np.arange(PEOPLE), windows)
    hard = stats.norm.ppf(rng.random(len(owner)))
    both: tuple[list[Counts], list[Counts]] = ([], [])
    for _ in range(seeds):
        for side, shift in zip(both, (better, np.zeros(PEOPLE)), strict=True):
            p = np.clip(person + shift + spread / 100 * rng.standard_normal(), 0.02, 0.98)
            own = 0.8**0.5 * hard + 0.2**0.5 * rng.standard_normal(len(owner))
            right = own < stats.norm.ppf(p)[owner]
            side.append(counted(np.bincount(owner, right, PEOPLE), windows))
    return both


Interval = Callable[[list[Counts], list[Counts]], tuple[float, float]]


def paired(ones: list[Counts], others: list[Counts]) -> tuple[float, float]:
    found = difference(table(ones, rec_w) - table(others, rec_w))
    return found.low, found.high


def unpaired(ones: list[Counts], others: list[Counts]) -> tuple[float, float]:
    """As if the two were about other people: what must fail."""
    one, other = (difference(table(side, rec_w)) for side in (ones, others))
    reach = np.hypot(one.high - one.value, other.high - other.value)
    return one.value - other.value - reach, one.value - other.value + reach


def over_windows(ones: list[Counts], others: list[Counts]) -> tuple[float, float]:
    """As if windows of all seeds were drawn each for itself: what must fail."""
    n = sum(counts.support.sum() for counts in ones)
    p, q = (sum(counts.hits.sum() for counts in side) / n for side in (ones, others))
    reach = 1.96 * np.sqrt((p * (1 - p) + q * (1 - q)) / n)
    return p - q - reach, p - q + reach


def coverage(interval: Interval, seeds: int, spread: float, effect: float, tables: int) -> float:
    rng = np.random.default_rng([seeds, round(10 * spread), round(effect)])
    inside = 0
    for _ in range(tables):
        low, high = interval(*drawn(rng, seeds, spread, effect))
        inside += low <= effect / 100 <= high
    return inside / tables


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [
        *((5, spread) for spread in SPREADS),
        (10, 1.5),
        *(pytest.param(10, spread, marks=pytest.mark.long) for spread in (0.5, 3.0)),
    ],
)
def test_the_interval_covers_the_truth(seeds: int, spread: float) -> None:
    covered = coverage(paired, seeds, spread, 3.0, TABLES)
    assert COVERED[0] <= covered <= COVERED[1]


@pytest.mark.parametrize("spread", SPREADS)
def test_a_method_differs_from_itself_as_rarely_as_said(spread: float) -> None:
    """An A/A experiment: two names, one truth, other seeds."""
    called = 1 - coverage(paired, 5, spread, 0.0, TABLES)
    assert CALLED[0] <= called <= CALLED[1]


def test_without_pairs_or_people_the_check_fails() -> None:
    """Negative controls: one interval is too wide, the other too narrow."""
    assert coverage(unpaired, 5, 0.5, 3.0, 300) > COVERED[1]
    assert coverage(over_windows, 5, 3.0, 3.0, 300) < COVERED[0]


def test_shares_of_a_mean_are_its_terms() -> None:
    """By hand: with one window each, a person's share in the accuracy is whether they were right."""
    whole, share = pseudo_values(counted(np.array([1, 0, 1, 1]), np.ones(4, int)), rec_w)
    assert whole == 0.75
    np.testing.assert_allclose(share, [1, 0, 1, 1])


def test_shares_of_every_metric_average_to_it() -> None:
    rng = np.random.default_rng(0)
    people, target, label = (rng.integers(0, n, 200) for n in (20, 5, 5))
    counts = count(people, target, label, 5, rng.dirichlet(np.ones(5), 200))
    groups = {"head": [0, 1], "medium": [2], "tail": [3, 4]}
    for name, value in metrics(counts.total(), groups, 1).items():
        whole, share = pseudo_values(counts, lambda c, name=name: metrics(c, groups, 1)[name])
        assert whole == value[0]
        assert share.mean() == pytest.approx(whole)
        assert np.isfinite(share).all()


def test_mean_squares_by_hand() -> None:
    """y = [[0, 2], [2, 8]]: rows 1 and 5, columns 1 and 5, mean 3; what is left is +-1."""
    found = variance(np.array([[0.0, 2.0], [2.0, 8.0]]))
    assert (found.of_seeds, found.of_people, found.rest) == (16.0, 16.0, 4.0)
    assert found.parts == (6.0, 6.0, 4.0)
    squared, freedom = found.of_mean()
    assert squared == pytest.approx(28 / 4)
    assert freedom == pytest.approx(28**2 / (16**2 + 16**2 + 4**2))


def test_few_seeds_give_an_interval_over_people_alone() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4, 30)) + 0.2
    found = difference(y)
    expected = stats.ttest_1samp(y.mean(0), 0)
    assert found.over == "people"
    assert found.p is None
    low, high = expected.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.by_seed == tuple(y.mean(1))


def test_of_one_seeds_spread_it_is_the_t_test_over_seeds() -> None:
    """People that answer alike: nothing but the seed varies."""
    by_seed = np.array([1.0, 2.0, 4.0, 4.5, 3.0])
    found = difference(np.repeat(by_seed[:, None], 50, 1))
    expected = stats.ttest_1samp(by_seed, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.probability == pytest.approx(1 - expected.pvalue / 2)


def test_equal_answers_differ_by_nothing() -> None:
    found: Difference = difference(np.zeros((5, 10)))
    assert (found.low, found.high, found.p, found.probability) == (0, 0, 1, 0.5)


def test_seeds_needed() -> None:
    """Effect 1, a seed's variance 1 and nothing else: the first n with (t.975 + t.8)^2 / n <= 1."""
    found = Variance(seeds=5, people=100, of_seeds=100.0, of_people=0.0, rest=0.0)
    needed = seeds_needed(found, 1.0)
    assert needed is not None

    def enough(n: int) -> bool:
        return float(stats.t.ppf([0.975, 0.8], n - 1).sum()) ** 2 <= n

    assert enough(needed)
    assert not enough(needed - 1)
    spread = Variance(seeds=5, people=100, of_seeds=0.0, of_people=5e4, rest=0.0)
    assert seeds_needed(spread, 1.0) is None  # it takes more people


def test_holm_as_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == {"a": pytest.approx(0.03), "c": pytest.approx(0.06), "b": pytest.approx(0.06)}
