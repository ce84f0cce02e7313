"""What kinds of activity labels stand for: words of a label -> a trait of those who do it often."""

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Kind:
    """A kind of activity. `trait` is empty for what everybody does; `leisure` may be a hobby."""

    trait: str
    words: frozenset[str]
    leisure: bool


def _kind(trait: str, words: str, leisure: bool) -> Kind:
    return Kind(trait, frozenset(words.split()), leisure)


KINDS: tuple[Kind, ...] = (  # the first that shares a word with the label
    _kind("", "alarm sleep pay payment charge wake wash", False),
    _kind("studious", "learn study college university school course class library", True),
    _kind("work-focused", "email meeting document work office professional receipt job", False),
    _kind("sociable", "chat call phone message social party event nightlife bar friends", True),
    _kind("food-loving", "cook breakfast takeout food restaurant eat eating bake drink", True),
    _kind("fond of shopping", "shop shopping store prices coupon mall clothing", True),
    _kind("often on the move", "subway drive travel transport bus train taxi car refuel", False),
    _kind("active outdoors", "running hike outdoors sports athletics gym walk bike park", True),
    _kind(
        "entertainment-seeking",
        "video game music movie theater arts entertainment stream tournament tv",
        True,
    ),
    _kind("information-driven", "news weather read reading stocks museum search", True),
    _kind("home-loving", "home residence plants house", False),
    _kind("health-minded", "medical doctor health hospital", False),
)
UNKNOWN = Kind("", frozenset(), True)
"""Of labels that say nothing to us: they may be hobbies and lend no trait."""


@lru_cache(maxsize=4096)
def kind_of(label: str) -> Kind:
    """The kind of activity that a label names."""
    words = set(re.findall(r"[^\W\d_]+", label.casefold()))
    return next((kind for kind in KINDS if kind.words & words), UNKNOWN)
