"""Floors that only count: majority, window majority, first-order Markov, and the last two mixed."""

from dataclasses import dataclass

import numpy as np

from bua_jax.events.groups import training_mask, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import Histories, window_counts

_SMOOTHING = 0.1  # added to every count
_PRIOR_EVENTS = 0.5  # weight of the training shares in a window's distribution, in events


@dataclass(frozen=True)
class Majority:
    """The training users' shares, whatever the history."""

    shares: np.ndarray
    num_training_windows: int
    name: str = "majority"
    fields: tuple[str, ...] = ()

    def predict(self, histories: Histories) -> np.ndarray:
        return np.tile(self.shares, (len(histories), 1))


@dataclass(frozen=True)
class WindowMajority:
    """The history's own shares; the training shares decide nothing but unseen behaviours."""

    shares: np.ndarray
    num_training_windows: int
    name: str = "window_majority"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        counts = window_counts(histories, len(self.shares))
        # The prior is the same for all seen behaviours, so that ties fall to label order.
        unseen = np.where(counts > 0, 0.0, self.shares)
        weight = _PRIOR_EVENTS * np.divide(
            unseen,
            unseen.sum(1, keepdims=True),
            out=np.zeros_like(unseen),
            where=unseen.sum(1, keepdims=True) > 0,
        )
        mixed = counts + np.minimum(weight, 0.999)
        return mixed / mixed.sum(1, keepdims=True)


@dataclass(frozen=True)
class Markov:
    """p(next | last behaviour) with additive smoothing; `transitions`: float64[C, C], rows sum to 1."""

    transitions: np.ndarray
    num_training_windows: int
    name: str = "markov"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        return self.transitions[histories.last(3)]


@dataclass(frozen=True)
class MarkovCounts:
    """weight * window shares + (1 - weight) * Markov; the weight is chosen on validation users."""

    window: WindowMajority
    markov: Markov
    weight: float
    num_training_windows: int
    name: str = "markov_counts"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        counted = self.window.predict(histories)
        return self.weight * counted + (1 - self.weight) * self.markov.predict(histories)


def fit_majority(store: EventStore) -> Majority:
    share = training_shares(store) + 1e-6
    return Majority(share / share.sum(), int(training_mask(store).sum()))


def fit_window_majority(store: EventStore) -> WindowMajority:
    return WindowMajority(fit_majority(store).shares, int(training_mask(store).sum()))


def fit_markov(store: EventStore) -> Markov:
    """Transitions between consecutive events of the same training user."""
    classes = len(store.catalogue.behaviours)
    owner = np.repeat(np.arange(len(store.users)), np.diff(store.offsets))
    pairs = training_mask(store)[1:] & (owner[1:] == owner[:-1])
    counts = np.full((classes, classes), _SMOOTHING)
    np.add.at(counts, (store.behaviour[:-1][pairs], store.behaviour[1:][pairs]), 1)
    return Markov(counts / counts.sum(1, keepdims=True), int(pairs.sum()))


def fit_markov_counts(
    store: EventStore, validation: Histories, validation_targets: np.ndarray
) -> MarkovCounts:
    """Chooses the mixing weight by validation log-loss."""
    window, markov = fit_window_majority(store), fit_markov(store)
    counted, chained = window.predict(validation), markov.predict(validation)
    rows = np.arange(len(validation_targets))

    def log_loss(weight: float) -> float:
        mixed = weight * counted + (1 - weight) * chained
        return -float(np.mean(np.log(mixed[rows, validation_targets])))

    weight = min(np.linspace(0.05, 0.95, 19), key=log_loss)
    return MarkovCounts(window, markov, float(weight), markov.num_training_windows)
