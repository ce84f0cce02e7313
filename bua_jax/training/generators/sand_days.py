"""People's days as SAND reads them: stretches of time, each within an hour, that end with events or hours."""

from typing import Any, NamedTuple

import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.models.sand import Knots

HOURS = 24


class Past(NamedTuple):
    """Events before a day, which is day 1: `day` 0 is the day before it, earlier ones are negative."""

    day: np.ndarray  # int[L], ascending
    slot: np.ndarray  # int[L]
    behaviour: np.ndarray  # int[L]


class Known(NamedTuple):
    """A day that is learnt: its weekday, its events' times (of a day, ascending), and what was before."""

    weekday: int
    time: np.ndarray  # float[M], 0 to 1
    behaviour: np.ndarray  # int[M]
    past: Past


def times_of(slot: np.ndarray, slots: int, day: np.ndarray | int = 0) -> np.ndarray:
    """float64[M]: times of day of events by their slots int[M], ascending within each `day`.

    Within a slot nobody knows them: m events of one are spread evenly, the j-th at (j + 1/2) / m of it.
    """
    if not len(slot):
        return np.zeros(0)
    place = np.asarray(day) * slots + slot
    begin = np.flatnonzero(np.append(True, np.diff(place) != 0))
    counts = np.diff(np.append(begin, len(slot)))
    within = np.arange(len(slot)) - np.repeat(begin, counts)
    return (slot + (within + 0.5) / np.repeat(counts, counts)) / slots


def width_of(replay_days: int, length: int, most: int) -> int:
    """Stretches of a day and of what is read before it, at most: hours, events before it, its own."""
    return HOURS * (replay_days + 1) + length + most


def knots_of(known: Known, slots: int, replay_days: int, width: int, *, whole: bool) -> Knots:
    """The last `replay_days` before a day, from their first event on; with `whole` that day too; [width]."""
    past, first = known.past, 1
    if len(past.day):
        first = max(int(past.day[0]), 1 - replay_days)
    kept = past.day >= first
    day, slot = past.day[kept], past.slot[kept]
    time = day + times_of(slot, slots, day)
    behaviour = past.behaviour[kept]
    last = 2 if whole else 1
    if whole:
        time = np.concatenate([time, 1 + known.time])
        behaviour = np.concatenate([behaviour, known.behaviour])
    hours = HOURS * (last - first)
    ends = np.concatenate([time, first + np.arange(1, hours + 1) / HOURS])
    event = np.concatenate([behaviour, np.full(hours, -1)])
    order = np.argsort(ends, kind="stable")
    ends, event = ends[order], event[order]
    passed: np.ndarray = np.cumsum(event < 0) - (event < 0)  # full hours before each stretch
    found: dict[str, np.ndarray] = {
        "dt": np.diff(ends, prepend=first),
        "hour": passed % HOURS,
        "weekday": (known.weekday + first - 1 + passed // HOURS) % 7,
        "event": event,
        "counted": passed // HOURS + first == 1,
    }
    filler: dict[str, Any] = {"dt": 0.0, "hour": 0, "weekday": 0, "event": -1, "counted": False}
    kinds: dict[str, Any] = {"dt": np.float32, "counted": bool}
    padded = {
        name: np.append(x, np.full(width - len(x), filler[name])).astype(kinds.get(name, np.int32))
        for name, x in found.items()
    }
    return Knots(**padded)


def stacked(many: list[Knots]) -> Knots:
    """[n, K] each."""
    return Knots(*(np.stack(x) for x in zip(*many, strict=True)))


def known_days(store: EventStore, split: str, most: int, length: int) -> list[Known]:
    """Every day with events of the people of a split, and at most `length` events before it.

    A day that an unknown gap cuts is none, and before a day that begins behind one nothing is known. Of a
    day's events the first `most` are kept.
    """
    found = []
    for user in store.users_of_split(split):
        first, last = int(store.offsets[user]), int(store.offsets[user + 1])
        days = store.day[first:last]
        begins = first + np.flatnonzero(np.append(True, np.diff(days) != 0))
        start = first
        for begin, end in zip(begins, np.append(begins[1:], last), strict=True):
            gaps = np.flatnonzero(store.gap[begin:end])
            if store.gap[begin]:
                start = int(begin)
            if len(gaps) and gaps[-1] > 0:
                start = int(begin + gaps[-1])
                continue
            here, before = slice(begin, end), slice(max(start, begin - length), begin)
            order = np.argsort(store.slot[here], kind="stable")  # clocks may be put back
            times = times_of(store.slot[here][order], store.catalogue.slots_per_day)
            past = Past(
                store.day[before] - store.day[begin] + 1,
                store.slot[before],
                store.behaviour[before],
            )
            behaviour = store.behaviour[here][order]
            weekday = int(store.weekday[begin])
            found.append(Known(weekday, times[:most], behaviour[:most], past))
    return found
