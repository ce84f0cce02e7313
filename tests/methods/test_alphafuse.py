"""AlphaFuse: its space against numpy's decomposition, its scores by hand, 64 windows by heart."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from bua_jax.basics import config as configs
from bua_jax.methods import neural
from bua_jax.methods.alphafuse import language_part
from bua_jax.models.alphafuse import AlphaFuse
from bua_jax.training.events import Events, train
from tests.methods.memory import LENGTH, SETTINGS, memory_store, remembered

CONFIG = configs.load("configs/base.py")


def vectors_of(labels: int, width: int) -> np.ndarray:
    """Label vectors whose directions differ in variance by orders of magnitude."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(labels, width)) * np.logspace(0, -1.5, width) + rng.normal(size=width)


@pytest.mark.parametrize("most", [5, 64])
def test_the_language_part_is_that_of_the_covariance(most: int) -> None:
    """As the original: U, S of the covariance by numpy's SVD, projected, times S^-1/2; signs are free."""
    vectors = vectors_of(12, 30)
    found = language_part(vectors, 0.99, most)
    centred = vectors - vectors.mean(0)
    directions, variance, _ = np.linalg.svd(np.cov(vectors.T))
    count = min(most, 1 + int(np.argmax(np.cumsum(variance) / variance.sum() >= 0.99)))
    expected = centred @ directions[:, :count] / np.sqrt(variance[:count])
    assert found.shape == expected.shape
    signs = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-5)  # of float32
    np.testing.assert_allclose(np.cov(found.T), np.eye(count), atol=1e-5)


def test_directions_of_rounding_are_not_blown_up() -> None:
    """All of the variance is asked for: C centred labels span C - 1 directions, equal ones fewer."""
    assert language_part(vectors_of(12, 30), 1.0, 64).shape == (12, 11)
    twins = np.repeat(vectors_of(4, 30), 2, axis=0)
    found = language_part(twins, 1.0, 64)
    assert found.shape == (8, 3)
    np.testing.assert_allclose(found[::2], found[1::2], atol=1e-6)
    assert language_part(np.ones((5, 3)), 0.99, 64).shape == (5, 0)


def test_label_vectors_are_means_of_the_words_embeddings() -> None:
    base = neural.base_of(CONFIG)
    labels = ("watch video", "pay")
    table = np.asarray(base.params["embed_tokens"]["embedding"])
    expected = [table[base.tokenizer.encode(label)].mean(0) for label in labels]
    assert max(len(base.tokenizer.encode(label)) for label in labels) > 1
    np.testing.assert_allclose(neural.label_vectors(base, labels), expected, atol=1e-7)


def by_hand(params: Any, language: np.ndarray, fields: np.ndarray, count: int) -> np.ndarray:
    """float64[C]: the scores after the last of `count` events, one query at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * p[name]["scale"] + p[name]["bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[name]["kernel"] + p[name]["bias"]

    items = np.concatenate([language.astype(np.float64), p["ids"]], axis=1)
    x = items[fields[:count, 3]] + p["position"]["embedding"][:count]
    query = norm(x, "norm1")[-1]
    scores = dense(x, "key") @ dense(query, "query") / np.sqrt(x.shape[1])
    weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    y = norm(query + weights @ dense(x, "value"), "norm2")
    state = norm(y + dense(np.maximum(dense(y, "up"), 0), "down"), "norm")
    cosines = items @ state / np.linalg.norm(items, axis=1) / np.linalg.norm(state)
    return cosines / 0.07


def test_scores_by_hand_and_padding_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    language = language_part(vectors_of(9, 20), 0.99, 64)
    network = AlphaFuse(9, language.shape[1], 4, 6, 0.1, 0.07)
    variables = network.init(language, 0)
    moved = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape), variables["encoder"])
    fields = rng.integers(0, 9, (1, 6, 4))
    segments = np.asarray([[1, 1, 1, 1, 0, 0]])
    found = network.logits({**variables, "encoder": moved}, fields, segments)[0, 3]
    # float32 against float64, cosines divided by 0.07
    np.testing.assert_allclose(found, by_hand(moved, language, fields[0], 4), atol=1e-4)


def test_it_learns_64_windows_by_heart_and_leaves_language_alone() -> None:
    store = memory_store()
    base = neural.base_of(CONFIG)
    language = language_part(neural.label_vectors(base, store.catalogue.behaviours), 0.99, 64)
    network = AlphaFuse(37, language.shape[1], 64, LENGTH, 0.0, 0.07)
    settings = dataclasses.replace(SETTINGS, peak_lr=3e-3)
    variables = network.init(language, 0)
    before = neural.predictor_of(network, variables)
    assert remembered(before, store) < 0.2
    best = train(Events(network, store, settings), variables, {"encoder": 1.0}, None, {})
    assert set(best) == {"encoder"}
    assert remembered(neural.predictor_of(network, {**variables, **best}), store) >= 0.95
    assert "alphafuse" not in configs.load("configs/quickstart.py").evaluation.methods
