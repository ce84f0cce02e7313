"""Metrics of next-behaviour prediction (Appendix D)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.evaluation.counts import BINS, Counts, count, metrics

GROUPS = ("head", "medium", "tail")


def _checked(
    y_true: Any, y_pred: Any, probabilities: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) == 0:
        raise DataError(
            f"y_true and y_pred have shapes {true.shape} and {predicted.shape}; expected two non-empty "
            "vectors of one length."
        )
    if true.min() < 0 or predicted.min() < -1:
        raise DataError("Class ids start at 0; only y_pred may hold -1 (an invalid output).")
    if probabilities is None:
        return true, predicted, None
    table = np.asarray(probabilities, np.float64)
    if table.ndim != 2 or len(table) != len(true) or true.max() >= table.shape[1]:
        raise DataError(f"probabilities have shape {table.shape}; expected a row per window.")
    return true, predicted, table


def prediction_metrics(
    y_true: Any,
    y_pred: Any,
    groups: Mapping[str, Sequence[int]],
    probabilities: Any = None,
) -> dict[str, Any]:
    """All prediction metrics of one method.

    y_true, y_pred: int[n] class ids, -1 = invalid output, which counts as wrong; groups: head, medium,
    tail to class ids; probabilities: float[n, C] if the method gives a distribution.

    See `counts.metrics`; as printed, Eq. 6 weights by predictions, which makes it equal to the accuracy, so
    prec_w is weighted by support. An empty group is None. Raises `DataError` for malformed input.
    """
    true, predicted, table = _checked(y_true, y_pred, probabilities)
    classes = int(max(true.max(), predicted.max())) + 1 if table is None else table.shape[1]
    counts = count(np.zeros(len(true)), true, predicted, classes, table)
    return {**summary(counts, groups), "invalid": int(np.sum(predicted == -1))}


def summary(counts: Counts, groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The metrics of all people together, None for one of nothing; and how many windows there were."""
    total = counts.total()
    values = {name: float(value[0]) for name, value in metrics(total, groups).items()}
    support, hits = total.support[0], total.hits[0]
    present = np.flatnonzero(support)
    return {
        **{name: None if np.isnan(value) else value for name, value in values.items()},
        **{
            f"n_{name}": int(support[[c for c in groups.get(name, ()) if c < len(support)]].sum())
            for name in GROUPS
        },
        "n": int(support.sum()),
        "classes": {
            str(c): {"n": int(support[c]), "recall": float(hits[c] / support[c])} for c in present
        },
    }


class Calibration(NamedTuple):
    """Bins of equal width over the confidence that hold a window: their means, and the error."""

    confidence: np.ndarray  # float64[bins]
    accuracy: np.ndarray  # float64[bins]
    share: np.ndarray  # float64[bins], of the windows
    error: float


def calibration(confidence: Any, correct: Any) -> Calibration:
    """How far confidence float[n] (of the predicted class) and accuracy lie apart.

    error: the expected calibration error (Guo et al., 2017), sum of share |accuracy - confidence|.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    inside = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(inside, minlength=BINS)
    kept, count = count > 0, count[count > 0]
    mean, accuracy = (
        np.bincount(inside, x, minlength=BINS)[kept] / count for x in (confidence, correct)
    )
    share = count / len(confidence)
    return Calibration(mean, accuracy, share, float(share @ np.abs(mean - accuracy)))
