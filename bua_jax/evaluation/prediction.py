"""Metrics of next-behaviour prediction (Appendix D) and intervals over users."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import f1_score, precision_score

from bua_jax.basics.errors import DataError

_LEAST_WINDOWS = 20


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


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

    rec_w: accuracy (HR@1). prec_w: precision weighted by class support; as printed, Eq. 6 weights by
    predictions, which makes it equal to the accuracy. overall, head, medium, tail: recall averaged
    over classes (Eqs. 8-11) that occur in y_true; an empty group is None. overall_min20: over classes
    with at least 20 windows. ece: see `calibration`. Raises `DataError` for malformed input.
    """
    true, predicted, table = _checked(y_true, y_pred, probabilities)
    present = np.unique(true)
    recall = {int(c): float(np.mean(predicted[true == c] == c)) for c in present}
    support = {int(c): int(np.sum(true == c)) for c in present}
    metrics: dict[str, Any] = {
        "rec_w": float(np.mean(true == predicted)),
        "prec_w": float(
            precision_score(true, predicted, labels=present, average="weighted", zero_division=0)
        ),
        "overall": _mean(list(recall.values())),
    }
    for name in ("head", "medium", "tail"):
        members = [c for c in groups.get(name, ()) if c in recall]
        metrics[name] = _mean([recall[c] for c in members])
        metrics[f"n_{name}"] = sum(support[c] for c in members)
    frequent = [recall[c] for c in recall if support[c] >= _LEAST_WINDOWS]
    metrics |= {
        "overall_min20": _mean(frequent),
        "macro_f1": float(
            f1_score(true, predicted, labels=present, average="macro", zero_division=0)
        ),
        "n": len(true),
        "invalid": int(np.sum(predicted == -1)),
        "classes": {str(c): {"n": support[c], "recall": recall[c]} for c in recall},
    }
    if table is not None:
        rows = np.arange(len(true))
        order = np.argsort(-table, axis=1, kind="stable")  # ties by label order
        rank = (order == true[:, None]).argmax(1)
        picked = np.clip(table[rows, true], np.finfo(np.float64).tiny, None)
        metrics |= {
            "hr@3": float(np.mean(rank < 3)),
            "hr@5": float(np.mean(rank < 5)),
            "log_loss": -float(np.mean(np.log(picked))),
            "ece": calibration(table.max(1), order[:, 0] == true).error,
        }
    return metrics


class Calibration(NamedTuple):
    """Bins of equal width over the confidence that hold a window: their means, and the error."""

    confidence: np.ndarray  # float64[bins]
    accuracy: np.ndarray  # float64[bins]
    share: np.ndarray  # float64[bins], of the windows
    error: float


def calibration(confidence: Any, correct: Any, bins: int = 10) -> Calibration:
    """How far confidence float[n] (of the predicted class) and accuracy lie apart.

    error: the expected calibration error (Guo et al., 2017), sum of share |accuracy - confidence|.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    inside = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(inside, minlength=bins)
    kept, count = count > 0, count[count > 0]
    mean, accuracy = (
        np.bincount(inside, x, minlength=bins)[kept] / count for x in (confidence, correct)
    )
    share = count / len(confidence)
    return Calibration(mean, accuracy, share, float(share @ np.abs(mean - accuracy)))


def _resampled_means(values: np.ndarray, users: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Means of `values` [n] over `count` resamples of whole users."""
    _, owner = np.unique(users, return_inverse=True)
    totals, sizes = np.bincount(owner, values), np.bincount(owner)
    draws = np.random.default_rng(seed).integers(0, len(sizes), (count, len(sizes)))
    return totals[draws].sum(1) / sizes[draws].sum(1)


def bootstrap_interval(
    values: np.ndarray, users: np.ndarray, *, count: int = 2000, seed: int = 42
) -> tuple[float, float]:
    """95 % interval of the mean of values float[n], resampling users (windows of one user are not
    independent)."""
    low, high = np.quantile(
        _resampled_means(np.asarray(values, float), users, count, seed), (0.025, 0.975)
    )
    return float(low), float(high)


def paired_bootstrap(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    users: np.ndarray,
    *,
    count: int = 2000,
    seed: int = 42,
) -> dict[str, float]:
    """Difference of two methods' accuracies on the same windows, with its 95 % interval over users."""
    difference = np.asarray(correct_a, float) - np.asarray(correct_b, float)
    low, high = bootstrap_interval(difference, users, count=count, seed=seed)
    return {"difference": float(difference.mean()), "low": low, "high": high}
