"""Counts of predictions per person: every metric, and every resampling of people, is a function of sums.

A `Counts` holds one or more totals on its first axis: a total per person, the one of everybody, or one
per resample. Metrics are those of Appendix D.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

BINS = 10
"""Of equal width, over the confidence in the predicted class."""


@dataclass(frozen=True)
class Totals:
    """Arrays float64[R, ...] that add up over people; what is no array is the same of all."""

    def _arrays(self) -> dict[str, np.ndarray]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def __len__(self) -> int:
        return len(next(iter(self._arrays().values())))

    def combined(self, weights: np.ndarray) -> Self:
        """Weighted sums of the totals: weights float64[S, R] -> S totals."""
        sums = {name: np.tensordot(weights, one, 1) for name, one in self._arrays().items()}
        return replace(self, **sums)

    def total(self) -> Self:
        """One total, of all."""
        return self.combined(np.ones((1, len(self))))

    def without_each(self) -> Self:
        """Of each total the sum of all others."""
        whole = self.total()._arrays()
        return replace(self, **{name: whole[name] - one for name, one in self._arrays().items()})


@dataclass(frozen=True)
class Counts(Totals):
    """Totals float64[R, ...]; what needs a distribution is absent (zeros) where there is none."""

    support: np.ndarray  # [R, C] windows of each class
    predicted: np.ndarray  # [R, C] windows that each class was predicted for
    hits: np.ndarray  # [R, C] both
    top: np.ndarray  # [R, 2] windows whose class is among the likeliest 3, 5
    nll: np.ndarray  # [R] sum of -log p(class)
    bins: np.ndarray  # [R, 3, BINS] by confidence: windows, sum of confidences, hits
    has_distribution: bool = True


def count(
    people: np.ndarray,
    target: np.ndarray,
    label: np.ndarray,
    classes: int,
    probability: np.ndarray | None = None,
) -> Counts:
    """Counts per person, in the order of np.unique(people).

    people: [n] whose each window is; target, label: int[n], -1 = no label could be read; probability:
    float[n, C].
    """
    owner = np.unique(people, return_inverse=True)[1].astype(np.int64)
    size, hit = int(np.max(owner)) + 1, label == target

    def table(values: np.ndarray, mask: Any = True, width: int = classes, by: Any = None):
        kept = np.flatnonzero(np.broadcast_to(mask, owner.shape))
        weights = None if by is None else by[kept]
        flat = np.bincount(owner[kept] * width + values[kept], weights, size * width)
        return flat.astype(float).reshape(size, width)

    top, bins = np.zeros((size, 2)), np.zeros((size, 3, BINS))
    nll: np.ndarray = np.zeros(size)
    if probability is not None:
        p = np.asarray(probability, np.float64)
        order = np.argsort(-p, axis=1, kind="stable")  # ties by label order
        rank = (order == target[:, None]).argmax(1)
        for column, least in enumerate((3, 5)):
            top[:, column] = np.bincount(owner, rank < least, size)
        picked = np.clip(p[np.arange(len(p)), target], np.finfo(np.float64).tiny, None)
        nll = np.bincount(owner, -np.log(picked), size)
        confidence, first = p.max(1), order[:, 0] == target
        inside = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
        for row, by in enumerate((None, confidence, first.astype(float))):
            bins[:, row] = table(inside, width=BINS, by=by)
    support, predicted = table(target), table(label, label >= 0)
    return Counts(support, predicted, table(target, hit), top, nll, bins, probability is not None)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio; 0 where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.zeros_like(numerator), where=np.asarray(denominator) > 0
    )


def _mean_over(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """[R]: mean of values [R, C] over the members bool[R, C]; NaN where there are none."""
    count = members.sum(1)
    with np.errstate(invalid="ignore"):
        return (values * members).sum(1) / np.where(count, count, np.nan)


def metrics(
    counts: Counts, groups: Mapping[str, Sequence[int]], least: int = 20
) -> dict[str, np.ndarray]:
    """Each metric float64[R]; NaN where it is of nothing.

    groups: head, medium, tail to class ids. rec_w: accuracy (HR@1). prec_w: precision weighted by class
    support. overall, head, medium, tail: recall averaged over classes (Eqs. 8 to 11) that occur;
    overall_min20: over those with at least `least` windows. ece: see `prediction.calibration`.
    """
    n, occurs = counts.support.sum(1), counts.support > 0
    recall = _ratio(counts.hits, counts.support)
    precision = _ratio(counts.hits, counts.predicted)
    f1 = _ratio(2 * counts.hits, counts.support + counts.predicted)
    found = {
        "rec_w": counts.hits.sum(1) / n,
        "prec_w": (precision * counts.support).sum(1) / n,
        "overall": _mean_over(recall, occurs),
        "overall_min20": _mean_over(recall, counts.support >= least),
        "macro_f1": _mean_over(f1, occurs),
    }
    for name in ("head", "medium", "tail"):
        member = np.zeros(occurs.shape[1], bool)
        member[[c for c in groups.get(name, ()) if c < len(member)]] = True
        found[name] = _mean_over(recall, occurs & member)
    if counts.has_distribution:
        found |= {
            "hr@3": counts.top[:, 0] / n,
            "hr@5": counts.top[:, 1] / n,
            "log_loss": counts.nll / n,
            "ece": np.abs(counts.bins[:, 1] - counts.bins[:, 2]).sum(1) / n,
        }
    return found


def resamples(people: int, count: int, seed: int) -> np.ndarray:
    """float64[count, people]: how often each of the people is drawn, with replacement."""
    draws = np.random.default_rng(seed).integers(0, people, (count, people))
    flat = np.arange(count)[:, None] * people + draws
    return np.bincount(flat.ravel(), minlength=count * people).reshape(count, people).astype(float)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resampled values."""
    low, high = np.nanquantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
