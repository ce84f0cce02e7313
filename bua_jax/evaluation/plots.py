"""Pictures for people who would rather look than read, as PNG bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bua_jax.basics.console import visible
from bua_jax.evaluation.findings import Bars, Curves
from bua_jax.evaluation.prediction import Calibration
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day


def png(figure: Figure) -> bytes:
    """Renders and closes a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def _names(labels: Sequence[str]) -> list[str]:
    """Labels of the data as matplotlib shows them unchanged: it would read mathematics between dollars."""
    return [visible(label).replace("$", r"\$") for label in labels]


_WIDE = 5  # panels in a row
_NAMED = 10  # lines of a panel that have a colour and a name
_SOLID = ("validation", "logged")


def curves(panels: Curves, about: str, along: str = "optimizer step") -> bytes:
    """A panel for each step of a run; lines but those of validation are dotted, and named as those are."""
    wide = min(_WIDE, max(1, len(panels)))
    high = max(1, math.ceil(len(panels) / wide))
    figure, every = plt.subplots(
        high, wide, figsize=(max(4, 3.2 * wide), 3.4 * high), squeeze=False, layout="constrained"
    )
    for axes in every.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, lines) in zip(every.flat, panels.items(), strict=False):
        names = _largest_last(lines)
        for name, points in lines.items():
            split, _, what = name.partition(" ")
            steps, values = zip(*points, strict=True)
            look: dict[str, Any] = {"color": f"C{names.index(what)}", "label": visible(what)}
            if names.index(what) >= _NAMED:
                look |= {"color": "0.75", "label": "_" + what}
            if split not in _SOLID:
                look |= {"linestyle": ":", "linewidth": 1, "label": "_" + what}
            axes.plot(steps, values, marker=".", markersize=3, **look)
        axes.set(xlabel=along, title=title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    for axes in every[:, 0]:
        axes.set_ylabel(about)
    return png(figure)


def _largest_last(lines: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    """What lines are of: in their order, or where they are many those that end highest first."""
    names = list(dict.fromkeys(name.partition(" ")[2] for name in lines))
    if len(names) <= _NAMED:
        return names
    end = {name.partition(" ")[2]: points[-1][1] for name, points in lines.items() if points}
    return sorted(names, key=lambda name: -end.get(name, 0.0))


def cosines(pairs: Mapping[tuple[str, str], float], title: str) -> bytes:
    """Mean cosines of units' gradients as a heat map, with their values."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    table = np.eye(len(names))
    for (a, b), value in pairs.items():
        i, j = names.index(a), names.index(b)
        table[i, j] = table[j, i] = value
    side = max(3.0, 0.7 * len(names))
    figure, axes = plt.subplots(figsize=(side, side))
    axes.imshow(table, cmap="coolwarm", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), _names(names), rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), _names(names), fontsize=7)
    for (i, j), value in np.ndenumerate(table):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7)
    axes.set(title=title)
    return png(figure)


def confusion(
    true: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[int]],
) -> bytes:
    """Row-normalised confusion matrix, its classes grouped and by how often they are true.

    groups: head, medium, tail -> classes. Behaviours that never occur and are never predicted are left out,
    and so is what could not be read.
    """
    counts = np.zeros((len(labels), len(labels)), int)
    valid = predicted >= 0
    np.add.at(counts, (true[valid], predicted[valid]), 1)
    often = np.bincount(true, minlength=len(labels))
    seen = often + counts.sum(0) > 0
    order = [c for of in groups.values() for c in sorted(of, key=lambda c: -often[c]) if seen[c]]
    shown = counts[np.ix_(order, order)]
    share = shown / np.maximum(shown.sum(1, keepdims=True), 1)
    size = len(order)
    side = max(4.0, min(0.24 * size, 24.0))
    font = min(6.0, 0.6 * 72 * side / max(size, 1))  # of a cell's height
    figure, axes = plt.subplots(figsize=(side, side))
    image = axes.imshow(share, cmap="viridis", vmin=0, vmax=1)
    names = _names([labels[c] for c in order])
    own = [f"{name} ({often[c]})" for name, c in zip(names, order, strict=True)]
    axes.set_xticks(range(size), names, rotation=90, fontsize=font)
    axes.set_yticks(range(size), own, fontsize=font)
    end = -0.5
    for name, of in groups.items():
        begin, end = end, end + sum(c in set(of) for c in order)
        if end > begin:
            axes.axhline(end, color="white", linewidth=1)
            axes.axvline(end, color="white", linewidth=1)
            axes.text(size - 0.3, (begin + end) / 2, name, rotation=270, va="center", fontsize=8)
    axes.set(xlabel="predicted", ylabel="true (windows)")
    axes.set_title("share of each true behaviour", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.08)
    return png(figure)


def shares(panels: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> bytes:
    """A heat map for each panel, its rows by columns of shares from 0 to 1, with their values in percent."""
    rows = [*dict.fromkeys(name for table in panels.values() for name in table)]
    columns = [
        *dict.fromkeys(c for table in panels.values() for row in table.values() for c in row)
    ]
    size = (1.6 + 0.75 * len(columns) * len(panels), 1.3 + 0.4 * len(rows))
    figure, every = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (title, table) in zip(every[0], panels.items(), strict=True):
        values = [[table.get(row, {}).get(c) for c in columns] for row in rows]
        image = np.asarray([[np.nan if v is None else v for v in row] for row in values])
        axes.imshow(image, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(image):
            text = "-" if np.isnan(value) else f"{100 * value:.0f}"
            color = "black" if value > 0.6 or np.isnan(value) else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(columns)), _names(columns), rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), _names(rows), fontsize=8)
        axes.set(title=title)
    return png(figure)


_LEAST = 10  # windows of a bin that is drawn


def reliability(methods: Mapping[str, Calibration], windows: int) -> bytes:
    """Accuracy over confidence, a panel per method; marks are as large as a bin's share of the windows.

    Bins of fewer than 10 windows are left out, as their accuracy means nothing.
    """
    wide = min(_WIDE, max(1, len(methods)))
    high = max(1, math.ceil(len(methods) / wide))
    figure, every = plt.subplots(
        high, wide, figsize=(2.3 * wide, 2.5 * high), squeeze=False, sharex=True, sharey=True
    )
    for axes in every.flat[len(methods) :]:
        axes.set_axis_off()
    for axes, (name, found) in zip(every.flat, methods.items(), strict=False):
        enough = found.share * windows >= _LEAST
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        axes.plot(found.confidence[enough], found.accuracy[enough], linewidth=1)
        axes.scatter(found.confidence[enough], found.accuracy[enough], 200 * found.share[enough])
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(f"{visible(name)}\nECE {100 * found.error:.1f} %", fontsize=8)
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    figure.tight_layout()
    return png(figure)


def bars(panels: Bars) -> bytes:
    """A panel per quantity in percent, a bar per row in their order, each with its interval."""
    most = max(len(rows) for rows in panels.values())
    size = (1.6 + 3.2 * len(panels), 1.0 + 0.35 * most)
    figure, every = plt.subplots(
        1, len(panels), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axes, (title, rows) in zip(every[0], panels.items(), strict=True):
        at = np.arange(len(rows))
        names, values, low, high = zip(*rows, strict=True)
        value = 100 * np.asarray(values)
        reach = np.abs(100 * np.asarray([low, high]) - value)
        axes.barh(at, value, color="0.75", xerr=reach, error_kw={"elinewidth": 1})
        axes.set_yticks(at, _names(names), fontsize=8)
        axes.set(xlabel="%", title=title, xlim=(0, None))
    every[0, 0].invert_yaxis()
    return png(figure)


def growth(rows: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Log-log lines over the number of rows, a panel per quantity; dotted: linear from the last point."""
    size = (3.5 * len(panels), 2.8)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for panel, (quantity, lines) in zip(axes[0], panels.items(), strict=True):
        for name, values in lines.items():
            panel.loglog(rows, values, marker=".", label=name)
            panel.loglog(rows, values[-1] * np.asarray(rows) / rows[-1], ":", color="grey", lw=0.7)
        panel.set(xlabel="events", ylabel=quantity)
        panel.legend(fontsize=7)
    return png(figure)


def hours_by_behaviour(sides: Mapping[str, Sequence[Day]], catalogue: Catalogue) -> bytes:
    """Heat maps of when each behaviour happens, one per side (real, generated), on one scale."""
    counts = {}
    for name, days in sides.items():
        table = np.zeros((len(catalogue.behaviours), 24))
        for day in days:
            hours = np.asarray(day.slot, int) * 24 // catalogue.slots_per_day
            np.add.at(table, (np.asarray(day.behaviour, int), hours), 1)
        counts[name] = table / max(1, table.sum())
    highest = max(table.max() for table in counts.values())
    size = (5 * len(counts), max(2.5, 0.2 * len(catalogue.behaviours)))
    figure, axes = plt.subplots(1, len(counts), figsize=size, sharey=True, squeeze=False)
    for panel, (name, table) in zip(axes[0], counts.items(), strict=True):
        panel.imshow(table, cmap="viridis", vmin=0, vmax=highest, aspect="auto")
        panel.set(title=name, xlabel="hour of the day")
    names = _names(catalogue.behaviours)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=6)
    return png(figure)
