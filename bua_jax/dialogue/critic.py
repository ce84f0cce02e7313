"""Self-reflection (section 3.4.3, Appendix O): scores a drafted summary against the window's facts.

The six recurring issues and the correction criteria are the paper's. The checks are rules: claims
are read off the draft clause by clause (behaviours, places, counts, times, "leading to"), and each
must be true of the window. So a score can be explained, and nothing but the history is needed.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bua_jax.dialogue import facts
from bua_jax.dialogue.annotator import Review
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.dialogue.rules import refined_summary
from bua_jax.dialogue.traits import KINDS, kind_of

CRITERIA = {
    "abstraction": "infer traits",
    "association": "link habits",
    "structure": "order traits, habits, anchors",
    "hierarchy": "lead with the strongest",
    "temporal": "calibrate counts and times",
    "personalisation": "name what is distinctive",
}
"""Issue (the six of Appendix O) -> what the refined summary must do about it."""
PASSED = 0.75
"""An aspect below this score is an issue."""

_SECTIONS = (("traits", "character", "person"), ("habits",), ("anchors",))
_VAGUE = re.compile(
    r"\b(various|several things|many things|some things|different activities|etc)\b"
)
_NUMBER = re.compile(r"\b(\d+) times\b|\((\d+) of (\d+)(?: events)?\)")
_AROUND = re.compile(r"\b(?:around|at) (\d\d:\d\d)(?: and (\d\d:\d\d))?")
_WEEKEND = re.compile(r"\b(\d+) of (\d+) events on weekends")
_PART = re.compile(r"\bin the (night|morning|late morning|early afternoon|afternoon|evening)\b")
_PLACE = re.compile(r"\bL(\d{1,2})\b")
# Our own words, which a label may share: "food-loving" does not name Food, nor "home L1" Home.
_OWN_WORDS = re.compile(
    "|".join([*(re.escape(k.trait) for k in KINDS if k.trait), r"\bhome(?= L\d)"])
)
_LINKS = ("leading to", "then")  # between the two of a linked pair
_OPENS = re.compile(r"\bopens the day\s*$")
RHYTHMS = ("early riser", "morning starter", "late starter", "evening person", "daytime person")
"""What `facts.rhythm` says."""
_REGULARITIES = ("routine-driven", "balanced", "varied")


@dataclass(frozen=True)
class Critique:
    """`score`: mean of the six `aspects`, 0 to 1; `issues`: the aspects below `PASSED`."""

    score: float
    issues: tuple[str, ...]
    aspects: dict[str, float]


def _spans(window: Window, text: str) -> list[tuple[int, int, int]]:
    """(start, end, behaviour) of labels in `text`, in order; of overlapping ones the longest."""
    text = _OWN_WORDS.sub(lambda match: " " * len(match[0]), text)
    taken: list[tuple[int, int, int]] = []
    ids = sorted(range(len(window.catalogue.behaviours)), key=lambda b: -len(window.label(b)))
    for b in ids:
        pattern = rf"(?<!\w){re.escape(window.label(b))}(?!\w)"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            if all(match.end() <= start or match.start() >= end for start, end, _ in taken):
                taken.append((match.start(), match.end(), b))
    return sorted(taken)


def mentioned(window: Window, text: str) -> list[int]:
    """Behaviours that the text names, in order of first mention; longer labels win."""
    return list(dict.fromkeys(b for _, _, b in _spans(window, text)))


def _ratio(checks: list[bool], empty: float) -> float:
    return sum(checks) / len(checks) if checks else empty


def _links(window: Window, text: str) -> list[tuple[int, int, bool]]:
    """(first, second, true) of each `A leading to B` or `A then B`."""
    spans = _spans(window, text)
    happened = facts.grams(window, 2)
    return [
        (a, b, (a, b) in happened)
        for (_, stop, a), (start, _, b) in itertools.pairwise(spans)
        if text[stop:start].strip(" ,") in _LINKS
    ]


def _claims(window: Window, text: str) -> list[bool]:
    """Truth of each count and time, read with the behaviour named last before it."""
    spans = _spans(window, text)
    return [*_counts(window, text, spans), *_times(window, text, spans)]


def _subject(text: str, spans: Sequence[tuple[int, int, int]], position: int) -> list[int]:
    """What is named last before `position` in its sentence: a behaviour, or a linked pair."""
    begin = max(text.rfind(mark, 0, position) for mark in (". ", "; ", "\n"))
    inside = [span for span in spans if begin <= span[0] and span[1] <= position]
    if not inside:
        return []
    if len(inside) > 1 and text[inside[-2][1] : inside[-1][0]].strip(" ,") in _LINKS:
        return [inside[-2][2], inside[-1][2]]
    return [inside[-1][2]]


def _counts(window: Window, text: str, spans: Sequence[tuple[int, int, int]]) -> list[bool]:
    """Truth of "n of m times" and of what is said about weekends."""
    checks = []
    for match in _NUMBER.finditer(text):
        subject = _subject(text, spans, match.start())
        count, total = int(match[1] or match[2]), int(match[3] or len(window.history))
        if len(subject) == 2:
            true = {len(facts.grams(window, 2).get((subject[0], subject[1]), []))}
        else:
            true = {window.counts[subject[0]]} if subject else set()
        checks.append(count in true and total == len(window.history))
    for match in _WEEKEND.finditer(text):
        weekend = sum(day >= 5 for day in window.history.weekday.tolist())
        checks.append((int(match[1]), int(match[2])) == (weekend, len(window.history)))
    return checks


def _times(window: Window, text: str, spans: Sequence[tuple[int, int, int]]) -> list[bool]:
    """Truth of clock times and parts of the day."""
    opened = window.opener
    checks = []

    def slots_before(position: int) -> list[int]:
        """Slots of what is named last; of the days' first events where it "opens the day"."""
        subject = _subject(text, spans, position)
        if opened is not None and subject == [opened[0]] and _OPENS.search(text, 0, position):
            return [window.slots[i] for i in opened[1]]
        return facts.slots_of(window, subject[-1]) if subject else []

    for match in _AROUND.finditer(text):
        said = [_slot(window, clock) for clock in match.groups() if clock]
        slots = slots_before(match.start())
        close = [any(facts.near(window, [s], t) for t in said if t >= 0) for s in slots]
        checks.append(_ratio(close, 0) >= 0.5)
    for match in _PART.finditer(text):
        hours = [s * 24 // window.catalogue.slots_per_day for s in slots_before(match.start())]
        checks.append(_ratio([facts.part_of_day(h) == match[1] for h in hours], 0) >= 0.5)
    return checks


def _slot(window: Window, clock: str) -> int:
    hour, minute = int(clock[:2]), int(clock[3:])
    return (hour * 60 + minute) * window.catalogue.slots_per_day // 1440 if hour < 24 else -1


def _abstraction(window: Window, text: str) -> float:
    """Traits, rhythm and regularity that are said and hold, of those said; 0 if none is."""
    total = len(window.history)
    checks = []
    for kind in KINDS:
        if kind.trait and kind.trait in text:
            here = sum(
                n for b, n in window.counts.items() if kind_of(window.label(b)).trait == kind.trait
            )
            checks.append(here >= max(3, 0.1 * total))
    checks += [facts.rhythm(window) == word for word in RHYTHMS if word in text]
    checks += [facts.regularity(window) == word for word in _REGULARITIES if word in text]
    return _ratio(checks, 0)


def _structure(text: str) -> float:
    """Traits, habits and anchors as sections, in that order; half of it for any other order."""
    low = text.casefold()
    at = [next((low.find(f"{w}:") for w in names if f"{w}:" in low), -1) for names in _SECTIONS]
    present = sum(position >= 0 for position in at) / len(at)
    return present if at == sorted(at) else present / 2


def critique(window: Window, draft: str) -> Critique:
    """Checks a draft against the history. Any text is accepted; an empty one scores 0."""
    named = mentioned(window, draft)
    grounded = [window.counts[b] > 0 for b in named]
    links = [true for _, _, true in _links(window, draft)]
    places = [int(p) in window.places for p in _PLACE.findall(draft)]
    pairs = facts.grams(window, 2).items()
    possible = any(len(at) >= 2 and a != b for (a, b), at in pairs)
    strong = facts.habits(window, 3)
    distinct = facts.distinctive(window, 3) or strong
    aspects = {
        "abstraction": _abstraction(window, draft),
        "association": _ratio(grounded + links + places, 0)
        * (1.0 if links or not possible else 0.5),
        "structure": _structure(draft),
        "hierarchy": 0.0 if not named else 1.0 if named[0] in strong else 0.5 * grounded[0],
        "temporal": _ratio(_claims(window, draft), 0),
        "personalisation": (0.5 if _VAGUE.search(draft.casefold()) else 1.0)
        * float(any(b in distinct for b in named)),
    }
    issues = tuple(name for name in CRITERIA if aspects[name] < PASSED)
    return Critique(sum(aspects.values()) / len(aspects), issues, aspects)


def refinement_instruction(draft: str, issues: tuple[str, ...]) -> str:
    """The user turn of a refinement: draft, issues, correction criteria. Not supervised."""
    found = ", ".join(issues) or "none"
    mend = "; ".join(CRITERIA[name] for name in issues) or "keep what is right"
    return f"Draft: {draft}\nIssues: {found}.\nRefine it: {mend}."


def build_refinement(window: Window, draft: str, found: Critique) -> Round:
    """Draft, its issues and the criteria as instruction; the refined summary as answer."""
    instruction = refinement_instruction(draft, found.issues)
    return Round("refinement", instruction, refined_summary(window))


def reviewed(window: Window, draft: str) -> Review:
    """What the rules say of a draft."""
    found = critique(window, draft)
    return Review(found.score, found.issues, refined_summary(window))


def refinement_dialogue(
    window: Window, split: str, start: int, end: int, draft: str, review: Review
) -> Dialogue:
    """A stage-3 dialogue about a drafted summary."""
    turn = Round("refinement", refinement_instruction(draft, review.issues), review.refined)
    return Dialogue(window.sample_id, split, 3, "refinement", start, end, (turn,))
