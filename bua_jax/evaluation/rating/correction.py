"""What a judge's preferences are worth: lengths taken out, and errors that are known from spoilt texts.

Length (Dubois et al., 2024, of AlpacaEval 2, without its terms for instructions): the first text of a pair is
preferred with probability sigmoid(a_pair + b tanh(d / s)), d being how many words longer it is and s the root
mean square of all d; the win rate at equal lengths is sigmoid(a_pair).

Errors (Rogan and Gladen, 1978): a judge that is right with probability q says "first" with probability
p = w q + (1 - w) (1 - q) where the first is better with probability w, so that w = (p + q - 1) / (2 q - 1).
As both orders are asked, its two kinds of error are one. A tie is half of either, in p as in q.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from bua_jax.evaluation.counts import resamples
from bua_jax.evaluation.rating.agreement import RESAMPLES, Estimate

_PRIOR = 0.04  # 1 / variance of each coefficient, in logits: where all agree, they stay finite
_ROUNDS, _CLOSE, _STRIDE = 50, 1e-8, 2.0  # of Newton's method
_WIN = 0.5  # without any preference
LEAST_RIGHT = 0.5  # what guessing has
SURE = 0.9  # right as often, a judge has few errors left to be fewer where more is spoilt


def both_orders(chosen: np.ndarray) -> np.ndarray:
    """float[n]: 1 where the first text is preferred, 0 the second, 1/2 neither; an answer of each order.

    chosen: float[n, 2], how far the text that was shown first was preferred, as the pair is and the other
    way round. What changes with the order is a tie; NaN where an answer is missing.
    """
    first, second = chosen[:, 0], 1 - chosen[:, 1]
    tied = np.where(np.isnan(first + second), np.nan, _WIN)
    return np.where(first == second, first, tied)


class Preferences(NamedTuple):
    """Pairs of texts that a judge answered, by one criterion."""

    item: np.ndarray  # int[n] row of the item
    pair: np.ndarray  # int[n] which two sources
    value: np.ndarray  # float[n] `both_orders`, none missing
    longer: np.ndarray  # float[n] words of the first text minus those of the second


class Calibration(NamedTuple):
    """Pairs whose better text is known."""

    item: np.ndarray  # int[n]
    value: np.ndarray  # float[n] 1 where the judge preferred the better one, 1/2 where neither
    strength: np.ndarray  # float[n] share of the places of the other that was spoilt


class Worth(NamedTuple):
    """Win rates of K pairs of sources, from 0 to 1, first source's; `undone` of a judge that can be used."""

    raw: list[Estimate]  # as answered
    at_equal_lengths: list[Estimate]
    undone: list[Estimate]
    both: list[Estimate]  # errors undone of the rate at equal lengths
    longer_wins: Estimate  # how often the longer of two equal texts would, longer by `words`
    words: float
    right: Estimate


def estimate(values: np.ndarray) -> Estimate:
    """values: float[1 + R], the value itself and its resamples; NaN where there is none."""
    if np.isnan(values[0]):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(values[1:], (2.5, 97.5))
    return Estimate(float(values[0]), float(low), float(high))


def undo(rate: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rogan and Gladen's estimate, from 0 to 1; NaN where the judge is no better than a guess."""
    known = np.where(right > LEAST_RIGHT, 2 * right - 1, np.nan)
    return np.clip((rate + right - 1) / known, 0, 1)


def weights_of(items: int, seed: int, count: int = RESAMPLES) -> np.ndarray:
    """float[1 + count, items]: ones, then how often each item is drawn with replacement."""
    return np.vstack([np.ones((1, items)), resamples(items, count, seed)])


def doubted(values: np.ndarray, weights: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights with a 1 and a 0 more, drawn like the others, and of no weight in the value itself.

    So that an interval is no point where there are few pairs and all agree; Lang and Reiczigel (2014) add
    as many to each rate that a correction reads. values: float[n]; weights: float[1 + R, n].
    """
    more = np.random.default_rng([seed, 1]).poisson(1.0, (len(weights), 2)).astype(float)
    more[0] = 0
    return np.append(values, (1.0, 0.0)), np.hstack([weights, more])


def rate(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float[R]: weighted means of values float[n] by weights float[R, n]; NaN of nothing."""
    whole = weights.sum(1)
    return np.divide(weights @ values, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def logistic(y: np.ndarray, design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float[R, P]: coefficients of weighted logistic regressions with a normal prior of variance 1 / 0.04.

    y: float[n] in [0, 1]; design: float[n, P]; weights: float[R, n]. By Newton's method.
    """
    columns = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(y), -1)
    found = np.zeros((len(weights), columns))
    for _ in range(_ROUNDS):
        said = expit(found @ design.T)
        slope = (weights * (y - said)) @ design - _PRIOR * found
        bend = ((weights * said * (1 - said)) @ squares).reshape(-1, columns, columns)
        step = np.linalg.solve(bend + _PRIOR * np.eye(columns), slope[:, :, None])[:, :, 0]
        found += np.clip(step, -_STRIDE, _STRIDE)
        if np.abs(step).max(initial=0) < _CLOSE:
            break
    return found


def at_equal_lengths(
    given: Preferences, pairs: int, weights: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """(win rates float[R, K] of K pairs of sources, float[R] how often the longer wins, s in words).

    weights: float[R, n] of the pairs of texts.
    """
    words = float(np.sqrt(np.mean(given.longer**2))) if len(given.longer) else 0.0
    x = np.tanh(given.longer / words) if words else np.zeros(len(given.longer))
    y, design = given.value, np.column_stack([np.eye(pairs)[given.pair], x])
    for k in range(pairs):
        y, weights = doubted(y, weights, seed + k)
        design = np.vstack([design, np.tile(np.append(np.eye(pairs)[k], 0), (2, 1))])
    found = logistic(y, design, weights)
    return expit(found[:, :pairs]), expit(np.tanh(1.0) * found[:, pairs]), words


def worth(
    given: Preferences, known: Calibration, pairs: int, weights: np.ndarray, seed: int
) -> Worth:
    """Win rates of K pairs of sources, raw, at equal lengths, and with the judge's errors undone.

    weights: `weights_of` the items, which are drawn whole: what was answered about an item, and about its
    spoilt texts, is drawn together. So the intervals hold what the calibration does not know, too.
    """
    own = weights[:, given.item]
    raw = []
    for k in range(pairs):
        rows = given.pair == k
        raw.append(rate(*doubted(given.value[rows], own[:, rows], seed + k)))
    level, longer, words = at_equal_lengths(given, pairs, own, seed)
    seen = np.asarray([np.any(given.pair == k) for k in range(pairs)])
    level = np.where(seen, level, np.nan)
    right = rate(*doubted(known.value, weights[:, known.item], seed + pairs))
    return Worth(
        [estimate(one) for one in raw],
        [estimate(one) for one in level.T],
        [estimate(undo(one, right)) for one in raw],
        [estimate(undo(one, right)) for one in level.T],
        estimate(longer if words else np.full(len(longer), np.nan)),
        words,
        estimate(right),
    )


def rises(known: Calibration) -> bool:
    """Whether a judge is more often right where more is spoilt, or hardly ever wrong.

    By the slope of a line through strengths and values.
    """
    if known.value.mean() >= SURE:
        return True
    away = known.strength - known.strength.mean()
    return bool(away @ known.value > 0)
