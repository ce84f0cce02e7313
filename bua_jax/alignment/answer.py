"""What a trained model answers, as records that print shortly and that a notebook draws.

`record` is the same as a JSON line of `predict` and `generate` has it.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN = 5  # labels of a distribution


def _texts(understanding: Mapping[str, str]) -> str:
    rows = (
        f"<dt><b>{html.escape(kind)}</b></dt><dd>{html.escape(text)}</dd>"
        for kind, text in understanding.items()
    )
    return f"<dl>{''.join(rows)}</dl>" if understanding else ""


def _bars(likely: Sequence[tuple[str, float]]) -> str:
    rows = (
        f"<tr><td>{html.escape(label)}</td><td style='text-align:right'>{100 * share:.1f} %</td>"
        f"<td style='width:16em;text-align:left'><div style='background:#4c72b0;height:.8em;"
        f"width:{100 * share:.1f}%'></div></td></tr>"
        for label, share in likely
    )
    return f"<table>{''.join(rows)}</table>"


def _hue(label: str, labels: Sequence[str]) -> int:
    return 360 * labels.index(label) // len(labels)


def _timeline(events: Sequence[Mapping[str, str]]) -> str:
    """A day from 0 to 24 h as one line of marks, a colour per behaviour, and its events in words."""
    labels = sorted({event["behaviour"] for event in events})
    marks, rows = [], []
    for event in events:
        hours, minutes = map(int, event["time"].split(":"))
        label = html.escape(event["behaviour"])
        colour = f"hsl({_hue(event['behaviour'], labels)} 60% 55%)"
        words = " | ".join((event["time"], *map(html.escape, _where(event)), label))  # quotes too
        left = (60 * hours + minutes) / 14.4
        marks.append(
            f"<div title='{words}' style='position:absolute;left:{left:.2f}%;"
            f"width:4px;height:100%;background:{colour}'></div>"
        )
        rows.append(f"<li><span style='color:{colour}'>&#9632;</span> {words}</li>")
    line = "position:relative;height:1.6em;border:1px solid #999;margin:.3em 0"
    between = "display:flex;justify-content:space-between"
    ends = f"<div style='{between}'><span>00:00</span><span>24:00</span></div>"
    return f"<div style='{line}'>{''.join(marks)}</div>{ends}<ul>{''.join(rows)}</ul>"


def _where(event: Mapping[str, str]) -> tuple[str, ...]:
    return (event["place"],) if "place" in event else ()


@dataclass(frozen=True)
class Description:
    """The texts about a person, by round, and what they depend on."""

    understanding: Mapping[str, str]
    signature: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"understanding": dict(self.understanding), "signature": self.signature}

    def __str__(self) -> str:
        return "\n".join(f"{kind}: {text}" for kind, text in self.understanding.items())

    def _repr_html_(self) -> str:
        return _texts(self.understanding)


@dataclass(frozen=True)
class NextBehaviour:
    """What comes next, how likely every label is (sum 1), what was understood, and what it depends on."""

    prediction: str
    probabilities: Mapping[str, float]
    understanding: Mapping[str, str]
    signature: str

    def likely(self, count: int = _SHOWN) -> list[tuple[str, float]]:
        """The `count` likeliest labels and their shares, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:count]

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "prediction": self.prediction,
            "probabilities": dict(self.probabilities),
            "understanding": dict(self.understanding),
            "signature": self.signature,
        }

    def __str__(self) -> str:
        return ", ".join(f"{label} {100 * share:.0f} %" for label, share in self.likely())

    def _repr_html_(self) -> str:
        return _bars(self.likely()) + _texts(self.understanding)


@dataclass(frozen=True)
class NextDay:
    """A generated day: weekday, events (time HH:MM, behaviour, place where there are any), what was
    understood, pieces of the text that were no event, what it depends on; `next` where it was asked for."""

    weekday: str
    events: tuple[Mapping[str, str], ...]
    invalid_pieces: int
    understanding: Mapping[str, str]
    signature: str
    next: NextBehaviour | None = None

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it; of `next` the prediction and its probabilities stand first."""
        first = self.next.record if self.next else {}
        return {
            **{name: first[name] for name in ("prediction", "probabilities") if name in first},
            "weekday": self.weekday,
            "events": [dict(event) for event in self.events],
            "invalid_pieces": self.invalid_pieces,
            "understanding": dict(self.understanding),
            "signature": self.signature,
        }

    def __str__(self) -> str:
        lines = (
            " | ".join((event["time"], *_where(event), event["behaviour"])) for event in self.events
        )
        return "\n".join((self.weekday, *lines))

    def _repr_html_(self) -> str:
        after = _bars(self.next.likely()) if self.next else ""
        return f"<b>{self.weekday}</b>{_timeline(self.events)}{after}{_texts(self.understanding)}"


Answer = Description | NextBehaviour | NextDay
