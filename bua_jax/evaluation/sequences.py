"""Measures of generated days (Appendix E): BLEU, TVD, JSD, and whether they are copies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sacrebleu

from bua_jax.basics.errors import DataError
from bua_jax.events.windows import Day


def _bleu() -> sacrebleu.BLEU:
    return sacrebleu.BLEU(tokenize="none", force=True)


def bleu(generated: Sequence[Sequence[int]], real: Sequence[Sequence[int]]) -> float:
    """Corpus BLEU over sequences of ids, 0 to 1 (sacrebleu, tokenize=none, divided by 100).

    Short and empty sequences count; none is dropped. Raises `DataError` unless there are pairs.
    """
    if len(generated) != len(real) or not generated:
        raise DataError(
            f"{len(generated)} generated and {len(real)} real sequences; expected pairs."
        )
    lines = [[" ".join(map(str, ids)) for ids in side] for side in (generated, real)]
    return _bleu().corpus_score(lines[0], [lines[1]]).score / 100


def bleu_signature() -> str:
    """sacreBLEU's own signature of what `bleu` computes."""
    metric = _bleu()
    metric.corpus_score(["0"], [["0"]])
    return str(metric.get_signature().format(short=True))


def _distribution(p: Any) -> np.ndarray:
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or np.any(values < 0) or not np.isclose(values.sum(), 1, atol=1e-6):
        raise DataError(f"Expected a distribution (non-negative, sum 1), got {values}.")
    return values


def tvd(p: Any, q: Any) -> float:
    """Total variation distance of two distributions float[K] (Eq. 13), 0 to 1.

    Raises `DataError` for what is no distribution (non-negative, sum 1).
    """
    return float(0.5 * np.abs(_distribution(p) - _distribution(q)).sum())


def jsd(p: Any, q: Any) -> float:
    """Jensen-Shannon divergence of float[K] and float[K] in nats, 0 to ln 2.

    Without the root that Eq. 14 prints (docs/reproduction.md). Raises `DataError` as `tvd` does.
    """
    a, b = _distribution(p), _distribution(q)
    middle = (a + b) / 2

    def divergence(x: np.ndarray) -> float:
        some = x > 0
        return float(np.sum(x[some] * np.log(x[some] / middle[some])))

    return max(0.0, (divergence(a) + divergence(b)) / 2)


def js_distance(p: Any, q: Any) -> float:
    """Jensen-Shannon distance: the root of `jsd`, as Eq. 14 is printed."""
    return float(np.sqrt(jsd(p, q)))


def self_bleu(days: Sequence[Sequence[int]]) -> float:
    """Mean BLEU of each sequence of ids against all the others, 0 to 1: high where they repeat.

    As in Zhu et al. (Texygen, 2018); of fewer than two sequences 0.
    """
    lines = [" ".join(map(str, ids)) for ids in days]
    if len(lines) < 2:
        return 0.0
    metric = sacrebleu.BLEU(tokenize="none", force=True, effective_order=True)
    others = [lines[:i] + lines[i + 1 :] for i in range(len(lines))]
    scores = [
        metric.sentence_score(line, rest).score for line, rest in zip(lines, others, strict=True)
    ]
    return float(np.mean(scores)) / 100


def originality(days: Sequence[Day], training: Sequence[Day]) -> dict[str, float]:
    """Are days copies? Shares of the days with events, except for `self_bleu`, which is of behaviours.

    `copied` have the slots, places and behaviours of a training day; `distinct` are the different ones.
    """
    known = {(day.slot, day.place, day.behaviour) for day in training}
    made = [(day.slot, day.place, day.behaviour) for day in days if day.slot]
    count = max(1, len(made))
    return {
        "copied": sum(day in known for day in made) / count,
        "distinct": len(set(made)) / count,
        "self_bleu": self_bleu([behaviour for _, _, behaviour in made]),
    }
