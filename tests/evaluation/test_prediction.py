"""Prediction metrics against scikit-learn and hand-computed cases."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from bua_jax.basics.errors import DataError
from bua_jax.evaluation.prediction import (
    calibration,
    prediction_metrics,
)

GROUPS = {"head": [0, 1], "medium": [2], "tail": [3, 4]}


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, 300), rng.integers(-1, 5, 300)
    table = rng.dirichlet(np.ones(5), 300)
    return true, predicted, table


def test_equals_scikit_learn(case):
    true, predicted, table = case
    found = prediction_metrics(true, predicted, GROUPS, table)
    labels = np.unique(true)
    assert found["rec_w"] == pytest.approx(sk.accuracy_score(true, predicted), abs=1e-12)
    recalls = sk.recall_score(true, predicted, labels=labels, average=None, zero_division=0)
    assert found["overall"] == pytest.approx(recalls.mean(), abs=1e-12)
    assert found["head"] == pytest.approx(recalls[:2].mean(), abs=1e-12)
    assert found["prec_w"] == pytest.approx(
        sk.precision_score(true, predicted, labels=labels, average="weighted", zero_division=0)
    )
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(true, predicted, labels=labels, average="macro", zero_division=0)
    )
    assert found["log_loss"] == pytest.approx(sk.log_loss(true, table, labels=range(5)), abs=1e-9)
    assert found["hr@3"] == pytest.approx(
        sk.top_k_accuracy_score(true, table, k=3, labels=range(5)), abs=1e-12
    )


def test_calibration_equals_scikit_learn(case):
    true, _, table = case
    confidence, correct = table.max(1), table.argmax(1) == true
    found = calibration(confidence, correct)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.confidence == pytest.approx(mean)
    ece = prediction_metrics(true, true, GROUPS, table)["ece"]
    assert ece == pytest.approx(found.error, abs=1e-12)  # summed in another order


def test_calibration_by_hand():
    """Three at 0.95, two right; one at 0.2, wrong; a confidence of 1 is in the last bin."""
    found = calibration([0.95, 0.95, 1.0, 0.25], [1, 1, 0, 0])
    assert found.share.tolist() == [0.25, 0.75]
    assert found.error == pytest.approx(0.25 * 0.25 + 0.75 * abs(2 / 3 - 2.9 / 3))
    assert calibration([0.5] * 4, [1, 0, 1, 0]).error == 0


def test_by_hand():
    found = prediction_metrics([0, 0, 1, 2, 2, 2], [0, -1, 1, 2, 2, 0], GROUPS)
    assert found["rec_w"] == pytest.approx(4 / 6)
    assert found["overall"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert found["head"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["tail"] is None  # no tail window: null, not zero
    assert found["n_tail"] == 0
    assert found["invalid"] == 1
    assert found["overall_min20"] is None
    # precision of 0: 1 of 2, of 1: 1 of 1, of 2: 2 of 2; weighted by support 2, 1, 3
    assert found["prec_w"] == pytest.approx((2 * 0.5 + 1 * 1 + 3 * 1) / 6)


def test_eq_6_as_printed_is_the_accuracy(case):
    true, predicted, _ = case
    total = hits = 0
    for c in range(5):
        positives = int((predicted == c).sum())
        right = int(((predicted == c) & (true == c)).sum())
        if positives:
            total += positives
            hits += positives * (right / positives)
    valid = predicted >= 0
    assert hits / total == pytest.approx(np.mean(predicted[valid] == true[valid]))


def test_ties_are_broken_by_label_order():
    found = prediction_metrics([1, 0], [0, 0], GROUPS, [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]])
    assert found["hr@3"] == 1.0
    assert prediction_metrics([3], [0], GROUPS, [[0.25] * 4])["hr@3"] == 0.0


@pytest.mark.parametrize(
    ("true", "predicted", "table"),
    [
        ([], [], None),
        ([0], [0, 1], None),
        ([-1], [0], None),
        ([0], [-2], None),
        ([0], [0], [[1], [1]]),
    ],
)
def test_malformed_input_is_refused(true, predicted, table):
    with pytest.raises(DataError):
        prediction_metrics(true, predicted, GROUPS, table)
