"""Histories from JSON lines, or from a file of events: what `predict` and `generate` read."""

import dataclasses
import datetime
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events import values
from bua_jax.events.clock import LARGEST_DAY
from bua_jax.events.json_lines import json_values
from bua_jax.events.names import WRITABLE, writable
from bua_jax.events.readers import read_people
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore, History
from bua_jax.events.spec import DataSpec
from bua_jax.events.windows import (
    WindowIndex,
    history,
    prediction_windows,
    sample_windows,
    shown_id,
)

MIN_EVENTS = 10  # as in training (windows.min_history)


_FIELDS = ("weekday", "time", "location", "behaviour", "day", "gap")


@dataclass(frozen=True)
class _Event:
    """An event as it is read; `location` is a name."""

    day: int
    weekday: int
    slot: int
    location: str | None
    behaviour: int
    gap: bool


def _error(where: str, field: str, value: Any, expected: str) -> DataError:
    shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]} ..."
    return DataError(f"{where}: {field} is {shown}, expected {expected}.")


def _read(where: str, field: str, value: Any, reader: Callable[[Any], Any]) -> Any:
    try:
        return reader(value)
    except ValueError as error:
        raise _error(where, field, value, str(error)) from error


def _slot(value: Any, catalogue: Catalogue) -> int:
    clock = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", value) if isinstance(value, str) else None
    if clock is None or int(clock[1]) > 23 or int(clock[2]) > 59:
        raise ValueError("HH:MM between '00:00' and '23:59'")
    return (int(clock[1]) * 60 + int(clock[2])) * catalogue.slots_per_day // 1440


def _behaviour(value: Any, catalogue: Catalogue) -> int:
    label = values.text(value)
    if label in catalogue.behaviours:
        return catalogue.behaviours.index(label)
    near = difflib.get_close_matches(str(label), catalogue.behaviours, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    known = ", ".join(catalogue.behaviours)
    raise ValueError(f"one that the model was trained on{hint}: {known}")


def _check_names(where: str, event: dict[str, Any], fields: tuple[str, ...] = _FIELDS) -> None:
    """Raises `DataError` for a misspelt field, which would be left out; others may stand there unread."""
    for name in event:
        near = difflib.get_close_matches(name.lower(), fields, n=1, cutoff=0.8)
        if near and name not in fields:
            raise DataError(f"{where}: there is no field {name!r}. Did you mean {near[0]!r}?")


def _event(where: str, event: Any, before: _Event | None, catalogue: Catalogue) -> _Event:
    """An event after another one. Raises `DataError` naming field and value."""
    if not isinstance(event, dict):
        raise DataError(f"{where}: expected an object with weekday, time and behaviour.")
    for field in ["weekday", "time", "behaviour"] + ["location"] * catalogue.has_places:
        if field not in event:
            raise DataError(f"{where}: the field {field!r} is missing; it has {sorted(event)}.")
    _check_names(where, event)
    weekday = _read(where, "weekday", event["weekday"], values.weekday)
    slot = _read(where, "time", event["time"], lambda value: _slot(value, catalogue))
    gap = _read(where, "gap", event.get("gap"), values.flag)
    location = None
    if catalogue.has_places:
        location = _read(where, "location", event["location"], values.text)
    behaviour = _read(
        where, "behaviour", event["behaviour"], lambda value: _behaviour(value, catalogue)
    )
    stated = event.get("day") is not None
    if stated:
        day = _read(where, "day", event["day"], lambda value: values.day(value, LARGEST_DAY))
        if before and not gap and (day - before.day - (weekday - before.weekday)) % 7:
            raise _error(where, "day", day, "a day number that fits the weekdays around it")
    elif before is None:
        day = weekday
    else:  # as `clock.days_from_order`: after a gap at least one day passes
        day = before.day + ((weekday - before.weekday) % 7 or 7 * gap)
    # Clocks that are put back in autumn go back by an hour; the day says that no week has passed.
    back = catalogue.slots_per_day // 24 if stated else 0
    if before and (day, slot + back) < (before.day, before.slot):
        raise _error(where, "time", event["time"], "events in order, oldest first")
    return _Event(day, weekday, slot, location, behaviour, gap)


def _parse_line(where: str, record: Any, catalogue: Catalogue) -> tuple[str, EventStore]:
    """(id or nothing, events) of a person. Raises `DataError` naming line, event, field and value."""
    if not isinstance(record, dict) or not isinstance(record.get("events"), list):
        raise DataError(f'{where}: expected an object with "id" and "events", see predict --help.')
    _check_names(where, record, ("id", "events"))
    name = record.get("id")
    if name is not None:
        plain = isinstance(name, str | int) and not isinstance(name, bool)
        name = values.text(name) if plain else None
        if not name or not writable(name):
            raise _error(where, "id", record["id"], f"text or a whole number of {WRITABLE}")
    if len(record["events"]) < MIN_EVENTS:
        raise _error(where, "the number of events", len(record["events"]), f"at least {MIN_EVENTS}")
    events: list[_Event] = []
    for number, event in enumerate(record["events"], 1):
        before = events[-1] if events else None
        events.append(_event(f"{where}, event {number}", event, before, catalogue))
    names = dict.fromkeys(event.location for event in events)
    codes = {place: -1 if place is None else code for code, place in enumerate(names)}
    return name or "", EventStore(
        catalogue=catalogue,
        users=np.asarray(["0"]),
        split=np.zeros(1, np.int8),
        offsets=np.asarray([0, len(events)]),
        day=np.asarray([event.day for event in events], np.int32),
        weekday=np.asarray([event.weekday for event in events], np.int8),
        slot=np.asarray([event.slot for event in events], np.int16),
        location=np.asarray([codes[event.location] for event in events], np.int32),
        behaviour=np.asarray([event.behaviour for event in events], np.int16),
        gap=np.asarray([event.gap for event in events], bool),
    )


def read_histories(
    path: str | Path, catalogue: Catalogue, limit: int
) -> tuple[list[str], list[History]]:
    """`histories_of` a file. Raises `DataError` also where there is none."""
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"There is no file {path}. Make one with: "
            f"python -m bua_jax.predict --model=RUN --example=3 > {path}"
        )
    with path.open("rb") as lines:
        return histories_of(path, lines, catalogue, limit)


def histories_of(
    called: str | Path, lines: Iterable[bytes], catalogue: Catalogue, limit: int
) -> tuple[list[str], list[History]]:
    """Ids and histories, one person per line; of more than `limit` events the oldest are dropped, as is said.

    called: where the lines come from. Raises `DataError` naming that, line, event, field, value and what
    was expected: a malformed line, an unknown behaviour, too few events (10 are needed), events out of order,
    an id of an earlier line.
    """
    seen: dict[str, int] = {}  # lines of each id
    histories, longer = [], 0
    for number, record in json_values(called, lines):
        name, events = _parse_line(f"{called}, line {number}", record, catalogue)
        count, name = len(events.day), name or str(number)
        if name in seen:
            raise DataError(
                f"{called}, line {number}: the id {name!r} stands in line {seen[name]} too; expected one "
                "line for each, or answers could not be told apart. (A line without an id is named by its "
                "number.)"
            )
        seen[name] = number
        histories.append(history(events, max(0, count - limit), count))
        longer += count > limit
    if not histories:
        raise DataError(f"{called} holds no history; one JSON object per line is expected.")
    if longer:
        notice(
            f"{called}: {longer} of {len(seen)} histories are longer than the {limit} events that the model "
            "was trained on; their oldest events are left out"
        )
    return list(seen), histories


@dataclass(frozen=True)
class People:
    """Whom a model is asked about: a history of each, and what their file calls things.

    places: of each the names of ranked places, 1 to 10; dates: of each the day of the last event.
    Both are empty where they are not known.
    """

    ids: list[str]
    histories: list[History] = dataclasses.field(repr=False)
    places: list[dict[int, str]] = dataclasses.field(repr=False)
    dates: list[datetime.date]


def people_of_events(
    spec: DataSpec,
    words: Mapping[str, str],
    catalogue: Catalogue,
    limit: int,
    only: str = "",
    *,
    called: str = "",
) -> People:
    """The last events of each person of a file of events, or of the person `only`.

    words: other words of labels, as the run has them. called: what the file is called where it is a copy of
    what somebody gave. People with fewer than ten events are left out, which
    is said. Raises `DataError` as the reader does, for labels that the model was not trained on, for a
    person whom there is not or who has too few events, and where nobody has enough.
    """
    called = called or spec.path
    try:
        store, areas = read_people(spec)
    except (ConfigError, DataError) as error:
        raise type(error)(str(error).replace(spec.path, called)) from error
    store = _in_catalogue(called, store.renamed(words), catalogue)
    if only and only not in store.users:
        near = difflib.get_close_matches(only, map(str, store.users), n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{called} has no person {only!r} among its {len(store.users)}.{hint}")
    asked = [i for i, user in enumerate(store.users) if not only or user == only]
    count = np.diff(store.offsets)
    enough = [i for i in asked if count[i] >= MIN_EVENTS]
    if not enough:
        most = int(count[asked].max())
        raise DataError(f"{called}: {only or 'nobody'} has {most} events; {MIN_EVENTS} are needed.")
    if len(enough) < len(asked):
        notice(
            f"{called}: {len(asked) - len(enough)} people with fewer than {MIN_EVENTS} events left out"
        )
    ends = store.offsets[1:]
    begins = [max(int(store.offsets[i]), int(ends[i]) - limit) for i in enough]
    histories = [history(store, b, int(ends[i])) for b, i in zip(begins, enough, strict=True)]
    places = [
        {
            rank: areas[code]
            for code, rank in zip(
                store.location[b : ends[i]].tolist(), seen.place.tolist(), strict=True
            )
            if rank and catalogue.has_places
        }
        for b, i, seen in zip(begins, enough, histories, strict=True)
    ]
    dates = [_EPOCH + datetime.timedelta(days=int(store.day[ends[i] - 1])) for i in enough]
    dated = "time" in spec.columns
    return People([str(store.users[i]) for i in enough], histories, places, dates if dated else [])


_EPOCH = datetime.date(1970, 1, 1)


def _in_catalogue(path: str, store: EventStore, catalogue: Catalogue) -> EventStore:
    """The same events with the model's codes of labels. Raises `DataError` for labels that it lacks."""
    own = store.catalogue
    if own.has_places != catalogue.has_places:
        has, wants, how = (
            ("without", "with", "COLUMN") if catalogue.has_places else ("with", "without", "")
        )
        raise DataError(
            f"{path} is read {has} a column of places, but the model was trained {wants} them. Say which it "
            f"is: --columns=location={how}."
        )
    if own.slots_per_day != catalogue.slots_per_day:
        raise DataError(
            f"{path} is read with slots_per_day={own.slots_per_day}, but the model was trained with "
            f"{catalogue.slots_per_day}."
        )
    for label in own.behaviours:
        try:
            _behaviour(label, catalogue)
        except ValueError as error:
            raise _error(path, "a behaviour", label, str(error)) from error
    code = np.asarray([catalogue.behaviours.index(label) for label in own.behaviours], np.int16)
    return dataclasses.replace(store, catalogue=catalogue, behaviour=code[store.behaviour])


def example_lines(store: EventStore, count: int) -> list[str]:
    """Histories of test users as JSONL lines."""
    windows = sample_windows(prediction_windows(store, "test"), count, seed=0)
    records = (history_record(store, windows, row) for row in range(len(windows)))
    return [json.dumps(one, ensure_ascii=False) + "\n" for one in records]


def history_record(store: EventStore, windows: WindowIndex, row: int) -> dict[str, Any]:
    """The history of a window as a line of a file has it: id and events.

    Areas are named by their rank within the history, and beyond the last rank in order of appearance.
    """
    inside = slice(int(windows.start[row]), int(windows.end[row]))
    seen, codes = history(store, inside.start, inside.stop), store.location[inside].tolist()
    ranks = {code: rank for code, rank in zip(codes, seen.place.tolist(), strict=True) if rank}
    for code in codes:
        ranks.setdefault(code, len(ranks) + 1)
    events = []
    for i in range(len(seen)):
        event: dict[str, Any] = {
            "weekday": WEEKDAYS[seen.weekday[i]],
            "time": store.catalogue.clock(int(seen.slot[i])),
            "behaviour": store.catalogue.behaviours[seen.behaviour[i]],
            "day": int(seen.day[i] - seen.day[0]),
        }
        if store.catalogue.has_places:
            event["location"] = f"place {ranks[codes[i]]}" if codes[i] >= 0 else None
        if seen.gap[i]:
            event["gap"] = True
        events.append(event)
    return {"id": shown_id(store, windows, row), "events": events}
