"""Predictions are made once for what they depend on."""

from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.evaluation.kept import Predicted, predictions, read_predictions, values

ONE = Predicted(
    np.asarray([[0.1, 0.9], [0.0, 0.0], [1 / 3, 2 / 3]]),
    [{"summary": "<ü>"}, {}, {"summary": ""}],
    {"fields": ["slot"]},
)


def never() -> Predicted:
    raise AssertionError


def test_predictions_come_back_as_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "one.parquet"
    assert predictions(path, "a", lambda: ONE) == (ONE, True)
    again, new = predictions(path, "a", never)
    assert not new
    np.testing.assert_array_equal(again.probabilities, ONE.probabilities)
    assert (again.texts, again.facts) == (ONE.texts, ONE.facts)
    assert again.labels.tolist() == [1, -1, 1]
    bare = Predicted(ONE.probabilities)
    predictions(path, "b", lambda: bare)  # of something else: made anew
    assert read_predictions(path).texts == []
    with pytest.raises(AssertionError):
        predictions(path, "a", never)


@pytest.mark.parametrize("keep", [0, 9, -5])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "one.parquet"
    predictions(path, "a", lambda: ONE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"one\.parquet is missing or damaged"):
        predictions(path, "a", never)


def test_values_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "days.json"
    assert values(path, "a", lambda: [1]) == [1]
    assert values(path, "a", never) == [1]
    assert values(path, "b", lambda: [2]) == [2]
    assert values(path, "b", never) == [2]
