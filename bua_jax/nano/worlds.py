"""Worlds: a label set, places, a clock and one person's events, drawn anew for every dialogue.

A person has favourite behaviours, usual successors, hours and places of each; how strongly differs
from world to world, so that counts are anything from one to all events. Nothing of a world is the
simulated population of the experiments, and its seeds are strings that no run can give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from bua_jax.dialogue.facts import Window
from bua_jax.events.schema import Catalogue, EventStore
from bua_jax.events.windows import history
from bua_jax.nano.labels import MOST_LABELS, label_set


@dataclass(frozen=True)
class World:
    """Events of one person, int lists of one length; `place` codes areas, `gap` unknown times before."""

    catalogue: Catalogue
    shares: np.ndarray  # float64[C], how common each behaviour is among others
    day: list[int]
    slot: list[int]
    place: list[int]
    behaviour: list[int]
    gap: list[bool]
    first_weekday: int


def _favourites(rng: Random, count: int, sharpness: float) -> list[float]:
    """Weights that fall like ranks to the power of `sharpness`, in random order."""
    weights = [(rank + 1.0) ** -sharpness for rank in range(count)]
    rng.shuffle(weights)
    return weights


def draw_world(rng: Random, length: int, pieces: Sequence[str] = ()) -> World:
    """A world whose record has `length` events; `pieces` as in `labels.label_set`."""
    count = min(MOST_LABELS, max(2, round(2.718281828 ** rng.uniform(0.7, 3.9))))
    slots = rng.choice((24, 48))
    catalogue = Catalogue(label_set(rng, count, pieces), slots, rng.random() < 0.8)
    weights = _favourites(rng, count, rng.choice((0.0, 0.5, 1.0, 1.5, 2.0)))
    follow = [rng.randrange(count) for _ in range(count)]
    hours = [rng.randrange(slots) for _ in range(count)]
    homes = [rng.randrange(12) for _ in range(count)]
    strength, again, timed, moved = (rng.random() * most for most in (0.8, 0.3, 0.6, 0.5))
    main = rng.randrange(12)
    wake, per_day = rng.randrange(slots // 2), rng.choice((2, 4, 6, 9, 14))
    everyone = range(count)
    day = slot = 0
    slot, last = wake, rng.choices(everyone, weights)[0]
    columns: list[tuple[int, int, int, int, bool]] = []
    while len(columns) < length:
        if rng.random() < 1 / per_day or slot >= slots:
            gap = rng.random() < 0.06
            day += rng.choice((1, 1, 1, 2, 7)) if gap or rng.random() < 0.05 else 1
            slot = max(0, min(slots - 1, wake + rng.randint(-1, 2)))
        else:
            gap = rng.random() < 0.01
        if rng.random() < timed:
            near = [b for b in everyone if abs(hours[b] - slot) <= slots // 12]
            last = rng.choice(near) if near else last
        elif rng.random() < again:
            pass
        elif rng.random() < strength:
            last = follow[last]
        else:
            last = rng.choices(everyone, weights)[0]
        place = (
            rng.randrange(14)
            if rng.random() < 0.1
            else homes[last]
            if rng.random() < moved
            else main
        )
        columns.append((day, slot, place, last, gap and bool(columns)))
        slot += rng.choice((0, 0, 1, 1, 2, 3))
    days, slots_, places, behaviours, gaps = (list(column) for column in zip(*columns, strict=True))
    shares = np.asarray([w + 0.1 * rng.random() for w in _favourites(rng, count, 1.0)])
    shares /= shares.sum()
    return World(catalogue, shares, days, slots_, places, behaviours, gaps, rng.randrange(7))


def window_of(world: World, start: int, end: int, name: str) -> Window:
    """Events[start:end] of a world as an annotator sees them."""
    day = np.asarray(world.day, np.int32)
    store = EventStore(
        catalogue=world.catalogue,
        users=np.asarray(["nano"]),
        split=np.zeros(1, np.int8),
        offsets=np.asarray([0, len(day)], np.int64),
        day=day,
        weekday=((world.first_weekday + day) % 7).astype(np.int8),
        slot=np.asarray(world.slot, np.int16),
        location=np.asarray(world.place, np.int32),
        behaviour=np.asarray(world.behaviour, np.int16),
        gap=np.asarray(world.gap, bool),
    )
    return Window(history(store, start, end), world.catalogue, world.shares, name)
