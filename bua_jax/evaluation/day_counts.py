"""Counts of generated days per person: BLEU, TVD and JSD are functions of their sums, as all metrics are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sacrebleu

from bua_jax.evaluation.counts import Totals
from bua_jax.evaluation.sequences import js_distance, jsd, tvd
from bua_jax.evaluation.tables import MEASURES, SIDES
from bua_jax.events.schema import NUM_PLACES, Catalogue
from bua_jax.events.windows import Day

ORDERS = 4  # of n-grams


@dataclass(frozen=True)
class DayCounts(Totals):
    """Totals float64[R, ...] of one side each; of data without places the third is not there."""

    days: np.ndarray  # [R]
    matches: np.ndarray  # [R, sides, ORDERS] n-grams of generated days that the real one has too
    possible: np.ndarray  # [R, sides, ORDERS] n-grams of generated days
    lengths: np.ndarray  # [R, sides, 2] events of generated, of real days
    ids: (
        np.ndarray
    )  # [R, sides, 2, K] how often each id is in generated, in real days; K the largest side's
    sizes: tuple[int, ...]  # ids that each side has


def _grams(ids: Sequence[int], order: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + order]) for i in range(len(ids) - order + 1))


def count_days(
    people: np.ndarray, generated: Sequence[Day], real: Sequence[Day], catalogue: Catalogue
) -> DayCounts:
    """Counts per person, in the order of np.unique(people); people [n]: whose each day is."""
    sizes = [len(catalogue.behaviours), catalogue.slots_per_day]
    sizes += [NUM_PLACES + 1] if catalogue.has_places else []
    names, owner = np.unique(people, return_inverse=True)
    shape = len(names), len(sizes)
    found = DayCounts(
        np.bincount(owner, minlength=len(names)).astype(float),
        np.zeros((*shape, ORDERS)),
        np.zeros((*shape, ORDERS)),
        np.zeros((*shape, 2)),
        np.zeros((*shape, 2, max(sizes))),
        tuple(sizes),
    )
    for person, *pair in zip(owner.tolist(), generated, real, strict=True):
        for side, field in zip(range(len(sizes)), SIDES.values(), strict=False):
            made, true = (list(map(int, getattr(day, field))) for day in pair)
            for order in range(1, ORDERS + 1):
                grams = _grams(made, order)
                found.matches[person, side, order - 1] += (grams & _grams(true, order)).total()
                found.possible[person, side, order - 1] += grams.total()
            for which, ids in enumerate((made, true)):
                found.lengths[person, side, which] += len(ids)
                np.add.at(found.ids[person, side, which], ids, 1)
    return found


def day_metrics(counts: DayCounts) -> dict[str, np.ndarray]:
    """Each of `tables.DAY_METRICS` that the data has, float64[R]; see `evaluation.sequences`."""
    found: dict[str, list[float]] = {}
    for total in range(len(counts)):
        for side, (name, size) in enumerate(zip(SIDES, counts.sizes, strict=False)):
            p, q = (_distribution(ids[:size]) for ids in counts.ids[total, side])
            values = (_bleu(counts, total, side), tvd(p, q), jsd(p, q), js_distance(p, q))
            for measure, value in zip(MEASURES, values, strict=True):
                found.setdefault(f"{name}_{measure}", []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def generation_metrics(
    generated: Sequence[Day], real: Sequence[Day], catalogue: Catalogue
) -> dict[str, dict[str, float]]:
    """event, timestamp and (where there are places) location -> bleu, tvd, jsd, js_distance of all days."""
    found = day_metrics(count_days(np.zeros(len(real)), generated, real, catalogue))
    sides = list(SIDES)[: len(found) // len(MEASURES)]
    return {side: {m: float(found[f"{side}_{m}"][0]) for m in MEASURES} for side in sides}


def _distribution(counts: np.ndarray) -> np.ndarray:
    """Uniform where nothing was generated at all."""
    total = counts.sum()
    return counts / total if total > 0 else np.full(len(counts), 1 / len(counts))


def _bleu(counts: DayCounts, total: int, side: int) -> float:
    made, real = map(int, counts.lengths[total, side])
    score = sacrebleu.BLEU.compute_bleu(
        counts.matches[total, side].tolist(),
        counts.possible[total, side].tolist(),
        sys_len=made,
        ref_len=real,
        smooth_method="exp",
    )
    return score.score / 100
