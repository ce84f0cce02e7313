"""What a fresh projector is fitted to."""

import numpy as np
import pytest

from bua_jax.alignment.warm_start import word_targets
from bua_jax.events.schema import Catalogue
from tests.decoding.fakes import Bytes

CATALOGUE = Catalogue(("p", "q", "r"), 24, True)


def cosines(vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """float[N, K]."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T


def test_what_happened_and_what_is_expected_are_one_target_or_two() -> None:
    """Two events that differ in their label alone, after both of which the third label is expected."""
    table = np.random.default_rng(0).normal(size=(300, 256)).astype(np.float32)
    fields = np.asarray([[2, 8, 1, 0], [2, 8, 1, 1]])  # weekday, slot, place, behaviour
    logits = np.log(np.asarray([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]))
    words = table, Bytes(), CATALOGUE, fields, logits
    event, expected = word_targets(*words, recall=True)
    (mixed,) = word_targets(*words, recall=False)
    size = np.linalg.norm(table, axis=1).mean()
    for target in (event, expected, mixed):
        assert np.linalg.norm(target, axis=1).mean() == pytest.approx(size, rel=1e-5)
    labels = np.stack([table[Bytes().encode(label)[0]] for label in "pqr"])
    assert np.array_equal(expected[0], expected[1])
    assert cosines(expected, labels).argmax(1).tolist() == [2, 2]
    assert cosines(event, labels).argmax(1).tolist() == [0, 1]
    assert np.abs(cosines(event, labels)[:, 2]).max() < 0.15  # by chance: 256 dimensions
    assert (cosines(mixed, labels)[:, 2] > cosines(event, labels)[:, 2] + 0.1).all()
