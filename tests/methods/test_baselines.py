"""Counting baselines by hand; every predictor gives distributions and sees training users only."""

import dataclasses

import numpy as np
import pytest

from bua_jax.basics import config as configs
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows, sample_windows
from bua_jax.methods import encoder_adjusted, lightgbm, neural
from bua_jax.methods.majority import fit_majority
from bua_jax.methods.markov import fit_markov
from bua_jax.methods.markov_counts import fit_markov_counts
from bua_jax.methods.protocol import window_counts
from bua_jax.methods.window_majority import WindowMajority, fit_window_majority
from bua_jax.models.encoders import EncoderConfig
from bua_jax.training.events import EncoderSettings, train_encoder
from tests.events.stores import store_of
from tests.support.histories import histories_of, of

METHODS = configs.load("configs/base.py").methods


@pytest.fixture(scope="module")
def store() -> EventStore:
    return simulated_store(30, 20, 3)


@pytest.fixture(scope="module")
def test_histories(store):
    windows = sample_windows(prediction_windows(store, "test"), 50, 0)
    return histories_of(store, windows, 40)


def test_window_counts_ignore_padding():
    assert window_counts(of([[1, 1, 2], [0]]), 3).tolist() == [[0, 2, 1], [1, 0, 0]]


def test_window_majority_breaks_ties_by_label_order():
    method = WindowMajority(np.asarray([0.1, 0.2, 0.7]), 0.5)
    found = method(of([[2, 1, 1, 2], [2, 2, 1]]))
    assert found.argmax(1).tolist() == [1, 2]
    assert np.allclose(found.sum(1), 1)


def test_markov_by_hand():
    behaviours = [[0, 1, 0, 1, 0, 2]] * 8 + [[2, 2, 2, 2, 2, 2]] * 2
    people = [[(0, i, 0, b) for i, b in enumerate(row)] for row in behaviours]
    made = store_of(people, split=[0] * 8 + [1, 2])
    method = fit_markov(made, METHODS.markov)
    # transitions of training users: 0->1 twice, 1->0 twice, 0->2 once, eight times each
    size = len(made.catalogue.behaviours)
    expected = np.full((size, size), 0.1)
    expected[0, 1] += 16
    expected[1, 0] += 16
    expected[0, 2] += 8
    assert np.allclose(method.transitions, expected / expected.sum(1, keepdims=True))


def fitted(store: EventStore):
    held = sample_windows(prediction_windows(store, "validation"), 80, 0)
    training = sample_windows(prediction_windows(store, "train"), 300, 0)
    validation = histories_of(store, held, 40)
    classes = len(store.catalogue.behaviours)
    config = EncoderConfig("sasrec", classes, 48, dim=8, num_layers=1, num_heads=1)
    settings = EncoderSettings(epochs=1, batch=16)
    few = METHODS.lightgbm.copy_and_resolve_references()
    few.rounds = 3
    return [
        fit_majority(store),
        fit_window_majority(store, METHODS.window_majority),
        fit_markov(store, METHODS.markov),
        fit_markov_counts(store, *validation, METHODS),
        lightgbm.fit(histories_of(store, training, 40), validation, classes, 48, 0, few),
        neural.predictor(config, train_encoder(config, store, settings)[0]),
    ]


def test_every_predictor_gives_distributions_and_never_reads_test_users(store, test_histories):
    seen, _ = test_histories
    poisoned = store.behaviour.copy()
    for user in store.users_of_split("test"):
        part = slice(store.offsets[user], store.offsets[user + 1])
        poisoned[part] = (poisoned[part] + 5) % len(store.catalogue.behaviours)
    other = dataclasses.replace(store, behaviour=poisoned)
    for one, two in zip(fitted(store), fitted(other), strict=True):
        found = one(seen)
        assert found.shape == (50, len(store.catalogue.behaviours))
        assert np.allclose(found.sum(1), 1, atol=1e-6)
        assert (found >= 0).all()
        assert np.array_equal(found, two(seen)), one


def test_lightgbm_features_read_no_padding(test_histories):
    seen, _ = test_histories
    short = dataclasses.replace(seen, n_events=np.minimum(seen.n_events, 12))
    dirty = short.fields.copy()
    dirty[:, 12:, 3] = 7
    dirty[:, 12:, 1] = 3
    clean = lightgbm.features(short, 37, 48)
    assert np.array_equal(
        clean, lightgbm.features(dataclasses.replace(short, fields=dirty), 37, 48)
    )


def test_logit_adjustment():
    probabilities = np.asarray([[0.6, 0.4], [0.9, 0.1]])
    shares = np.asarray([0.8, 0.2])
    assert np.allclose(encoder_adjusted.adjust(probabilities, shares, 0), probabilities)
    adjusted = encoder_adjusted.adjust(probabilities, shares, 1.0)
    assert adjusted[0].tolist() == pytest.approx([0.75 / 2.75, 2 / 2.75])
    # both right without adjustment; tau grows until the first would turn wrong
    settings, right = METHODS.encoder_adjusted, np.asarray([0, 0])
    tau = encoder_adjusted.match_tau(probabilities, right, shares, 1.0, settings)
    assert 0 < tau < 0.3
    assert encoder_adjusted.match_tau(probabilities, right, shares, 1.1, settings) == 0
