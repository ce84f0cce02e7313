"""What a judge's answers come to, by criterion, as JSON values and as a page."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.evaluation.rating.agreement import Estimate
from bua_jax.evaluation.rating.correction import (
    LEAST_RIGHT,
    Calibration,
    Preferences,
    Worth,
    both_orders,
    rises,
    undo,
    weights_of,
    worth,
)
from bua_jax.evaluation.rating.items import Item, plain
from bua_jax.evaluation.rating.packets import CRITERIA
from bua_jax.evaluation.rating.scores import Ratings, as_json, score, shown, write_both
from bua_jax.evaluation.rating.scores import report as report_of_scores
from bua_jax.evaluation.rating.spoilt import SHORTENS, Spoilt
from bua_jax.evaluation.report import Forest, Interval, Report, Section
from bua_jax.evaluation.understanding.ladder import LADDER, STRENGTHS

ALL = f"all but {SHORTENS}"
RATES = ("raw", "at_equal_lengths", "undone", "both")


def verdicts(
    items: Sequence[Item],
    scores: np.ndarray,
    chosen: np.ndarray,
    spoilt: Sequence[Spoilt],
    known: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Scores, preferences and what they are worth, as JSON.

    scores: float[N, S, K] of `Judge.score`; chosen: float[n, 2, K] of the `item_pairs`; known: float[m, 2, K]
    of the pairs of `spoilt`, the true text first. What has no answer (NaN) is left out, and counted.
    """
    whole = ~np.isnan(scores).any((1, 2))
    sources = tuple(sorted(items[0].texts))
    ratings = Ratings(scores[None, whole], ("the judge",), sources, {}, seed)
    weights = weights_of(len(items), seed)
    return {
        "items": len(items),
        "scores": score(ratings) if whole.sum() > 1 else None,
        "criteria": {
            criterion: _of(items, chosen[:, :, k], spoilt, known[:, :, k], weights, seed)
            for k, criterion in enumerate(CRITERIA)
        },
        "left_out": {
            "items of scores": int((~whole).sum()),
            "pairs": int(np.isnan(chosen).any((1, 2)).sum()),
            "spoilt pairs": int(np.isnan(known).any((1, 2)).sum()),
        },
    }


def _of(
    items: Sequence[Item],
    chosen: np.ndarray,
    spoilt: Sequence[Spoilt],
    known: np.ndarray,
    weights: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Of one criterion; chosen: float[n, 2]; known: float[m, 2]."""
    names = [*itertools.combinations(sorted(items[0].texts), 2)]
    given, calibration = _preferences(items, names, chosen), _calibration(spoilt, known)
    found = worth(given, calibration, len(names), weights, seed)
    why, table = _unusable(found.right, calibration), _table(spoilt, known)
    return {
        "unusable": why,
        "pairs": {
            f"{a} - {b}": {
                "items": int((given.pair == k).sum()),
                **{name: _rate(found, name, k, why) for name in RATES},
                "as_hard_as": _as_hard_as(found.at_equal_lengths[k].value, table[ALL]),
                "always_longer": _always_longer(given.longer[given.pair == k], a, b),
            }
            for k, (a, b) in enumerate(names)
        },
        "longer_wins": as_json(found.longer_wins),
        "longer_by": found.words,
        "position": _position(np.concatenate([chosen, known])),
        "right": as_json(found.right),
        "calibration": table,
    }


def _rate(found: Worth, name: str, pair: int, why: str) -> dict[str, float] | None:
    """None where nothing can be undone: of errors that are not known to be fewer than a guess has."""
    return None if why and name in ("undone", "both") else as_json(getattr(found, name)[pair])


def _as_hard_as(level: float, steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rate at equal lengths, errors undone, if a judge were right as often as at one strength alone."""
    found = []
    for one in steps:
        right = np.nan if one["right"] is None else one["right"]
        (value,) = undo(np.asarray([level]), np.asarray([right]))
        known = None if np.isnan(value) else float(value)
        found.append({"strength": one["strength"], "both": known})
    return found


def _preferences(
    items: Sequence[Item], names: Sequence[tuple[str, str]], chosen: np.ndarray
) -> Preferences:
    words = [{s: len(plain(text).split()) for s, text in one.texts.items()} for one in items]
    longer = np.asarray([[one[a] - one[b] for a, b in names] for one in words], float).ravel()
    item, pair = np.indices((len(items), len(names))).reshape(2, -1)
    value = both_orders(chosen)
    there = ~np.isnan(value)
    return Preferences(item[there], pair[there], value[there], longer[there])


def _calibration(spoilt: Sequence[Spoilt], known: np.ndarray) -> Calibration:
    """What a judge's errors are read off: texts that were spoilt, and not shortened."""
    value = both_orders(known)
    there = ~np.isnan(value) & np.asarray([one.corruption != SHORTENS for one in spoilt], bool)
    item = np.asarray([one.item for one in spoilt], int)
    strength = np.asarray([one.strength for one in spoilt], float)
    return Calibration(item[there], value[there], strength[there])


def _unusable(right: Estimate, known: Calibration) -> str:
    """Why a judge's errors cannot be undone, or nothing."""
    if not len(known.value):
        return "no text that it was to be tried on could be spoilt, or it answered to none of them"
    if right.low <= LEAST_RIGHT:
        said = f"{100 * right.value:.0f} % ({100 * right.low:.0f} to {100 * right.high:.0f})"
        return f"it is right about true and spoilt texts in {said}, where guessing is in 50 %"
    if not rises(known):
        return "it is not right more often where more of a text is spoilt"
    return ""


def _always_longer(longer: np.ndarray, a: str, b: str) -> str:
    """Whose texts are the longer ones in all items, so that length and source cannot be told apart."""
    if len(longer) and (longer > 0).all():
        return a
    return b if len(longer) and (longer < 0).all() else ""


def _position(chosen: np.ndarray) -> dict[str, float] | None:
    """Shares of the pairs: whose answer changes with the order, and those that have the text first twice."""
    both = chosen[~np.isnan(chosen).any(1)]
    if not len(both):
        return None
    changes = both[:, 0] != 1 - both[:, 1]
    first, second = (both == 1).all(1), (both == 0).all(1)
    return {
        "changes": float(changes.mean()),
        "first": float(first.mean()),
        "second": float(second.mean()),
    }


def _table(spoilt: Sequence[Spoilt], known: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """How often the true text was preferred, by what was spoilt and how much; `ALL`: over what counts."""
    value, names = both_orders(known), [one.name for one in LADDER]
    rows = {name: {name} for name in sorted(names, key=SHORTENS.__eq__)}
    rows[ALL] = {*names} - {SHORTENS}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, among in rows.items():
        found[name] = []
        for strength in STRENGTHS:
            at = [one.strength == strength and one.corruption in among for one in spoilt]
            kept = value[np.asarray(at, bool) & ~np.isnan(value)]
            right = float(kept.mean()) if len(kept) else None
            found[name].append({"strength": strength, "pairs": len(kept), "right": right})
    return found


# ------------------------------------------------------------------------------------------ the page


def write_verdicts(name: Path, said: Mapping[str, Any]) -> Report:
    """Writes NAME.json and NAME.html, and returns the latter's page; said: see `report`."""
    return write_both(name, said, report(said))


def report(said: Mapping[str, Any]) -> Report:
    """What `verdicts` found, with `judge` (model, host), `kin`, and `counts` of what was asked, as a page."""
    criteria = said["criteria"]
    usable = {c: of for c, of in criteria.items() if not of["unusable"]}
    scored = report_of_scores(said["scores"]) if said["scores"] else None
    return Report(
        "A model as a judge",
        verdict=[_verdict(said)],
        forests=[_forest(c, of) for c, of in criteria.items()],
        warnings=_warnings(said),
        tables=[
            _preferred(criteria),
            _tried(criteria),
            *([_assumed(usable)] if usable else ()),
            _leaning(criteria),
            *(scored.tables[:2] if scored else ()),
        ],
        facts={
            "judge": f"{said['judge']['model']} at {said['judge']['host']}",
            "answered": ", ".join(said["judge"]["answered"]) or "-",
            **{what: f"{number:,}" for what, number in said["counts"].items()},
        },
    )


def _verdict(said: Mapping[str, Any]) -> str:
    can = [c for c, of in said["criteria"].items() if not of["unusable"]]
    which = f"its errors are known and undone in {' and '.join(can)}" if can else "it is of no use"
    return f"{said['items']} items, read by {said['judge']['model']}: {which}."


def _warnings(said: Mapping[str, Any]) -> list[str]:
    found = list(said["kin"])
    for criterion, of in said["criteria"].items():
        if of["unusable"]:
            found.append(f"The judge is unusable in {criterion}: {of['unusable']}.")
        for name, pair in of["pairs"].items():
            if pair["always_longer"]:
                found.append(
                    f"{criterion}, {name}: the texts of {pair['always_longer']!r} are the longer ones in all "
                    "items, so the rate at equal lengths is of lengths that none has."
                )
    if left_out := [f"{number} {what}" for what, number in said["left_out"].items() if number]:
        found.append(
            f"Left out, for want of an answer in the form asked for: {', '.join(left_out)}. A model that "
            "reasons may need a larger config.judge.max_tokens."
        )
    return list(dict.fromkeys(found))


def _preferred(criteria: Mapping[str, Any]) -> Section:
    return Section(
        "Preferences",
        (
            "criterion",
            "sources",
            "items",
            "first wins in %",
            "at equal lengths",
            "errors undone",
            "both",
        ),
        [
            [c, name, str(pair["items"]), *(shown(pair[rate], percent=True) for rate in RATES)]
            for c, of in criteria.items()
            for name, pair in of["pairs"].items()
        ],
        said="Both orders asked; an answer that changes with the order is a tie, and half a win. At equal "
        "lengths: by a logistic regression on the difference of lengths (Dubois et al., 2024). Errors "
        "undone: by how often the judge is right where the truth is known (Rogan and Gladen, 1978), as if "
        "the sources' texts were as hard to tell apart. Intervals: bootstrap over items.",
    )


def _tried(criteria: Mapping[str, Any]) -> Section:
    def cell(one: Mapping[str, Any]) -> str:
        return "-" if one["right"] is None else f"{100 * one['right']:.0f} ({one['pairs']})"

    rows = [
        [f"{c}, {name}", *map(cell, steps)]
        for c, of in criteria.items()
        for name, steps in of["calibration"].items()
    ]
    header = ("spoilt", *(f"{100 * strength:.0f} % of it" for strength in STRENGTHS))
    said = (
        "True texts against the same spoilt: percent in which the true one is preferred (pairs). Errors are "
        "read off the last row; where claims are dropped the worse text is the shorter one, too."
    )
    return Section("Where the truth is known", header, rows, said=said)


def _assumed(criteria: Mapping[str, Any]) -> Section:
    def cell(one: Mapping[str, Any]) -> str:
        return "-" if one["both"] is None else f"{100 * one['both']:.1f}"

    rows = [
        [f"{c}, {name}", *map(cell, pair["as_hard_as"])]
        for c, of in criteria.items()
        for name, pair in of["pairs"].items()
    ]
    header = ("first wins in %", *(f"{100 * strength:.0f} % spoilt" for strength in STRENGTHS))
    said = (
        "At equal lengths, errors undone, if the sources' texts are as hard to tell apart as true ones from "
        "those spoilt so far. A dash: the judge is no better than a guess there."
    )
    return Section("If it is harder or easier", header, rows, said=said)


def _leaning(criteria: Mapping[str, Any]) -> Section:
    rows = []
    for c, of in criteria.items():
        position = of["position"] or {}
        shares = [
            f"{100 * position[name]:.1f}" if position else "-"
            for name in ("changes", "first", "second")
        ]
        right, longer = (shown(of[name], percent=True) for name in ("right", "longer_wins"))
        rows.append([c, right, *shares, longer, f"{of['longer_by']:.0f}"])
    header = ("criterion", "right", "order changes it", "the first twice", "the second twice")
    return Section(
        "How the judge leans",
        (*header, "longer wins", "longer by words"),
        rows,
        said="Percent. Right: of true and spoilt texts. Longer wins: of two equal texts, the one longer by "
        "so many words.",
    )


def _forest(criterion: str, of: Mapping[str, Any]) -> Forest:
    """Win rates above one half, of what is undone of errors where that can be."""
    which = "raw" if of["unusable"] else "both"
    lines = [
        Interval(name, *(100 * pair[which][end] - 50 for end in ("value", "low", "high")))
        for name, pair in of["pairs"].items()
        if pair[which]
    ]
    kind = "as answered" if of["unusable"] else "at equal lengths, errors undone"
    return Forest(f"Wins in {criterion}, {kind}", "points above 50 %", lines)
