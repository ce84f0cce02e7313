"""Pairs whose better text is known: true ones about the items' people, and the same spoilt by the ladder."""

from collections.abc import Sequence
from typing import NamedTuple

from bua_jax.evaluation.rating.items import plain
from bua_jax.evaluation.understanding.ladder import LADDER, STRENGTHS, Source, corrupted

SHORTENS = "drop claims"
"""The corruption after which the worse text is the shorter one: who likes long texts sees it for that."""
RUNGS = tuple((corruption, strength) for strength in STRENGTHS for corruption in LADDER)


class Spoilt(NamedTuple):
    """A true text about the person of the `item`-th item, and what is left of it."""

    item: int
    text: str
    spoilt: str
    corruption: str
    strength: float


def spoil(sources: Sequence[Source], names: Sequence[str], number: int) -> list[Spoilt]:
    """At most `number` pairs, as evenly over items, corruptions and strengths as can be.

    sources: a true text for each item; names: of the items, which the spoilt places are drawn from. A text
    that a corruption leaves as it is, or leaves nothing of, makes no pair; none is made twice.
    """
    found: list[Spoilt] = []
    seen: set[tuple[int, str]] = set()
    for turn in range(len(RUNGS)):
        for item, (source, name) in enumerate(zip(sources, names, strict=True)):
            corruption, strength = RUNGS[(item + turn) % len(RUNGS)]
            text = corrupted(corruption, [source], [name], 0.0)[0]
            (left,) = corrupted(corruption, [source], [name], strength)
            if plain(left) in ("", plain(text)) or (item, left) in seen:
                continue
            seen.add((item, left))
            found.append(Spoilt(item, text, left, corruption.name, strength))
            if len(found) == number:
                return found
    return found
