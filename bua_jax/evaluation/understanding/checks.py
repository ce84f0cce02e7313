"""Whether claims are true of a window, and which of its facts are the strongest.

One error counts once: a claim about a behaviour that the person does not do is a false behaviour, and is not
judged in other aspects as well.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

from bua_jax.dialogue import facts
from bua_jax.dialogue.facts import MOST, Window
from bua_jax.evaluation.understanding.claims import ASPECTS, Claim

_STRONGEST = {"behaviours": 3, "order": 2, "traits": 2}  # facts of a kind that a text should hold


@dataclass(frozen=True)
class Ground:
    """A window with what is asked of it again and again."""

    window: Window

    @cached_property
    def home(self) -> tuple[int, int, int]:
        return facts.home(self.window)

    @cached_property
    def home_stated(self) -> int:
        """The place that work is another one than: home, or what is visited most (`rules.home_work`)."""
        seen = facts.ranked(Counter(p for p in self.window.places if p))
        return self.home[0] or (seen[0][0] if seen else 0)

    @cached_property
    def work(self) -> tuple[int, int, int]:
        return facts.work(self.window, self.home_stated)

    @cached_property
    def traits(self) -> list[str]:
        return facts.traits(self.window, len(self.window.catalogue.behaviours))

    @cached_property
    def slots(self) -> dict[int, list[int]]:
        return {b: facts.slots_of(self.window, b) for b in self.window.counts}

    @cached_property
    def timed(self) -> frozenset[int]:
        """Behaviours of which it can be said when they happen."""
        return frozenset(b for b, slots in self.slots.items() if facts.when(self.window, slots))

    @cached_property
    def strong(self) -> tuple[int, frozenset[int]]:
        """(how many, behaviours among which these are): the most frequent, ties with the last included."""
        ranked = facts.ranked(self.window.counts)[: _STRONGEST["behaviours"]]
        least = ranked[-1][1]
        return len(ranked), frozenset(b for b, n in self.window.counts.items() if n >= least)

    @cached_property
    def pairs(self) -> tuple[int, frozenset[tuple[int, int]]]:
        """Likewise of recurring pairs of different behaviours."""
        counts = Counter(
            {
                (g[0], g[1]): len(at)
                for g, at in facts.grams(self.window, 2).items()
                if len(at) > 1 and g[0] != g[1]
            }
        )
        ranked = facts.ranked(counts)[: _STRONGEST["order"]]
        least = ranked[-1][1] if ranked else 0
        return len(ranked), frozenset(pair for pair, n in counts.items() if n >= least)


# ------------------------------------------------------------------------------------- true or false


def holds(ground: Ground, claim: Claim) -> bool | None:
    """Whether a claim is true of the window; None where it is about what the person does not do."""
    window = ground.window
    if claim.aspect == "behaviours":
        return window.counts[claim.about[0]] > 0
    if any(not window.counts[b] for b in claim.about):
        return None
    return _CHECKS[claim.aspect](ground, claim)


def _count(ground: Ground, claim: Claim) -> bool:
    window, about, total = ground.window, claim.about, len(ground.window.history)
    said = claim.value
    if claim.kind == "":
        if len(about) > 1:
            return said == (len(facts.grams(window, len(about)).get(about, ())),)
        return said[0] == window.counts[about[0]] and said[1:] in ((), (total,))
    if claim.kind == "after":
        found, of = _successors(window, about[:-1])
        return said == (found[about[-1]], of)
    if claim.kind == "then":
        listed, of = facts.this_time(window)
        return said == (dict(listed).get(about[0], 0), of)
    if claim.kind == "opens":
        first = sum(window.behaviours[i] == about[0] for i in window.starts)
        return said == (first, len(window.starts))
    if claim.kind == "moves":
        move = _moves(window, about[0])
        return said == move
    if claim.kind == "at":
        place = int(said[2])
        here = [b for b, p in zip(window.behaviours, window.places, strict=True) if p == place]
        return said[:2] == (here.count(about[0]), len(here))
    if claim.kind == "weekend":
        return said == (sum(d >= 5 for d in window.history.weekday.tolist()), total)
    return said == (ground.home if claim.kind == "home" else ground.work)[1:]


def _successors(window: Window, chain: tuple[int, ...]) -> tuple[Counter[int], int]:
    """What followed a chain, also on the next day, never behind a gap; and how often anything did."""
    codes, gap, n = window.behaviours, window.gaps, len(chain)
    found = Counter(
        codes[i + n]
        for i in range(len(codes) - n)
        if tuple(codes[i : i + n]) == chain and not any(gap[i + 1 : i + n + 1])
    )
    return found, found.total()


def _moves(window: Window, behaviour: int) -> tuple[int, int]:
    """How often a behaviour came with another place than what was before it that day, and chances."""
    inside = [i for run in window.runs for i in run[1:] if window.behaviours[i] == behaviour]
    return sum(window.places[i] != window.places[i - 1] for i in inside), len(inside)


def _time(ground: Ground, claim: Claim) -> bool:
    window, about, said = ground.window, claim.about, claim.value
    if claim.kind == "now":
        weekday = int(window.history.weekday[-1])
        return said[0] in (-1, weekday) and said[1] == window.slots[-1]
    if claim.kind == "event":
        return said[0] in ground.slots[about[0]]
    if claim.kind == "then":
        rows = zip(window.behaviours, window.slots, window.days, strict=True)
        earlier = [slot for b, slot, d in rows if b == about[0] and d < 0]
        return any(facts.near(window, [slot], int(said[0])) for slot in earlier)
    if claim.kind == "opens":
        slots = [window.slots[i] for i in window.starts if window.behaviours[i] == about[0]]
    elif len(about) > 1:
        slots = [window.slots[i] for i in facts.grams(window, len(about)).get(about, ())]
    else:
        slots = ground.slots[about[0]]
    if not slots:
        return False
    if isinstance(said[0], str):
        hours = [slot * 24 // window.catalogue.slots_per_day for slot in slots]
        return sum(facts.part_of_day(hour) == said[0] for hour in hours) >= MOST * len(slots)
    near = [any(facts.near(window, [s], int(t)) for t in said if int(t) >= 0) for s in slots]
    return sum(near) >= MOST * len(slots)


def _place(ground: Ground, claim: Claim) -> bool:
    window = ground.window
    if claim.kind == "moves":
        moves, chances = _moves(window, claim.about[0])
        return moves >= 2 and moves >= MOST * chances
    place = claim.value[0]
    if claim.kind in ("home", "work"):
        return place == (ground.home if claim.kind == "home" else ground.work)[0]
    if claim.kind == "visited":
        return place in window.places
    rows = list(zip(window.behaviours, window.places, window.slots, strict=True))
    if claim.kind == "event":
        return (claim.about[0], place, claim.value[1]) in rows
    if claim.kind == "mostly":
        here = Counter(b for b, p, _ in rows if p == place)
        return here[claim.about[0]] == max(here.values(), default=-1)
    own = [p for b, p, _ in rows if b == claim.about[0]]
    return own.count(int(place)) >= MOST * len(own)


def _order(ground: Ground, claim: Claim) -> bool:
    window, about = ground.window, claim.about
    if claim.kind == "never":
        return not (_successors(window, about)[1] if about else facts.recurring(window, 1))
    if claim.kind == "last":
        return tuple(window.behaviours[-len(about) :]) == about
    if claim.kind == "opens":
        first = Counter(window.behaviours[i] for i in window.starts)
        return first[about[0]] >= max(2, 0.5 * len(window.starts))
    return _successors(window, about[:-1])[0][about[-1]] > 0


def _trait(ground: Ground, claim: Claim) -> bool:
    word = claim.value[0]
    if claim.kind == "rhythm":
        return facts.rhythm(ground.window) == word
    if claim.kind == "regularity":
        return facts.regularity(ground.window) == word
    return word in ground.traits


_CHECKS: dict[str, Callable[[Ground, Claim], bool]] = {
    "counts": _count,
    "times": _time,
    "places": _place,
    "order": _order,
    "traits": _trait,
}


# ------------------------------------------------------------------------------- what should be said


def recalled(ground: Ground, true: Collection[Claim]) -> dict[str, tuple[int, int]]:
    """By aspect (facts that are stated, facts that there are) of the window's strongest.

    true: the claims of a text that hold. Facts are the three most frequent behaviours, their exact counts and
    (where it can be said) their times; home and work; the two most recurring pairs and the last event; two
    traits, rhythm and regularity. Of what is tied with the last of them, any will do.
    """
    number, strong = ground.strong
    by = {name: [claim for claim in true if claim.aspect == name] for name in ASPECTS}

    def stated(aspect: str, kinds: tuple[str, ...] = ("", "named", "around", "part")) -> set[int]:
        single = (c for c in by[aspect] if len(c.about) == 1 and c.kind in kinds)
        return {c.about[0] for c in single} & strong

    top = facts.ranked(ground.window.counts)[:number]
    timed = sum(b in ground.timed for b, _ in top)
    anchors = {"home": ground.home[0], "work": ground.work[0]}
    anchors = anchors if ground.window.catalogue.has_places else {}
    places = [kind for kind, place in anchors.items() if place]
    chains = (c.about for c in by["order"] if c.kind in ("follows", "after"))
    said = {pair for chain in chains for pair in itertools.pairwise(chain)}
    pairs, recurring = ground.pairs
    last = any(c.kind == "last" for c in by["order"])
    traits = ground.traits[: _STRONGEST["traits"]]
    words = {c.value[0] for c in by["traits"]}
    other = {c.kind for c in by["traits"]} & {"rhythm", "regularity"}
    return {
        "behaviours": (min(number, len(stated("behaviours"))), number),
        "counts": (min(number, len(stated("counts"))), number),
        "times": (min(timed, len(stated("times") & ground.timed)), timed),
        "places": (sum(any(c.kind == k for c in by["places"]) for k in places), len(places)),
        "order": (min(pairs, len(said & recurring)) + last, pairs + 1),
        "traits": (sum(t in words for t in traits) + len(other), len(traits) + 2),
    }
