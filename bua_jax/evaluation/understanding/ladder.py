"""Does the measure see what it should? Texts made false on purpose, a little and more.

Each corruption spoils one thing in a growing share of its places, the same ones and more at each strength.
What measures that thing has to fall, and what measures others has to stay.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bua_jax.evaluation.counts import interval, resamples
from bua_jax.evaluation.understanding.claims import (
    ASPECTS,
    CLAUSE_END,
    Reading,
    read,
)
from bua_jax.evaluation.understanding.marks import mark_of, plain
from bua_jax.evaluation.understanding.score import (
    Subject,
    count_texts,
    text_metrics,
)

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
_HOURS = 2
_NEXT_PART = dict(
    zip(
        ("morning", "late morning", "early afternoon", "afternoon", "evening", "night"),
        ("late morning", "early afternoon", "afternoon", "evening", "night", "morning"),
        strict=True,
    )
)
_DRAWS, _SLACK = 500, 1e-9

Chosen = Callable[[int], bool]
"""Whether the i-th place of a text is spoilt."""


class Source(NamedTuple):
    """A text as it was, what it is about, and the text about somebody else."""

    reading: Reading
    subject: Subject
    other: str


def _plain(source: Source, text: str) -> str:
    return plain(source.subject.ground.window.catalogue, text)


def _replaced(source: Source, aspect: str, chosen: Chosen, new: Callable[[str], str]) -> str:
    """The text with the chosen values of an aspect's claims rewritten."""
    text = source.reading.marked
    spans = sorted({one[1:] for one in source.reading.said if one.claim.aspect == aspect})
    for number, (start, end) in reversed([*enumerate(spans)]):
        if chosen(number):
            text = text[:start] + new(text[start:end]) + text[end:]
    return _plain(source, text)


def _later(value: str) -> str:
    """Clock times two hours on; a part of the day becomes the next."""
    if value.lower() in _NEXT_PART:
        return _NEXT_PART[value.lower()]

    def shift(match: re.Match) -> str:
        return f"{(int(match[1]) + _HOURS) % 24:02d}:{match[2]}"

    return re.sub(r"(\d{1,2}):(\d\d)", shift, value)


def _doubled(value: str) -> str:
    if not value.replace(",", "").isdigit():
        return {"once": "twice"}.get(value.lower(), "4 times")
    return str(max(2 * int(value.replace(",", "")), 1))


def _swap_person(source: Source, chosen: Chosen) -> str:
    return source.other if chosen(0) else _plain(source, source.reading.marked)


def _shift_times(source: Source, chosen: Chosen) -> str:
    return _replaced(source, "times", chosen, _later)


def _scale_counts(source: Source, chosen: Chosen) -> str:
    return _replaced(source, "counts", chosen, _doubled)


def _swap_behaviours(source: Source, chosen: Chosen) -> str:
    """Behaviours become others, which the person does not do, as long as there are such."""
    window = source.subject.ground.window
    absent = [b for b in np.argsort(-window.shares, kind="stable").tolist() if not window.counts[b]]
    text = source.reading.marked
    named = dict.fromkeys(c.claim.about[0] for c in source.reading.said if c.claim.kind == "named")
    kept = [b for b in named if window.counts[b]]
    for number, (b, other) in enumerate(zip(kept, absent, strict=False)):
        if chosen(number):
            text = text.replace(mark_of(b), mark_of(other))
    return _plain(source, text)


def _drop(source: Source, chosen: Chosen) -> str:
    """Clauses are left out."""
    text = source.reading.marked
    ends = [match.end() for match in CLAUSE_END.finditer(text)]
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    return _plain(source, "".join(p for i, p in enumerate(pieces) if not chosen(i)))


@dataclass(frozen=True)
class Corruption:
    """What is done to texts, the metric that falls by it, and those that must not move."""

    name: str
    does: Callable[[Source, Chosen], str]
    falls: str
    stay: tuple[str, ...] = ()


def _others(aspect: str, *kinds: str) -> tuple[str, ...]:
    return tuple(f"{name}_{kind}" for name in ASPECTS if name != aspect for kind in kinds)


LADDER = (
    Corruption("swap the person", _swap_person, "precision"),
    Corruption(
        "shift by 2 h", _shift_times, "times_precision", _others("times", "precision", "recall")
    ),
    Corruption(
        "double counts", _scale_counts, "counts_precision", _others("counts", "precision", "recall")
    ),
    # what is said of a behaviour goes with it: other aspects lose recall, and no precision
    Corruption(
        "swap behaviours",
        _swap_behaviours,
        "behaviours_precision",
        _others("behaviours", "precision"),
    ),
    Corruption("drop claims", _drop, "recall", _others("", "precision")),
)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of them is constant."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        v = np.asarray(values, float)
        return (v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2

    a, b = ranks(x), ranks(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def corrupted(
    corruption: Corruption, sources: Sequence[Source], names: Sequence[str], strength: float
) -> list[str]:
    """The texts with a share `strength` of their places spoilt, which are drawn from the cases' names."""

    def chosen(name: str, number: int) -> bool:
        digest = hashlib.sha256(f"{corruption.name}|{name}|{number}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < strength * 2**32

    return [
        corruption.does(source, lambda i, name=name: chosen(name, i))  # type: ignore[misc]
        for source, name in zip(sources, names, strict=True)
    ]


def climb(
    people: np.ndarray,
    about: Sequence[Subject],
    texts: Sequence[str],
    others: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """The ladder of some texts, as JSON: by corruption its strengths, the metric that should fall (falls,
    values, spearman), and those of the others that left their interval over people (strayed).

    people: int[n] whose each window is; others: a text about another person for each; names: of the cases.
    The first strength is 0: the texts as they are.
    """
    sources = [
        Source(read(one.ground.window.catalogue, text), one, other)
        for one, text, other in zip(about, texts, others, strict=True)
    ]
    start = count_texts(people, about, texts)
    drawn = resamples(len(start), _DRAWS, 0)
    resampled = text_metrics(start.combined(drawn))
    found = {}
    for corruption in LADDER:
        steps = [start]
        for strength in STRENGTHS:
            spoilt = corrupted(corruption, sources, names, strength)
            steps.append(count_texts(people, about, spoilt))
        values = [text_metrics(step.total()) for step in steps]
        fell = [float(one[corruption.falls][0]) for one in values]
        strengths = (0.0, *STRENGTHS)
        known = [(s, v) for s, v in zip(strengths, fell, strict=True) if np.isfinite(v)]
        rank = spearman(*zip(*known, strict=True)) if len(known) > 1 else float("nan")
        found[corruption.name] = {
            "strengths": list(strengths),
            "falls": corruption.falls,
            "values": [v if np.isfinite(v) else None for v in fell],
            "spearman": rank if np.isfinite(rank) else None,
            "strayed": _strayed(corruption, values, resampled),
        }
    return found


def _strayed(
    corruption: Corruption,
    values: Sequence[dict[str, np.ndarray]],
    resampled: dict[str, np.ndarray],
) -> list[str]:
    """Metrics that should stay and left the interval of the texts as they are, at any strength."""
    found = []
    for metric in corruption.stay:
        if not np.isfinite(values[0][metric][0]):
            continue
        low, high = interval(resampled[metric])
        now = np.asarray([one[metric][0] for one in values[1:]])
        now = now[np.isfinite(now)]  # of nothing that is said nothing is wrong
        if np.any((now < low - _SLACK) | (now > high + _SLACK)):
            found.append(metric)
    return found
