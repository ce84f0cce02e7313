"""Small event stores for the tests of dialogues: random ones, and hand-made ones."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from bua_jax.events.schema import Catalogue, EventStore

LABELS = ("chat", "pay", "Professional & Other Places", "read news", "Shop & Service", "type 7")


def make_store(
    events: list[list[tuple[int, int, int, int, bool]]],
    *,
    labels: tuple[str, ...] = LABELS,
    slots_per_day: int = 48,
    has_places: bool = True,
    splits: tuple[int, ...] = (),
) -> EventStore:
    """A store from each user's (day, slot, location, behaviour, gap) rows; day 0 is a Monday."""
    rows = [row for user in events for row in user]
    day, slot, location, behaviour, gap = (np.asarray(c) for c in zip(*rows, strict=True))
    return EventStore(
        catalogue=Catalogue(labels, slots_per_day, has_places),
        users=np.asarray([f"u{i}" for i in range(len(events))]),
        split=np.asarray(splits or (0,) * len(events), np.int8),
        offsets=np.cumsum([0, *map(len, events)]).astype(np.int64),
        day=day.astype(np.int32),
        weekday=(day % 7).astype(np.int8),
        slot=slot.astype(np.int16),
        location=(location if has_places else np.full(len(rows), -1)).astype(np.int32),
        behaviour=behaviour.astype(np.int16),
        gap=gap.astype(bool),
    ).with_fingerprint()


@st.composite
def stores(draw: st.DrawFn) -> EventStore:
    """Random stores: one or many days, one or many labels, no or only unknown places, gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_labels = draw(st.sampled_from([1, 2, len(LABELS)]))
    num_days = draw(st.sampled_from([1, 3, 9]))
    num_places = draw(st.sampled_from([0, 1, 3, 25]))  # 0: no area is known, all are "other"
    slots = draw(st.sampled_from([24, 48]))
    users = []
    for _ in range(3):
        n = draw(st.integers(12, 60))
        day = np.sort(rng.integers(0, num_days, n))
        slot = rng.integers(0, slots, n)
        order = np.lexsort((slot, day))
        place = rng.integers(0, num_places, n) if num_places else np.full(n, -1)
        gap = rng.random(n) < draw(st.sampled_from([0.0, 0.1]))
        gap[0] = False
        behaviour = rng.integers(0, num_labels, n)
        columns = (day, slot[order], place, behaviour, gap)
        users.append(list(zip(*(c.tolist() for c in columns), strict=True)))
    return make_store(
        users,
        labels=LABELS[:num_labels],
        slots_per_day=slots,
        has_places=draw(st.booleans()),
        splits=(0, 1, 2),
    )


def changed_from(store: EventStore, position: int, seed: int) -> EventStore:
    """The store with every event of that user from `position` on made another one.

    Behaviour, area, time of day and gaps change; days stay, since the calendar is no secret.
    """
    rng = np.random.default_rng(seed)
    stop = int(store.offsets[int(store.user_of(np.asarray(position))) + 1])
    part = slice(position, stop)
    n = stop - position
    num = len(store.catalogue.behaviours)
    columns = {k: v.copy() for k, v in store.columns().items()}
    columns["behaviour"][part] = (
        columns["behaviour"][part] + rng.integers(1, max(2, num), n)
    ) % num
    if store.catalogue.has_places:
        columns["location"][part] = rng.integers(100, 200, n)
    columns["slot"][part] = store.catalogue.slots_per_day - 1
    columns["gap"][part] = rng.random(n) < 0.5
    return dataclasses.replace(store, **columns)
