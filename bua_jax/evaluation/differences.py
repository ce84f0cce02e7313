"""What two methods differ by, over seeds and people at once (design, experiments.md).

A metric is a function of sums over people; a person's share in it is their jackknife pseudo-value (Efron
and Tibshirani, 1993, chapter 11). A table y[seed, person] of such values has mean squares for seeds, people
and the rest, and its mean the variance (MS_seeds + MS_people - MS_rest) / (S P): seeds and people are both
drawn. The interval is Student's t with Satterthwaite's degrees of freedom. Two methods are paired: y is the
difference of their tables.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes a second to import

from bua_jax.evaluation.counts import Totals

Metric = Callable[[Any], np.ndarray]
"""Totals [R, ...] -> float64[R]."""
LEAST_SEEDS = 5
"""Of fewer seeds a variance says too little: intervals are then over people alone, and there is no p."""
LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Variance:
    """Mean squares of a table [S, P], and what they say of the parts of its variance."""

    seeds: int
    people: int
    of_seeds: float
    of_people: float
    rest: float

    @property
    def parts(self) -> tuple[float, float, float]:
        """Variance of a seed's effect, of a person's, and of what is left."""
        seed = max(0.0, (self.of_seeds - self.rest) / self.people)
        return seed, max(0.0, (self.of_people - self.rest) / self.seeds), self.rest

    def of_mean(self) -> tuple[float, float]:
        """(variance of the table's mean, degrees of freedom), seeds and people drawn."""
        degrees = self.seeds - 1, self.people - 1
        together = self.of_seeds + self.of_people - self.rest
        largest = max(self.of_seeds, self.of_people)
        if together <= largest:  # the rest is above one of them by chance: they hold it too
            freedom = degrees[self.of_people > self.of_seeds]
            return largest / (self.seeds * self.people), freedom
        squares = self.of_seeds**2 / degrees[0] + self.of_people**2 / degrees[1]
        squares += self.rest**2 / (degrees[0] * degrees[1])
        return together / (self.seeds * self.people), together**2 / squares


@dataclass(frozen=True)
class Difference:
    """Of a metric, first minus second method (or one method's own value)."""

    value: float  # mean over seeds
    by_seed: tuple[float, ...]
    low: float
    high: float
    over: str  # "seeds and people", or "people" where there are fewer than `LEAST_SEEDS` seeds
    probability: float  # that it is above zero
    p: float | None  # two-sided; None over people alone
    variance: Variance


def pseudo_values(counts: Totals, metric: Metric) -> tuple[float, np.ndarray]:
    """(metric of all people, each person's share float64[P], whose mean it is).

    Where the metric is of nothing without a person, that person's share is the metric.
    """
    whole, people = float(metric(counts.total())[0]), len(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = metric(counts.without_each())
    share = people * whole - (people - 1) * np.where(np.isnan(without), whole, without)
    return whole, share + (whole - share.mean())


def table(seeds: Sequence[Totals], metric: Metric) -> np.ndarray:
    """float64[S, P]: each person's share in each seed's metric."""
    return np.stack([pseudo_values(counts, metric)[1] for counts in seeds])


def variance(y: np.ndarray) -> Variance:
    """Mean squares of y float64[S, P]; those of seeds are zero where there is one."""
    seeds, people = y.shape
    by_seed, by_person, mean = y.mean(1), y.mean(0), y.mean()
    rest = y - by_seed[:, None] - by_person + mean
    return Variance(
        seeds,
        people,
        people * float(np.sum((by_seed - mean) ** 2)) / max(1, seeds - 1),
        seeds * float(np.sum((by_person - mean) ** 2)) / (people - 1),
        float(np.sum(rest**2)) / max(1, (seeds - 1) * (people - 1)),
    )


def difference(y: np.ndarray) -> Difference:
    """Of y float64[S, P], the difference of two methods' tables or one's own."""
    seeds, people = y.shape
    by_seed, value, found = tuple(map(float, y.mean(1))), float(y.mean()), variance(y)
    if seeds >= LEAST_SEEDS:
        squared, freedom = found.of_mean()
        over = "seeds and people"
    else:
        squared, freedom = found.of_people / (seeds * people), people - 1
        over = "people"
    error = math.sqrt(squared)
    if error == 0:  # the same answers everywhere
        same = value == 0
        p = (1.0 if same else 0.0) if seeds >= LEAST_SEEDS else None
        above = 0.5 if same else float(value > 0)
        return Difference(value, by_seed, value, value, over, above, p, found)
    t, reach = value / error, float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = float(2 * stdtr(freedom, -abs(t))) if seeds >= LEAST_SEEDS else None
    above = float(stdtr(freedom, t))
    return Difference(value, by_seed, value - reach, value + reach, over, above, p, found)


def seeds_needed(found: Variance, effect: float, most: int = 1000) -> int | None:
    """Seeds, at least `LEAST_SEEDS`, with which `effect` would be seen with 80 % power on these people.

    None where no number of seeds up to `most` would do: then it takes more people.
    """
    seed, person, rest = found.parts
    for count in range(LEAST_SEEDS, most + 1):
        squared = (seed + rest / found.people) / count + person / found.people
        quantiles = stdtrit(count - 1, [(1 + LEVEL) / 2, POWER])
        if effect**2 >= float(quantiles.sum()) ** 2 * squared:
            return count
    return None


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values of a family, corrected so that any false one is as rare as one alone (Holm, 1979)."""
    found, highest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p) - rank) * value))
        found[name] = highest
    return found
