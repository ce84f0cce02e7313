"""What can be counted in a window: the ground of every answer and of the critic.

A `Window` holds the history, what its ids mean, and how common each behaviour is among training
users; nothing else, so no fact can know the target. Claims are conservative: "around 08:30" is said
only if most of the events lie within an hour of it, and a day that may be cut off has no opening.
"""

import hashlib
import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter

import numpy as np

from bua_jax.dialogue.traits import kind_of
from bua_jax.events.schema import Catalogue, History

SCENE_HOURS = 2
MOST = 0.6  # the share from which "around", "in the" and "usually" are said


@dataclass(frozen=True)
class Window:
    """A history with what is needed to speak about it. `shares`: float64[C] over training users."""

    history: History
    catalogue: Catalogue
    shares: np.ndarray
    sample_id: str
    seed: int = 0

    def label(self, behaviour: int) -> str:
        return self.catalogue.behaviours[behaviour]

    def choose(self, kind: str, options: Sequence[str]) -> str:
        """One of `options`, fixed by seed, sample and kind."""
        digest = hashlib.sha256(f"{self.seed}|{self.sample_id}|{kind}".encode()).digest()
        return options[digest[0] % len(options)]

    def clock(self, slot: int) -> str:
        return self.catalogue.clock(slot)

    @cached_property
    def slots(self) -> list[int]:
        return self.history.slot.tolist()

    @cached_property
    def behaviours(self) -> list[int]:
        return self.history.behaviour.tolist()

    @cached_property
    def places(self) -> list[int]:
        return self.history.place.tolist()

    @cached_property
    def days(self) -> list[int]:
        return self.history.day.tolist()

    @cached_property
    def gaps(self) -> list[bool]:
        return self.history.gap.tolist()

    @cached_property
    def hours(self) -> list[int]:
        """Hour of the day of each event."""
        per_day = self.catalogue.slots_per_day
        return [slot * 24 // per_day for slot in self.slots]

    @cached_property
    def counts(self) -> Counter[int]:
        """Events per behaviour."""
        return Counter(self.behaviours)

    @cached_property
    def most(self) -> list[tuple[int, int]]:
        """(behaviour, events), the most frequent first."""
        return ranked(self.counts)

    @cached_property
    def positions(self) -> dict[int, list[int]]:
        """Where each behaviour's events stand."""
        found: dict[int, list[int]] = {behaviour: [] for behaviour in self.counts}
        for i, behaviour in enumerate(self.behaviours):
            found[behaviour].append(i)
        return found

    @cached_property
    def runs(self) -> list[range]:
        """Stretches of events of one day without an unknown gap between them."""
        day, gap = self.days, self.gaps
        cuts = [i for i in range(len(day)) if i == 0 or gap[i] or day[i] != day[i - 1]]
        return [range(a, b) for a, b in zip(cuts, [*cuts[1:], len(day)], strict=True)]

    @cached_property
    def starts(self) -> list[int]:
        """First events of the days that the window holds from their beginning."""
        return [run.start for run in self.runs[1:] if not self.gaps[run.start]]

    @cached_property
    def grams(self) -> dict[int, dict[tuple[int, ...], list[int]]]:
        """What `grams` has found, by length."""
        return {}

    @cached_property
    def times(self) -> dict[int, str]:
        """What `usually` has found, by behaviour."""
        return {}

    @cached_property
    def opener(self) -> tuple[int, list[int], int] | None:
        """(behaviour, its positions, days) where at least two and half of the days open with it."""
        codes = self.behaviours
        first = ranked(Counter([codes[i] for i in self.starts]))
        if not first or first[0][1] < 2 or 2 * first[0][1] < len(self.starts):
            return None
        at = [i for i in self.starts if codes[i] == first[0][0]]
        return first[0][0], at, len(self.starts)


def ranked(counts: Counter) -> list[tuple]:
    """(key, count) by falling count; ties in the order of the keys."""
    return sorted(
        sorted(counts.items()), key=itemgetter(1), reverse=True
    )  # stable, also in reverse


_ENDS = (5, 9, 12, 14, 18, 22, 24)
_PARTS = ("night", "morning", "late morning", "early afternoon", "afternoon", "evening", "night")


def part_of_day(hour: int) -> str:
    """A word for the hour."""
    return _PARTS[bisect_right(_ENDS, hour)]


def middle(slots: Sequence[int]) -> int:
    """The lower median."""
    return sorted(slots)[(len(slots) - 1) // 2]


def _close(window: Window, ordered: Sequence[int], slot: int) -> int:
    """How many of ascending slots lie within an hour of `slot`."""
    hour = window.catalogue.slots_per_day // 24
    return bisect_right(ordered, slot + hour) - bisect_left(ordered, slot - hour)


def near(window: Window, slots: Sequence[int], slot: int) -> float:
    """Share of `slots` within an hour of `slot`."""
    return _close(window, sorted(slots), slot) / len(slots)


def when(window: Window, slots: Sequence[int]) -> str:
    """When most happen, as ` around 08:30`, two such times, ` in the evening`, or nothing."""
    slots = sorted(slots)
    centre = slots[(len(slots) - 1) // 2]
    if _close(window, slots, centre) / len(slots) >= MOST:
        return f" around {window.clock(centre)}"
    early, late = split_in_two(slots)
    if len(early) >= 2 and len(late) >= 2:
        first, second = (part[(len(part) - 1) // 2] for part in (early, late))
        close = _close(window, early, first), _close(window, late, second)
        both = close[0] / len(early) >= MOST and close[1] / len(late) >= MOST
        apart = second - first > 2 * (window.catalogue.slots_per_day // 24)
        if both and apart and sum(close) >= MOST * len(slots):
            return f" around {window.clock(first)} and {window.clock(second)}"
    per_day = window.catalogue.slots_per_day
    parts = [part_of_day(slot * 24 // per_day) for slot in slots]
    part = max(set(parts), key=parts.count)
    return f" in the {part}" if parts.count(part) >= MOST * len(parts) else ""


def usually(window: Window, behaviour: int) -> str:
    """`when` a behaviour's events happen."""
    if behaviour not in window.times:
        window.times[behaviour] = when(window, slots_of(window, behaviour))
    return window.times[behaviour]


def split_in_two(ordered: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Ascending slots before and after their widest pause."""
    pauses = [b - a for a, b in itertools.pairwise(ordered)]
    cut = pauses.index(max(pauses)) + 1 if pauses else 1
    return ordered[:cut], ordered[cut:]


def slots_of(window: Window, behaviour: int) -> list[int]:
    """Slots of a behaviour's events."""
    return [window.slots[i] for i in window.positions.get(behaviour, ())]


def grams(window: Window, length: int) -> dict[tuple[int, ...], list[int]]:
    """Subsequences of `length` behaviours within a day, without gaps -> positions of their starts.

    Occurrences of the same subsequence do not overlap.
    """
    if length in window.grams:
        return window.grams[length]
    found: dict[tuple[int, ...], list[int]] = {}
    for run in window.runs:
        inside = window.behaviours[run.start : run.stop]
        for i, gram in enumerate(
            zip(*(inside[k:] for k in range(length)), strict=False), run.start
        ):
            at = found.get(gram)
            if at is None:
                found[gram] = [i]
            elif i - at[-1] >= length:
                at.append(i)
    window.grams[length] = found
    return found


def recurring(window: Window, limit: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """Subsequences of 2 or 3 behaviours that occur at least twice, most frequent first.

    Three go before the two inside them if they occur as often, which then are left out.
    """
    both = [*grams(window, 3).items(), *grams(window, 2).items()]
    found = [(gram, at) for gram, at in both if len(at) >= 2]
    kept: list[tuple[tuple[int, ...], list[int]]] = []
    for count in sorted({len(at) for _, at in found}, reverse=True):
        equal = [(gram, at) for gram, at in found if len(at) == count]
        for gram, at in sorted(equal, key=lambda one: (len({*one[0]}) == 1, -len(one[0]), one[0])):
            # what is inside another, and any chain of the same behaviours, tells nothing new
            if not any({*gram} <= {*other} for other, _ in kept):
                kept.append((gram, at))
                if len(kept) == limit:
                    return kept
    return kept


def successors(window: Window, depth: int = 1) -> tuple[list[tuple[int, int]], int]:
    """What followed earlier occurrences of the last `depth` events: ((behaviour, count)...), total.

    The next event may lie on the next day, as the next event of the window may; never behind a gap.
    """
    codes, gap = window.behaviours, window.gaps
    if len(codes) <= depth or any(gap[len(codes) - depth + 1 :]):
        return [], 0
    last = codes[-depth:]
    following = [
        codes[i + depth]
        for i in window.positions[last[0]]
        if i < len(codes) - depth
        and codes[i : i + depth] == last
        and not any(gap[i + 1 : i + depth + 1])
    ]
    return ranked(Counter(following)), len(following)


def this_time(window: Window) -> tuple[list[tuple[int, int]], int]:
    """Behaviours within an hour of this time of day on earlier days, and their total."""
    width = window.catalogue.slots_per_day // 24
    slot = window.slots[-1]
    times = zip(window.behaviours, window.slots, window.days, strict=True)
    then = [b for b, s, day in times if day < 0 and -width <= s - slot <= width]
    return ranked(Counter(then)), len(then)


def mover(window: Window) -> tuple[int, int, int] | None:
    """(behaviour, moves, chances): what comes with another place than the event before it.

    None without places, or where no behaviour moved at least twice and in most of its chances.
    """
    codes, places = window.behaviours, window.places
    begun = {run.start for run in window.runs}
    changed = [i for i in range(1, len(codes)) if places[i] != places[i - 1] and i not in begun]
    # two areas beyond the ten may be different ones: no move is claimed for them
    moves = Counter([codes[i] for i in changed])
    for behaviour, count in ranked(moves):
        if count < 2:
            break
        chances = sum(i not in begun for i in window.positions[behaviour])
        if count >= MOST * chances:
            return behaviour, count, chances
    return None


def distinctive(window: Window, limit: int, *, leisure: bool = False) -> list[int]:
    """Behaviours clearly more frequent than usual (1.3 times, 7 % of events or more), strongest first.

    Half an event is added on both sides, so that one rare event makes no giant. `leisure` leaves out
    work, travel and what everybody does.
    """
    n = len(window.history)
    least = max(2, 0.07 * n)
    lift = {
        b: (count + 0.5) / (float(window.shares[b]) * n + 0.5)
        for b, count in window.most
        if count >= least
    }
    found = [
        b
        for b in sorted(lift, key=lambda b: (-lift[b], b))
        if lift[b] >= 1.3 and (not leisure or kind_of(window.label(b)).leisure)
    ]
    return found[:limit]


def habits(window: Window, limit: int) -> list[int]:
    """The distinctive behaviours, then the most frequent ones, each once."""
    frequent = [b for b, _ in window.most]
    return list(dict.fromkeys([*distinctive(window, limit), *frequent]))[:limit]


def traits(window: Window, limit: int) -> list[str]:
    """Traits whose behaviours make up a tenth of the window and 1.2 times their usual share."""
    here: dict[str, int] = {}
    for b, count in window.most:
        trait = kind_of(window.label(b)).trait
        here[trait] = here.get(trait, 0) + count
    n = len(window.history)
    strong = {trait: count for trait, count in here.items() if trait and count >= max(3, 0.1 * n)}
    if not strong:
        return []
    usual = _usual(window.catalogue, window.shares.tobytes())
    strength = {t: (count / n) / max(usual[t], 1 / n) for t, count in strong.items()}
    found = [t for t in sorted(strength, key=lambda t: (-strength[t], t)) if strength[t] >= 1.2]
    return found[:limit]


@lru_cache(maxsize=8)
def _usual(catalogue: Catalogue, shares: bytes) -> dict[str, float]:
    """Share of each trait's behaviours; shares: float64[C] as bytes, of which a hash can be taken."""
    usual: dict[str, float] = {}
    for label, share in zip(catalogue.behaviours, np.frombuffer(shares).tolist(), strict=True):
        trait = kind_of(label).trait
        usual[trait] = usual.get(trait, 0.0) + share
    return usual


def starter(hour: int) -> str:
    """A word for who begins days at that hour."""
    return "early riser" if hour < 8 else "morning starter" if hour < 11 else "late starter"


def rhythm(window: Window) -> str:
    """A word for when this person is active: from when days begin, else from all events."""
    hours = sorted(window.hours[i] for i in window.starts)
    if len(hours) >= 2:
        return starter(middle(hours))
    late = sum(hour >= 18 for hour in window.hours)
    return "evening person" if 2 * late >= len(window.hours) else "daytime person"


def regularity(window: Window) -> str:
    """Routine-driven where few behaviours make up half of the window, varied where many do."""
    sums = itertools.accumulate(count for _, count in window.most)
    needed = next(i for i, events in enumerate(sums, 1) if 2 * events >= len(window.history))
    return "routine-driven" if needed <= 3 else "balanced" if needed <= 5 else "varied"


def home(window: Window) -> tuple[int, int, int]:
    """(place, its events, all events) from 21:00 to 7:00; place 0 if no known place is seen then.

    Ties go to the place with the better rank.
    """
    return _anchor(window, lambda hour, weekday: hour < 7 or hour >= 21, 0)


def work(window: Window, home_place: int) -> tuple[int, int, int]:
    """(place, its events, all events) on weekdays from 9:00 to 18:00, other than home.

    Place 0 unless it has at least two events and a quarter of those hours' events.
    """
    place, count, total = _anchor(
        window, lambda hour, weekday: 9 <= hour < 18 and weekday < 5, home_place
    )
    return (place, count, total) if count >= 2 and 4 * count >= total else (0, 0, total)


def _anchor(window: Window, chosen, apart: int) -> tuple[int, int, int]:
    weekdays = window.history.weekday.tolist()
    inside = [
        place
        for place, hour, weekday in zip(window.places, window.hours, weekdays, strict=True)
        if chosen(hour, weekday)
    ]
    known = ranked(Counter([p for p in inside if p and p != apart]))
    return (*known[0], len(inside)) if known else (0, 0, len(inside))


def past_scene(window: Window) -> tuple[list[int], bool]:
    """(positions of the last two hours' events, the last one included; whether these are all).

    With slots s, two hours reach back to slot s - 2 h, included: up to four slots at half-hour
    resolution, up to two at hour resolution. It is not all where the span touches an unknown gap or
    goes back beyond the window's first event; the events after that point are then given.
    """
    slots = window.catalogue.slots_per_day
    moment = [d * slots + s for d, s in zip(window.days, window.slots, strict=True)]
    limit = moment[-1] - SCENE_HOURS * slots // 24
    first = next(i for i, m in enumerate(moment) if m >= limit)
    # the gap flag of an event tells about the time right before it: one inside cuts the span
    cuts = [i for i in range(first, len(moment)) if i == 0 or window.history.gap[i]]
    return list(range(cuts[-1] if cuts else first, len(moment))), not cuts
