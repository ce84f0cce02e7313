"""Histories from a JSONL file: what `predict` and `generate` read."""

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore, History
from bua_jax.events.windows import history, prediction_windows, sample_windows, shown_id

MIN_EVENTS = 10  # as in training (windows.min_history)


def _error(where: str, field: str, value: Any, expected: str) -> DataError:
    return DataError(f"{where}: {field} is {value!r}, expected {expected}.")


def _weekday(where: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 7:
        return value
    if isinstance(value, str) and len(value) >= 3:
        for number, name in enumerate(WEEKDAYS):
            if name.lower().startswith(value.lower()):
                return number
    raise _error(where, "weekday", value, "a name such as 'Tuesday' or 'Tue', or 0 (Monday) to 6")


def _slot(where: str, value: Any, catalogue: Catalogue) -> int:
    hour, _, minute = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not (hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60):
        raise _error(where, "time", value, "HH:MM between '00:00' and '23:59'")
    return (int(hour) * 60 + int(minute)) * catalogue.slots_per_day // 1440


def _behaviour(where: str, value: Any, catalogue: Catalogue) -> int:
    if value in catalogue.behaviours:
        return catalogue.behaviours.index(value)
    near = difflib.get_close_matches(str(value), catalogue.behaviours, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    known = ", ".join(catalogue.behaviours)
    raise _error(where, "behaviour", value, f"one that the model was trained on{hint}: {known}")


def _parse_line(where: str, record: Any, catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Columns of one person's events. Raises `DataError` naming line, event, field and value."""
    if not isinstance(record, dict) or not isinstance(record.get("events"), list):
        raise DataError(f'{where}: expected an object with "id" and "events", see predict --help.')
    events = record["events"]
    if len(events) < MIN_EVENTS:
        raise _error(where, "the number of events", len(events), f"at least {MIN_EVENTS}")
    rows: list[tuple[int, int, int, int, bool]] = []
    codes: dict[str, int] = {}
    for number, event in enumerate(events, 1):
        place = f"{where}, event {number}"
        if not isinstance(event, dict):
            raise DataError(f"{place}: expected an object with weekday, time and behaviour.")
        required = ["weekday", "time", "behaviour"] + ["location"] * catalogue.has_places
        for field in required:
            if field not in event:
                raise DataError(f"{place}: the field {field!r} is missing; it has {sorted(event)}.")
        weekday = _weekday(place, event["weekday"])
        slot = _slot(place, event["time"], catalogue)
        gap = bool(event.get("gap", False))
        if not rows:
            day = int(event.get("day", weekday))
        elif "day" in event:
            day = int(event["day"])
            if not gap and (day - rows[-1][0] - (weekday - rows[-1][1])) % 7:
                raise _error(place, "day", day, "a day number that fits the weekdays around it")
        else:
            day = rows[-1][0] + (weekday - rows[-1][1]) % 7
        if rows and (day, slot) < (rows[-1][0], rows[-1][2]):
            raise _error(place, "time", event["time"], "events in order, oldest first")
        location = -1
        if catalogue.has_places and event["location"] is not None:
            location = codes.setdefault(str(event["location"]), len(codes))
        rows.append((day, weekday, slot, location, gap))
    day_, weekday_, slot_, location_, gap_ = zip(*rows, strict=True)
    labels = [
        _behaviour(f"{where}, event {n}", e["behaviour"], catalogue)
        for n, e in enumerate(events, 1)
    ]
    return {
        "day": np.asarray(day_, np.int32),
        "weekday": np.asarray(weekday_, np.int8),
        "slot": np.asarray(slot_, np.int16),
        "location": np.asarray(location_, np.int32),
        "behaviour": np.asarray(labels, np.int16),
        "gap": np.asarray(gap_, bool),
    }


def read_histories(
    path: str | Path, catalogue: Catalogue, limit: int
) -> tuple[list[str], list[History]]:
    """Reads one person per line; of more than `limit` events the oldest are dropped, which is said.

    Raises `DataError` naming file, line, event, field, value and what was expected: a malformed line,
    an unknown behaviour, too few events (10 are needed), events out of order.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}. Make one with predict --example=3 > {path}.")
    ids, histories, longer = [], [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not valid JSON ({error.msg}, column {error.colno})."
            ) from error
        columns = _parse_line(where, record, catalogue)
        count = len(columns["day"])
        store = EventStore(
            catalogue=catalogue,
            users=np.asarray(["0"]),
            split=np.zeros(1, np.int8),
            offsets=np.asarray([0, count]),
            fingerprint="",
            **columns,
        )
        ids.append(str(record.get("id", number)))
        histories.append(history(store, max(0, count - limit), count))
        longer += count > limit
    if not histories:
        raise DataError(f"{path} holds no history; one JSON object per line is expected.")
    if longer:
        notice(
            f"{path}: {longer} of {len(ids)} histories are longer than the {limit} events that the model "
            "was trained on; their oldest events are left out"
        )
    return ids, histories


def example_lines(store: EventStore, count: int, length: int = 40) -> list[str]:
    """Histories of test users as JSONL lines; areas are named by their rank within the history."""
    windows = sample_windows(
        prediction_windows(store, "test", history_length=length), count, seed=0
    )
    lines = []
    for row in range(len(windows)):
        seen = history(store, int(windows.start[row]), int(windows.end[row]))
        events = []
        for i in range(len(seen)):
            event: dict[str, Any] = {
                "weekday": WEEKDAYS[seen.weekday[i]],
                "time": store.catalogue.clock(int(seen.slot[i])),
                "behaviour": store.catalogue.behaviours[seen.behaviour[i]],
                "day": int(seen.day[i] - seen.day[0]),
            }
            if store.catalogue.has_places:
                event["location"] = f"place {seen.place[i]}" if seen.place[i] else None
            if seen.gap[i]:
                event["gap"] = True
            events.append(event)
        record = {"id": shown_id(store, windows, row), "events": events}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return lines
