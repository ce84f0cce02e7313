"""Weights that follow from the units' losses alone: no gradient is asked for, so they cost nothing.

Methods in numpy, as `training.weighting.Balancer` says: losses float64[K] of the units that are there.
The weights are the next step's.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from bua_jax.training.weighting import Balancer

FLOOR = 1e-3  # of losses that are divided by: a solved unit must not outweigh all others


def stateless(weigh: Any, gram: bool = False, signed: bool = False) -> Balancer:
    """The balancer of `weigh(losses, gram, rng) -> weights`, which remembers nothing."""
    return Balancer(
        lambda count: (),
        lambda losses, products, state, rng, validation: (weigh(losses, products, rng), state),
        gram=gram,
        signed=signed,
    )


# ------------------------------------------------------------------------------------ own gradients


class Moments(NamedTuple):
    """Adam's, of a number per unit; a unit that is not there keeps its own."""

    first: np.ndarray  # float[K]
    second: np.ndarray  # float[K]
    steps: np.ndarray  # float[K]: how often the unit was there


def moments(count: int) -> Moments:
    """Before the first step."""
    return Moments(*np.zeros((3, count)))


def adam(
    value: np.ndarray, gradient: np.ndarray, before: Moments, rate: float
) -> tuple[np.ndarray, Moments]:
    """One step of Adam (Kingma & Ba, 1412.6980; decays 0.9 and 0.999) for float[K]."""
    first = 0.9 * before.first + 0.1 * gradient
    second = 0.999 * before.second + 0.001 * gradient**2
    steps = before.steps + 1
    size = np.sqrt(second / (1 - 0.999**steps)) + 1e-8
    return value - rate * first / (1 - 0.9**steps) / size, Moments(first, second, steps)


def uncertainty(rate: float = 0.025) -> Balancer:
    """Learned variances (Kendall et al., 1705.07115): minimises l / (2 e^s) + s / 2; w = 1 / (2 e^s).

    rate: of gradient descent in s, whose fixed point is s = log l, w = 1 / (2 l).
    """

    def combine(losses: Any, gram: Any, s: Any, rng: Any, validation: Any) -> Any:
        s = s - rate * (1 - losses * np.exp(-s)) / 2
        return np.exp(-s) / 2, s

    return Balancer(np.zeros, combine)


def imtl_l(rate: float = 0.025) -> Balancer:
    """IMTL-L (Liu et al., ICLR 2021): minimises e^s l - s; w = e^s.

    rate: of gradient descent in s, whose fixed point is w = 1 / l.
    """

    def combine(losses: Any, gram: Any, s: Any, rng: Any, validation: Any) -> Any:
        s = s - rate * (losses * np.exp(s) - 1)
        return np.exp(s), s

    return Balancer(np.zeros, combine)


# --------------------------------------------------------------------------------------- closed forms


def log_loss() -> Balancer:
    """The sum of the losses' logarithms: w = 1 / l, of losses from `FLOOR` up."""
    return stateless(lambda losses, *_: 1 / np.maximum(losses, FLOOR))


def gls() -> Balancer:
    """The geometric mean of the losses (Chennupati et al., 1904.08492): w = gls / (K l)."""

    def weigh(losses: np.ndarray, *_: Any) -> np.ndarray:
        bounded = np.maximum(losses, FLOOR)
        return np.exp(np.log(bounded).mean()) / (len(losses) * bounded)

    return stateless(weigh)


def rlw() -> Balancer:
    """Random weights, the control (Lin et al., 2111.10603): w = K softmax(N(0, I))."""
    return stateless(lambda losses, gram, rng: _spread(rng.standard_normal(len(losses))))


class Windows(NamedTuple):
    """Mean losses of two windows of steps, float[K] each; NaN before there is one."""

    total: np.ndarray  # of the window at hand
    steps: np.ndarray  # of it in which the unit was there
    last: np.ndarray
    before: np.ndarray


def dwa(temperature: float = 2.0, window: int = 50) -> Balancer:
    """Dynamic weight average (Liu et al., 1803.10704): w = K softmax(r / T), r = L(t-1) / L(t-2).

    L: mean loss of the last `window` steps in which a unit was there; r is 1 before there are two.
    """

    def init(count: int) -> Windows:
        empty = np.full(count, np.nan)
        return Windows(np.zeros(count), np.zeros(count), empty, empty)

    def combine(losses: Any, gram: Any, state: Windows, rng: Any, validation: Any) -> Any:
        total, steps = state.total + losses, state.steps + 1
        full = steps >= window
        state = Windows(
            np.where(full, 0, total),
            np.where(full, 0, steps),
            np.where(full, total / steps, state.last),
            np.where(full, state.last, state.before),
        )
        ratio = state.last / np.maximum(state.before, FLOOR)
        return _spread(np.where(np.isnan(ratio), 1, ratio) / temperature), state

    return Balancer(init, combine)


def stch(mu: float = 1.0) -> Balancer:
    """Smooth Tchebycheff (Lin et al., 2402.19078): mu K logsumexp(log(l / nadir) / mu).

    nadir: a unit's first loss. A small mu trains the worst unit alone; mu = 1 weighs by 1 / nadir.
    """

    def combine(losses: Any, gram: Any, nadir: Any, rng: Any, validation: Any) -> Any:
        bounded = np.maximum(losses, FLOOR)
        nadir = np.where(np.isnan(nadir), bounded, nadir)
        return _spread(np.log(bounded / nadir) / mu) / bounded, nadir

    return Balancer(lambda count: np.full(count, np.nan), combine)


def _spread(logits: np.ndarray) -> np.ndarray:
    """K softmax: weights float[K] that sum to K."""
    return len(logits) * softmax(logits)


# ---------------------------------------------------------------------------------------------- FAMO


class Famo(NamedTuple):
    """FAMO's logits, their Adam, and the losses before the step at hand; float[K]."""

    logits: np.ndarray
    moments: Moments
    losses: np.ndarray


def famo(rate: float = 0.025, decay: float = 1e-3) -> Balancer:
    """Fast adaptive multitask optimization (Liu et al., 2306.03792): all losses fall at an equal rate.

    z = softmax(logits), w = K z / l / sum(z / l). After the step the logits of units whose log loss fell
    more go down, by Adam with `rate` and weight decay `decay`: one forward pass more per step.
    """

    def init(count: int) -> Famo:
        return Famo(np.zeros(count), moments(count), np.full(count, np.nan))

    def combine(losses: Any, gram: Any, state: Famo, rng: Any, validation: Any) -> Any:
        bounded = np.maximum(losses, FLOOR)
        part = softmax(state.logits) / bounded
        return len(part) * part / part.sum(), state._replace(losses=bounded)

    def after(losses: np.ndarray, state: Famo) -> Famo:
        fell = np.log(state.losses) - np.log(np.maximum(losses, FLOOR))
        fell = np.where(np.isnan(fell), 0, fell)
        z = softmax(state.logits)
        gradient = z * (fell - z @ fell) + decay * state.logits
        logits, own = adam(state.logits, gradient, state.moments, rate)
        return Famo(logits, own, state.losses)

    return Balancer(init, combine, after=after)


# ---------------------------------------------------------------------------------------------- CoBa


class Coba(NamedTuple):
    """CoBa's memory of validations, newest last; NaN where there was none yet."""

    initial: np.ndarray  # float[K]: of a unit's validation losses the first
    ratio: np.ndarray  # float[K, window]: validation losses over the first
    slope: np.ndarray  # float[K, window]: of the ratios up to then
    weights: np.ndarray  # float[K]: since the last validation


def coba(window: int = 5, warmup: int = 2, tau: float = 5.0) -> Balancer:
    """Convergence balancer (Gong et al., 2410.06741), from validation losses.

    Units that converge slower (relative score), and units that do not diverge (absolute score), weigh
    more; the divergence factor mixes the two. Slopes are least squares over the last `window`
    validations; after `warmup` of them weights move. No unit weighs less than a tenth of the mean.
    """

    def init(count: int) -> Coba:
        empty = np.full(count, np.nan)
        history = np.full((count, window), np.nan)
        return Coba(empty, history, history, np.ones(count))

    def combine(losses: Any, gram: Any, state: Coba, rng: Any, validation: Any) -> Any:
        if validation is None:
            return state.weights, state
        bounded = np.maximum(validation, FLOOR)
        initial = np.where(np.isnan(state.initial), bounded, state.initial)
        ratio = np.column_stack([state.ratio[:, 1:], bounded / initial])
        slope = np.column_stack([state.slope[:, 1:], slopes(ratio)])
        known = np.isfinite(ratio).sum(1).min() > max(warmup, 1)  # of one point there is no slope
        weights = convergence_weights(slope, tau) if known else state.weights
        return weights, Coba(initial, ratio, slope, weights)

    return Balancer(init, combine, validated=True)


def slopes(values: np.ndarray) -> np.ndarray:
    """float[K]: least-squares slope of each row of float[K, N] over its finite entries; 0 of fewer than 2."""
    there = np.isfinite(values)
    number = np.maximum(there.sum(1), 1)[:, None]
    time = np.where(there, np.arange(values.shape[1]), 0.0)
    time = np.where(there, time - time.sum(1, keepdims=True) / number, 0)
    size = (time**2).sum(1)
    return (time * np.where(there, values, 0)).sum(1) / np.where(size > 0, size, 1)


def convergence_weights(slope: np.ndarray, tau: float) -> np.ndarray:
    """float[K] that sum to K, of the slopes float[K, N], newest last (equations 3 to 7 of CoBa)."""
    count, slope = len(slope), slope[:, np.isfinite(slope).all(0)]
    now, number = slope[:, -1], slope.shape[1]
    relative = softmax(count * now / _size(now))
    absolute = softmax(-number * now / _size(slope, axis=1))
    worst = slope.max(0)
    logits = -tau * np.arange(1, number + 1) * worst / _size(worst)
    factor = min(number * np.exp(logits[-1] - logsumexp(logits)), 1.0)
    share = softmax(count * (factor * relative + (1 - factor) * absolute))
    share = np.maximum(share, 1 / (10 * count))
    return count * share / share.sum()


def _size(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    size = np.abs(values).sum(axis)
    return np.where(size > 0, size, 1)
