"""What a picture shows, in a sentence: its caption, and all of it for who cannot see it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bua_jax.evaluation.prediction import Calibration
from bua_jax.events.windows import Day

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Panel -> line -> its points (step, value)."""
Bars = Mapping[str, Sequence[tuple[str, float, float, float]]]
"""Panel -> its bars (name, value, lower and upper end of its interval)."""


def of_curves(panels: Curves) -> str:
    """How validation losses, or whatever lines there are, moved in each panel."""
    said = []
    for panel, lines in panels.items():
        solid = {name: line for name, line in lines.items() if name.startswith("validation")}
        found = [[value for _, value in points] for points in (solid or lines).values() if points]
        if found:
            first = np.mean([values[0] for values in found])
            least = np.mean([min(values) for values in found])
            what = "validation loss" if solid else "loss"
            over = f", mean of {len(found)}" if len(found) > 1 else ""
            said.append(f"{panel}: {what} from {first:.2f} to {least:.2f} at its lowest{over}")
    return "; ".join(said) + "." if said else "Nothing was logged."


def of_bars(panels: Bars) -> str:
    """Which row of each panel is highest, and which lowest."""
    said = []
    for panel, rows in panels.items():
        if rows:
            best, worst = max(rows, key=lambda row: row[1]), min(rows, key=lambda row: row[1])
            said.append(
                f"{panel}: {best[0]} is highest ({best[1]:.1%}), {worst[0]} lowest ({worst[1]:.1%})"
            )
    return "; ".join(said) + "." if said else "Nothing was measured."


def of_shares(panels: Curves) -> str:
    """Which unit had most of the loss at the end of each panel, and which least."""
    said = []
    for panel, lines in panels.items():
        last = {name.partition(" ")[2]: points[-1][1] for name, points in lines.items() if points}
        if last:
            most, least = max(last, key=last.__getitem__), min(last, key=last.__getitem__)
            said.append(
                f"{panel}: {most} has most of the loss ({last[most]:.0%}), {least} least ({last[least]:.0%})"
            )
    return "; ".join(said) + "." if said else "Nothing was weighed."


def of_cosines(pairs: Mapping[tuple[str, str], float]) -> str:
    """How many pairs conflict, and which most."""
    conflict = sum(value < 0 for value in pairs.values())
    one, other = min(pairs, key=pairs.__getitem__)
    return (
        f"{conflict} of {len(pairs)} pairs pull against each other; {one} and {other} agree least "
        f"({min(pairs.values()):.2f})."
    )


def of_reliability(methods: Mapping[str, Calibration]) -> str:
    """Each method's calibration error, the best first, and the side on which it errs."""
    said = []
    for name, found in sorted(methods.items(), key=lambda pair: pair[1].error):
        lean = float(found.share @ (found.confidence - found.accuracy))
        side = "over" if lean > 0 else "under"
        said.append(f"{name} {found.error:.1%} ({side}confident)")
    return (
        f"Expected calibration error: {', '.join(said)}." if said else "No method has confidences."
    )


def of_confusion(true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> str:
    """What is most often taken for what."""
    wrong = (predicted >= 0) & (predicted != true)
    pairs = Counter(zip(true[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    if not pairs:
        return "No behaviour is taken for another."
    said = [f"{labels[t]} for {labels[p]} ({n})" for (t, p), n in pairs.most_common(3)]
    return f"Taken for each other most often (true for predicted, windows): {', '.join(said)}."


def of_texts(table: Mapping[str, Any]) -> str:
    """What of texts about people is best borne out by the log, and what least."""
    found = table["rows"][table["main"]]["metrics"]
    known = {
        name.removesuffix("_precision"): one["value"]
        for name, one in found.items()
        if name.endswith("_precision") and "persona" not in name and one["value"] is not None
    }
    if not known:
        return f"{table['main']} claims nothing."
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return (
        f"Of what {table['main']} says, {best} are true most often ({known[best]:.0%}), {worst} least "
        f"({known[worst]:.0%})."
    )


def of_ladder(ladder: Mapping[str, Any]) -> str:
    """Which metrics fall as texts are spoilt, and whether others moved."""
    rungs = ladder["rungs"]
    fall = [name for name, one in rungs.items() if (one["spearman"] or 0) <= -0.9]
    strayed = [name for name, one in rungs.items() if one["strayed"]]
    others = f"; others moved too by: {', '.join(strayed)}" if strayed else "; the others stay"
    return f"What is spoilt is seen in {len(fall)} of {len(rungs)} cases{others}."


def of_hours(sides: Mapping[str, Sequence[Day]], slots_per_day: int) -> str:
    """How much of all events lies at the same hours and behaviours on both sides."""
    tables: list[Any] = []
    for days in sides.values():
        pairs = [p for day in days for p in zip(day.slot, day.behaviour, strict=True)]
        count = Counter((int(s) * 24 // slots_per_day, int(b)) for s, b in pairs)
        tables.append({key: n / max(1, len(pairs)) for key, n in count.items()})
    shared = sum(min(tables[0][key], tables[1].get(key, 0.0)) for key in tables[0])
    one, other = sides
    return f"{shared:.0%} of {one} and {other} events are of the same behaviour at the same hour."
