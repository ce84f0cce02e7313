"""A product of experts (Hinton, 2002): what BUA, its encoder and the history's counts say together.

p(c) is proportional to the product of p_k(c)^w_k. In log-probabilities that is multinomial logistic
regression with a weight per expert, which is convex: the weights are those of the lowest log-loss on
validation people about whom BUA was asked too (the set `match`). None of it is BUA: a row of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.legal import Real
from bua_jax.evaluation import results
from bua_jax.events.groups import training_shares
from bua_jax.methods import neural
from bua_jax.methods.protocol import (
    ROWS,
    About,
    Cases,
    Counted,
    Data,
    Histories,
    Method,
    Prediction,
    Site,
    window_counts,
)

EXPERTS = ("bua", "encoder", "counts")
_FLOOR = 1e-6  # one expert that is sure and wrong would forbid a label, whatever the others say


def counted(histories: Histories, shares: np.ndarray, prior_events: float) -> np.ndarray:
    """float64[n, C]: each history's own shares, with `prior_events` of the training shares float64[C]."""
    counts = window_counts(histories, len(shares)) + prior_events * shares
    return counts / counts.sum(1, keepdims=True)


def log_experts(*probabilities: np.ndarray) -> np.ndarray:
    """float64[n, K, C]: logarithms of K distributions float[n, C]."""
    return np.log(np.maximum(np.stack(probabilities, axis=1).astype(np.float64), _FLOOR))


def product(log_p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[n, C]: the normalised product of experts; `log_experts`, weights float64[K]."""
    from scipy.special import softmax  # scipy is imported by those alone who use it

    return softmax(np.einsum("nkc,k->nc", log_p, weights), axis=1)


def fit_weights(log_p: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """float64[K], none negative: the lowest mean log-loss plus penalty times the sum of their squares.

    log_p: `log_experts` of the windows whose next behaviours are `targets` int[n].
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    right = log_p[np.arange(len(targets)), :, targets]  # [n, K]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.einsum("nkc,k->nc", log_p, weights)
        value = np.mean(logsumexp(scores, axis=1) - right @ weights)
        expected = np.einsum("nkc,nc->nk", log_p, product(log_p, weights))
        slope = np.mean(expected - right, axis=0)
        return value + penalty * weights @ weights, slope + 2 * penalty * weights

    count = log_p.shape[1]
    start, bounds = np.full(count, 1 / count), [(0, None)] * count
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    if not found.success:
        notice(f"fused: its weights are not quite the best ones: {found.message}")
    return found.x


@dataclass(frozen=True)
class Fused:
    """The fitted product; cases carry what BUA said of them."""

    encoder: Counted
    shares: np.ndarray  # float64[C], of the training people's events
    prior_events: float
    weights: np.ndarray  # float64[K], of `EXPERTS`
    facts: Mapping[str, Any]
    rows: int = ROWS

    def log_p(self, cases: Cases, bua: np.ndarray) -> np.ndarray:
        """`log_experts` of cases about which BUA says `bua` float[n, C]."""
        encoder = self.encoder.probabilities(cases.arrays)
        return log_experts(bua, encoder, counted(cases.arrays, self.shares, self.prior_events))

    def predict(self, cases: Cases) -> Prediction:
        p = product(self.log_p(cases, cases.predicted["bua"]), self.weights)
        return Prediction(p.argmax(1).astype(np.int16), p)


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    said = results.read(site.inputs[_BUA].folder / results.FILE)
    cases, targets = data.validation.named(said.sample_id)
    encoder = neural.of_folder(site.inputs["encoder"].folder, {})
    settings, shares = site.config.methods.fused, training_shares(data.store)
    fresh = Fused(encoder, shares, settings.prior_events, np.zeros(len(EXPERTS)), {})
    weights = fit_weights(fresh.log_p(cases, said.distributions), targets, settings.penalty)
    values = {
        "shares": shares.tolist(),
        "prior_events": settings.prior_events,
        "weights": weights.tolist(),
    }
    files.write_json(site.folder / "weights.json", values)
    named = {f"weight_{name}": float(w) for name, w in zip(EXPERTS, weights, strict=True)}
    windows = said.about["facts"]["training_windows"]
    return {**named, "matched_windows": len(targets), "training_windows": windows}


def _load(site: Site) -> Fused:
    values = files.read_json(site.folder / "weights.json")
    encoder = neural.of_folder(site.inputs["encoder"].folder, {})
    shares, weights = np.asarray(values["shares"]), np.asarray(values["weights"])
    facts = site.inputs["fit/fused"].result
    return Fused(encoder, shares, values["prior_events"], weights, facts)


_BUA = "predict/bua/match"
METHOD = Method(
    "fused",
    About(
        "Fused",
        "a product of experts: BUA, its encoder and the history's counts",
        ("weekday", "slot", "place", "behaviour"),
        "windows",
    ),
    load=_load,
    fit=_fit,
    fit_sets=("fit_validation",),
    files=("weights.json",),
    needs=lambda config: ("encoder", _BUA),
    predicted_by=("bua",),
    legal={
        "prior_events": Real(0, above=True),
        "penalty": Real(0, above=True),
    },
)
