"""What of a text is true of a window, and what is not: for readers, and as reasons for whoever wrote it."""

import itertools
import re

import numpy as np

from bua_jax.dialogue import facts
from bua_jax.dialogue.facts import Window
from bua_jax.evaluation.understanding.checks import Ground, holds
from bua_jax.evaluation.understanding.claims import Claim, read
from bua_jax.evaluation.understanding.marks import CLOSE, OPEN, plain

UNCHECKED, UNKNOWN, TRUE, FALSE = range(4)
VERDICTS = {TRUE: "true", FALSE: "false", UNKNOWN: "not checkable", UNCHECKED: ""}
"""By number; what is worse wins where claims overlap. "": no claim is made there."""


def untrue(window: Window, text: str) -> list[tuple[str, str]]:
    """(aspect, what is said) of each false claim, each once; a behaviour that does not occur counts once.

    A text without any claim, as a refusal is, has the aspect "nothing".
    """
    reading, ground = read(window.catalogue, text), Ground(window)
    if not reading.said:
        return [("nothing", "a text says nothing of what the events show")]
    found = []
    for claim, start, end in reading.said:
        if holds(ground, claim) is not False:
            continue
        names = ", ".join(window.label(b) for b in claim.about)
        said = plain(window.catalogue, reading.marked[start:end])
        if claim.aspect == "behaviours":
            found.append((claim.aspect, f"{names} does not occur"))
        else:
            said = f"L{said}" if claim.aspect == "places" and said.isdigit() else said
            what = claim.kind if claim.kind in ("home", "work") else claim.aspect
            right = _right(ground, claim)
            found.append((claim.aspect, f"{what} of {names or 'the person'}: {said!r}{right}"))
    return list(dict.fromkeys(found))


def _right(ground: Ground, claim: Claim) -> str:
    """`, expected ...` where there is one thing that would be true, else nothing."""
    known: dict[tuple[str, str], object] = {
        ("places", "home"): f"L{ground.home[0]}" if ground.home[0] else "",
        ("places", "work"): f"L{ground.work[0]}" if ground.work[0] else "",
        ("traits", "rhythm"): facts.rhythm(ground.window),
        ("traits", "regularity"): facts.regularity(ground.window),
    }
    if claim.aspect == "counts" and not claim.kind and len(claim.about) == 1:
        total = f" of {len(ground.window.history)}" if len(claim.value) > 1 else ""
        return f", expected {ground.window.counts[claim.about[0]]}{total}"
    right = known.get((claim.aspect, claim.kind))
    return f", expected {right}" if right else ""


def judged(window: Window, text: str) -> list[tuple[str, str]]:
    """The text in pieces (words, verdict), which together are the text; see `VERDICTS`."""
    reading, ground = read(window.catalogue, text), Ground(window)
    catalogue, marked = window.catalogue, reading.marked
    worst = np.zeros(
        len(plain(catalogue, marked)), np.int8
    )  # a label has as many letters as its words
    for claim, start, end in reading.said:
        true = holds(ground, claim)
        verdict = UNKNOWN if true is None else TRUE if true else FALSE
        at = len(plain(catalogue, marked[:start]))
        part = slice(at, at + len(plain(catalogue, marked[start:end])))
        worst[part] = np.maximum(worst[part], verdict)
    cuts = [0, *(np.flatnonzero(np.diff(worst)) + 1).tolist(), len(worst)]
    shown = re.sub(f"[{OPEN}{CLOSE}]", "", text)  # as `marks.marked` reads it
    return [(shown[a:b], VERDICTS[int(worst[a])]) for a, b in itertools.pairwise(cuts) if a < b]
