"""Statistics of ratings: agreement of judges, means, best shares, paired tests, power."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2_000
_NOTHING = 1e-9  # differences of means of whole numbers are none, or larger; below is rounding


class Estimate(NamedTuple):
    """A number and its 95 % interval over items."""

    value: float
    low: float
    high: float


class Pair(NamedTuple):
    """A difference between two sources over the same items."""

    difference: Estimate
    p: float  # of sign flips
    items_needed: (
        int | None
    )  # for 80 % power at this difference; None without one, or without a spread
    detectable: (
        float  # the smallest difference that as many items show with 80 % power; NaN likewise
    )


def krippendorff_ordinal(ratings: np.ndarray) -> float:
    """Krippendorff's alpha with the ordinal difference.

    ratings: float[J, U], of J judges about U units, whole numbers, NaN where a judge said nothing. NaN
    where no unit has two ratings, or all ratings are the same. Krippendorff, Content Analysis (2004), 11.3.
    """
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(0).astype(float)  # [U, V]
    of_unit = counts.sum(1)
    counts, of_unit = counts[of_unit >= 2], of_unit[of_unit >= 2]
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs -= counts[:, :, None] * np.eye(len(values))
    coincidences = (pairs / (of_unit - 1)[:, None, None]).sum(0)
    n = coincidences.sum(1)
    below = np.cumsum(n) - n / 2  # up to the middle of each value
    squared = (below[:, None] - below[None, :]) ** 2
    expected = (np.outer(n, n) * squared).sum()
    if not expected:
        return math.nan
    return float(1 - (n.sum() - 1) * (coincidences * squared).sum() / expected)


def best_share(scores: np.ndarray) -> np.ndarray:
    """float[S]: the share of items that each source is best in; m that tie have 1/m each.

    scores: float[N, S], averaged over judges.
    """
    best = np.isclose(scores, scores.max(1, keepdims=True))
    return (best / best.sum(1, keepdims=True)).mean(0)


def over_items(
    measure: Callable[[np.ndarray], np.ndarray], items: int, seed: int
) -> list[Estimate]:
    """The values of `measure(rows)`, rows int[items], with percentile intervals of a bootstrap over items."""
    rng = np.random.default_rng(seed)
    drawn = [measure(rng.integers(0, items, items)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(np.asarray(drawn), (2.5, 97.5), axis=0)
    values = measure(np.arange(items))
    return [Estimate(*map(float, one)) for one in zip(values, low, high, strict=True)]


def paired(a: np.ndarray, b: np.ndarray, seed: int) -> Pair:
    """a, b: float[N], two sources' scores of the same items, averaged over judges; N >= 2."""
    y = a - b
    (found,) = over_items(lambda rows: np.asarray([y[rows].mean()]), len(y), seed)
    flips = stats.permutation_test(
        (y,),
        np.mean,
        permutation_type="samples",
        n_resamples=9_999,
        rng=np.random.default_rng(seed),
    )
    spread = float(np.std(y, ddof=1))
    reach = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    if spread < _NOTHING:  # items that all say the same do not tell how others would differ
        return Pair(found, float(flips.pvalue), None, math.nan)
    seen = abs(found.value) >= _NOTHING
    needed = math.ceil((reach * spread / found.value) ** 2) if seen else None
    return Pair(found, float(flips.pvalue), needed, reach * spread / math.sqrt(len(y)))
