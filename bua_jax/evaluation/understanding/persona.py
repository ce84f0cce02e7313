"""What texts say of simulated people, held against who these are (`events.simulate.Persona`).

A window need not show all of a persona, so that recall is below 1 for a perfect reader of the window too;
what counts is which of two texts tells more.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bua_jax.dialogue.facts import starter
from bua_jax.evaluation.understanding.claims import Claim
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import Persona

FIELDS = ("pattern", "chronotype", "hobbies", "home", "work", "change")
_PATTERNS = {  # words of a text -> patterns that they fit
    r"\bhome office\b|\bworks? (?:from|at) home\b": ("home office",),
    r"(?<!home )\boffice (?:worker|job|hours)\b|\bcommut(?:es?|ing|er)\b": ("office",),
    r"\bshift work(?:er)?\b|\bworks? (?:in )?shifts\b": ("shift",),
    r"\bstudents?\b|\bstudious\b": ("student",),
    r"\bretired\b|\bretiree\b|\bpensioner\b": ("retired",),
    r"\bwork-focused\b": ("office", "shift", "home office"),
}
_CHANGE = re.compile(
    r"\b(?:changed? (?:of|in) (?:routine|habits|phase|life)|new (?:routine|phase|habits)|used to"
    r"|no longer|habits changed)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Known:
    """The person of a window: `home` and `work` as places of the window, 0 where it does not show them."""

    persona: Persona
    home: int
    work: int
    changed: bool  # whether the second phase of life begins within the window
    hobbies: frozenset[int]  # labels
    others: frozenset[int]  # labels that are hobbies of others alone


def known(
    store: EventStore,
    persona: Persona,
    hobbies: Collection[str],
    start: int,
    end: int,
    places: Sequence[int],
) -> Known:
    """Of the window events[start:end]; hobbies: of anybody; places: int[L], of its history."""
    codes = store.location[start:end].tolist()
    rank = dict(zip(codes, places, strict=True))
    first, last = int(store.day[start]), int(store.day[end - 1])
    ids = {label: b for b, label in enumerate(store.catalogue.behaviours)}
    return Known(
        persona,
        rank.get(persona.home, 0),
        rank.get(persona.work, 0) if persona.work >= 0 else 0,
        first < persona.change_day <= last,
        frozenset(ids[name] for name in persona.hobbies),
        frozenset(ids[name] for name in {*hobbies} - {*persona.hobbies} if name in ids),
    )


def against(person: Known, text: str, claims: Collection[Claim]) -> np.ndarray:
    """float64[6, 4]: of each of `FIELDS` what is said, of that true, what there is to say, of that said."""
    behaviours = {c.about[0] for c in claims if c.aspect == "behaviours"}
    liked, all_named = behaviours & person.hobbies, behaviours & (person.hobbies | person.others)
    rhythm = {str(c.value[0]) for c in claims if c.kind == "rhythm"}
    fits = [kinds for words, kinds in _PATTERNS.items() if re.search(words, text, re.IGNORECASE)]
    wakes = starter(person.persona.wake_slot // 2)
    change = bool(_CHANGE.search(text))
    rows = [
        _one([person.persona.pattern in kinds for kinds in fits], 1),
        _one([word == wakes for word in rhythm], 1),
        (len(all_named), len(liked), len(person.hobbies), len(liked)),
        *(
            _one(
                [c.value[0] == place for c in claims if c.kind == name and c.aspect == "places"],
                place,
            )
            for name, place in (("home", person.home), ("work", person.work))
        ),
        _one([person.changed] * change, person.changed),
    ]
    return np.asarray(rows, float)


def _one(said: Sequence[bool], there: int | bool) -> tuple[int, int, int, int]:
    """Of a field with one value: claims, true ones, whether there is a value, whether it is said."""
    return len(said), sum(said), int(bool(there)), int(bool(there) and any(said))
