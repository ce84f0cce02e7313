"""Self-reflection (section 3.4.3, Appendix O): scoring a drafted summary against the window's facts.

The six recurring issues and the correction criteria are the paper's; the checks are rules, so that a
score can be explained: each issue names what is missing or wrong.
"""

import re
from collections import Counter
from dataclasses import dataclass

from bua_jax.dialogue.annotators import (
    Window,
    distinctive,
    refined_summary,
    regularity,
    rhythm,
    typical_clock,
)
from bua_jax.dialogue.rounds import Dialogue, Round

CRITERIA = {
    "abstraction": "infer traits",
    "association": "link habits",
    "structure": "order traits, habits, anchors",
    "hierarchy": "lead with the strongest",
    "temporal": "calibrate counts and times",
    "personalisation": "name what is distinctive",
}
"""Issue (the six of Appendix O) -> what the refined summary must do about it."""
_CLOCK = re.compile(r"\b(\d\d:\d\d)\b")
_COUNT = re.compile(r"(\d+) times")


@dataclass(frozen=True)
class Critique:
    """`score`: share of the six checks passed, 0 to 1; `issues`: the failed ones."""

    score: float
    issues: tuple[str, ...]


def mentioned(window: Window, text: str) -> list[int]:
    """Behaviours that the text names, in order of first mention; longer labels win."""
    found: dict[int, int] = {}
    taken = text
    for b in sorted(range(len(window.catalogue.behaviours)), key=lambda b: -len(window.label(b))):
        position = taken.find(window.label(b))
        if position >= 0:
            found[b] = position
            taken = taken.replace(window.label(b), "\0" * len(window.label(b)))
    return sorted(found, key=lambda b: found[b])


def critique(window: Window, draft: str) -> Critique:
    """Checks a draft against the history."""
    counts = Counter(window.history.behaviour.tolist())
    named = mentioned(window, draft)
    grounded = [b for b in named if counts[b]]
    distinct = distinctive(window, 2)
    clocks = {typical_clock(window, b) for b in counts}
    times_right = all(clock in clocks for clock in _CLOCK.findall(draft))
    counted = {*counts.values(), *Counter(window.history.place.tolist()).values()}
    counts_right = all(int(n) in counted for n in _COUNT.findall(draft))
    order = [draft.find(word) for word in ("Habit", "Anchor")]
    passed = {
        "abstraction": rhythm(window) in draft and regularity(window) in draft,
        "association": bool(grounded) and len(grounded) == len(named),
        "structure": 0 < order[0] < order[1],
        "hierarchy": bool(named) and (not distinct or named[0] == distinct[0]),
        "temporal": bool(_CLOCK.search(draft)) and times_right and counts_right,
        "personalisation": not distinct or distinct[0] in grounded,
    }
    issues = tuple(name for name in CRITERIA if not passed[name])
    return Critique(1 - len(issues) / len(CRITERIA), issues)


def refinement_instruction(draft: str, issues: tuple[str, ...]) -> str:
    """The user turn of a refinement: draft, issues, correction criteria. Not supervised."""
    found = ", ".join(issues) or "none"
    mend = "; ".join(CRITERIA[name] for name in issues) or "keep what is right"
    return f"Draft: {draft}\nIssues: {found}.\nRefine it: {mend}."


def refinement_dialogue(window: Window, split: str, start: int, end: int, draft: str) -> Dialogue:
    """A stage-3 dialogue: the draft and its issues in the user turn, the refined summary as answer."""
    instruction = refinement_instruction(draft, critique(window, draft).issues)
    turn = Round("refinement", instruction, refined_summary(window))
    return Dialogue(window.sample_id, split, 3, "refinement", start, end, (turn,))
