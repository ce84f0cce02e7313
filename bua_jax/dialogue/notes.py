"""What one model wrote about a person, as a note before the log that another reads (Table 3, "-cross")."""

import re
from collections.abc import Mapping
from functools import lru_cache

from bua_jax.events.schema import Catalogue

_AHEAD = re.compile(
    r"\b(next|will|going to|about to|upcoming|predict\w*|expected to|likely to|soon)\b",
    re.IGNORECASE,
)
_LABEL = "\0"
_SENTENCE = re.compile(r"[.;!?\n]")


def background(note: str) -> str:
    """The line that stands before a log; nothing where there is no note."""
    return f"Background on this person: {note}\n" if note else ""


def summary_of(texts: Mapping[str, str]) -> str:
    """The summary among a person's texts by round, the refined one where there is one; in one line."""
    return " ".join((texts.get("refinement") or texts.get("summary", "")).split())


@lru_cache(maxsize=8)
def _named(catalogue: Catalogue) -> re.Pattern[str]:
    """Any label as a whole; of labels within each other the longest."""
    labels = sorted(catalogue.behaviours, key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(b)}(?!\w)" for b in labels), re.IGNORECASE)


def states_next(catalogue: Catalogue, text: str) -> bool:
    """Whether a sentence names a behaviour and looks ahead, with words that are no part of its label.

    Read off the form alone, as what came next is not known here; so too much is refused rather than too
    little.
    """
    sentences = _SENTENCE.split(_named(catalogue).sub(_LABEL, text))
    return any(_LABEL in one and _AHEAD.search(one) is not None for one in sentences)
