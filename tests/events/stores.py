"""Small event stores and files for the tests of events."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from bua_jax.events.readers import read_events
from bua_jax.events.schema import Catalogue, EventStore
from bua_jax.events.spec import DataSpec

LABELS = ("chat", "pay", "subway")
HEADER = "user_id,time,location,behavior\n"
COLUMNS = {
    "user": "user_id",
    "time": "time",
    "location": "location",
    "behaviour": "behavior",
}


def store_of(
    people: list[list[tuple]],
    *,
    slots: int = 48,
    has_places: bool = True,
    split: list[int] | None = None,
) -> EventStore:
    """A store of events (day, slot, location, behaviour[, gap]) per person; day 0 is a Monday."""
    rows = [(*event, False)[:5] for events in people for event in events]
    day, slot, location, behaviour, gap = (np.asarray(c) for c in zip(*rows, strict=True))
    return EventStore(
        catalogue=Catalogue(LABELS, slots, has_places),
        users=np.asarray([f"u{i}" for i in range(len(people))]),
        split=np.asarray(split if split is not None else [2] * len(people), np.int8),
        offsets=np.cumsum([0] + [len(events) for events in people]).astype(np.int64),
        day=day.astype(np.int32),
        weekday=(day % 7).astype(np.int8),
        slot=slot.astype(np.int16),
        location=location.astype(np.int32),
        behaviour=behaviour.astype(np.int16),
        gap=gap.astype(bool),
    ).with_fingerprint()


@st.composite
def people(draw: st.DrawFn, max_people: int = 3, max_events: int = 40) -> list[list[tuple]]:
    """Lists of events for `store_of`, sorted in time, with gaps and dropped areas (-1)."""
    everyone = []
    for _ in range(draw(st.integers(1, max_people))):
        steps = draw(st.lists(st.integers(0, 3), min_size=1, max_size=max_events))
        days = np.cumsum([s if s < 3 else 9 for s in steps])
        events = [
            (
                int(day),
                draw(st.integers(0, 47)),
                draw(st.integers(-1, 14)),
                draw(st.integers(0, len(LABELS) - 1)),
                i > 0 and draw(st.booleans()) and draw(st.booleans()),
            )
            for i, day in enumerate(days)
        ]
        everyone.append(sorted(events, key=lambda e: e[:2]))
    return everyone


def good_rows(people: int = 5, events: int = 12) -> list[str]:
    """CSV lines of a good file; person p's event e is on day e of March 2024 at 08:00 + p hours."""
    return [
        f"p{p},2024-03-{e + 1:02d}T{8 + p:02d}:30,cell{e % 3},{LABELS[(p + e) % 3]}\n"
        for p in range(people)
        for e in range(events)
    ]


def write_csv(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text(header + "".join(rows), encoding="utf-8")
    return path


def spec_of(path: Path, **fields) -> DataSpec:
    values = {"name": "mine", "path": str(path), "format": path.suffix[1:], "columns": COLUMNS}
    return DataSpec.from_mapping(values | fields)


def read_rows(tmp_path: Path, rows: list[str], **fields) -> EventStore:
    return read_events(spec_of(write_csv(tmp_path / "mine.csv", rows), **fields))
