"""Weights that follow from the norms of the units' gradients, the roots of the Gram matrix's diagonal.

Methods in numpy, as `training.weighting.Balancer` says: losses float64[K] and gram float64[K, K] of the
units that are there, all with a gradient. The weights are those of the batch at hand.
"""

from typing import Any, NamedTuple

import numpy as np

from bua_jax.training.balancers.losses import FLOOR, Moments, adam, moments
from bua_jax.training.weighting import Balancer

_LEAST = 1e-3  # a weight of GradNorm, whose steps could make it negative


class GradNorm(NamedTuple):
    """GradNorm's weights, their Adam, and the units' first losses; float[K]."""

    weights: np.ndarray
    moments: Moments
    initial: np.ndarray


def gradnorm(alpha: float = 1.5, rate: float = 0.025) -> Balancer:
    """GradNorm (Chen et al., 1711.02257): units that learn slower get a larger gradient.

    N = |w g| is drawn towards mean(N) r^alpha, r = (l / first l) / mean, by Adam on the L1 distance, in
    which the target is a constant. The weights of those that are there keep their sum.
    """

    def init(count: int) -> GradNorm:
        return GradNorm(np.ones(count), moments(count), np.full(count, np.nan))

    def combine(losses: Any, gram: Any, state: GradNorm, rng: Any, validation: Any) -> Any:
        bounded = np.maximum(losses, FLOOR)
        initial = np.where(np.isnan(state.initial), bounded, state.initial)
        speed = bounded / initial
        norm = np.sqrt(np.diag(gram))
        weighted = state.weights * norm
        target = weighted.mean() * (speed / speed.mean()) ** alpha
        slope = np.sign(weighted - target) * norm
        moved, own = adam(state.weights, slope, state.moments, rate)
        moved = np.maximum(moved, _LEAST)
        moved *= state.weights.sum() / moved.sum()
        return state.weights, GradNorm(moved, own, initial)

    return Balancer(init, combine, gram=True)


def norm_ema(decay: float = 0.9) -> Balancer:
    """Gradients of an equal norm (Wang et al., 2308.08468, jaxpi): w = EMA of mean(|g|) / |g_k|, from 1."""

    def combine(losses: Any, gram: Any, weights: Any, rng: Any, validation: Any) -> Any:
        norm = np.sqrt(np.diag(gram))
        weights = decay * weights + (1 - decay) * norm.mean() / norm
        return weights, weights

    return Balancer(np.ones, combine, gram=True)


class Averages(NamedTuple):
    """An average of norms and the sum of its weights, float[K]."""

    total: np.ndarray
    weight: np.ndarray


def encodec(norm: float = 1.0, decay: float = 0.999) -> Balancer:
    """EnCodec's balancer (Defossez et al., 2210.13438): each unit has a K-th of a gradient's norm.

    w = norm / K / |g_k|, of norms averaged with `decay` over the steps in which the unit was there.
    """

    def combine(losses: Any, gram: Any, state: Averages, rng: Any, validation: Any) -> Any:
        state = Averages(decay * state.total + np.sqrt(np.diag(gram)), decay * state.weight + 1)
        return norm * state.weight / state.total / len(losses), state

    return Balancer(lambda count: Averages(*np.zeros((2, count))), combine, gram=True)
