"""Histories as JSON lines: the same events as in a table give the same history, or an error says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.readers import read_events
from bua_jax.events.schema import WEEKDAYS, Catalogue, History
from bua_jax.events.spec import DataSpec
from bua_jax.events.windows import history
from tests.events.stores import LABELS, store_of

CATALOGUE = Catalogue(LABELS, 48, has_places=True)
ROLES = ("user", "day", "weekday", "hour", "minute", "location", "behaviour", "gap")


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    values = {
        "weekday": "Tue",
        "time": f"{number % 24:02d}:30",
        "location": "x",
        "behaviour": "chat",
    }
    return values | fields


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(tmp_path: Path, events: list[dict], **fields: Any) -> History:
    path = write(tmp_path / "h.jsonl", [{"id": "anna", "events": events} | fields])
    return read_histories(path, CATALOGUE, 40)[1][0]


def from_table(tmp_path: Path, events: list[dict], suffix: str) -> History:
    """The history that a file of events gives."""
    rows = [
        {"user": user, "day": e.get("day", 1), "weekday": e["weekday"], "hour": e["time"][:2]}
        | {"minute": e["time"][3:], "location": e["location"], "behaviour": e["behaviour"]}
        | {"gap": e.get("gap")}
        for user in "abc"
        for e in events
    ]
    columns = {role: [row[role] for row in rows] for role in ROLES}
    path = tmp_path / f"t.{suffix}"
    frame = pl.DataFrame(columns, strict=False)
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    spec = DataSpec("t", str(path), suffix, {role: role for role in ROLES})
    return history(read_events(spec), 0, len(events))


SAME: dict[str, Callable[[int], dict]] = {
    "no place": lambda i: {"location": (None, "", " ", "x", " x", "NaN")[i % 6]},
    "gaps in words": lambda i: {"gap": ("false", "No", "0", "", "true", None)[i % 6]},
    "names of weekdays": lambda i: {"weekday": ("Tuesday", "tue", " TUE ", "1")[i % 4]},
    "numbers as places": lambda i: {"location": ("12", "7", "12")[i % 3]},
    "days": lambda i: {"day": i + i // 5, "weekday": WEEKDAYS[(i + i // 5) % 7], "time": "09:30"},
    "spaces": lambda i: {"behaviour": (" chat", "pay ", "subway")[i % 3]},
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("case", SAME)
def test_the_same_events_in_a_table_and_in_json(tmp_path, case: str, suffix: str) -> None:
    events = [event(i) | SAME[case](i) for i in range(12)]
    one, other = read(tmp_path, events), from_table(tmp_path, events, suffix)
    for name in ("weekday", "slot", "behaviour", "place", "place_seen", "gap"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


def test_examples_are_read_as_the_history_that_they_show(tmp_path) -> None:
    """Also more places than have ranks, events without one, gaps, and a clock that is put back."""
    rng = np.random.default_rng(0)
    places = [
        (day, slot, int(rng.integers(-1, 15)), int(rng.integers(3)), (day, slot) == (3, 20))
        for day in range(6)
        for slot in (5, 4, 20)
    ]
    places += [(6, s, s % 15, 1, False) for s in range(26)]
    store = store_of([places])
    path = tmp_path / "h.jsonl"
    path.write_text("".join(example_lines(store, 0)), encoding="utf-8")
    ids, found = read_histories(path, store.catalogue, 40)
    assert len(ids) == len(places) - 10
    for name, seen in zip(ids, found, strict=True):
        end = int(name.rpartition(":")[2])
        expected = history(store, max(0, end - 40), end)
        for field in ("weekday", "slot", "behaviour", "place", "place_seen", "gap"):
            assert getattr(seen, field).tolist() == getattr(expected, field).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"day": 0.9}, "day is 0.9, expected a whole number of days"),
        ({"day": True}, "day is True"),
        ({"day": "1"}, "day is '1'"),
        ({"gap": "maybe"}, "gap is 'maybe', expected true or false"),
        ({"gap": 2}, "gap is 2"),
        ({"gap": []}, r"gap is \[\]"),
        ({"location": True}, "location is True, expected a text"),
        ({"location": ["x"]}, r"location is \['x'\]"),
        ({"weekday": True}, "weekday is True"),
        ({"weekday": "Tues"}, "weekday is 'Tues'"),
        ({"time": "²:30"}, "time is '²:30', expected HH:MM"),
        ({"time": 18}, "time is 18"),
        ({"behaviour": ["chat"]}, r"behaviour is \['chat'\]"),
        ({"behaviour": "x" * 10**6}, r"behaviour is 'x{99} \.\.\., expected one that"),
        ({"gaps": True}, r"there is no field 'gaps'\. Did you mean 'gap'"),
        ({"Day": 3}, r"there is no field 'Day'\. Did you mean 'day'"),
    ],
)
def test_other_types_are_errors(tmp_path, change: dict, message: str) -> None:
    events = [event(i) for i in range(12)]
    events[3] |= change
    with pytest.raises(DataError, match=rf"h\.jsonl, line 1, event 4: {message}"):
        read(tmp_path, events)


def test_after_a_gap_a_day_passes_at_least(tmp_path) -> None:
    """Where no day is stated, as in columns of the form `order`."""
    events = [{**event(0), "gap": i == 6} for i in range(12)]
    found = read(tmp_path, events)
    assert found.day.tolist() == [-7] * 6 + [0] * 6


def test_a_misspelt_field_of_a_person(tmp_path) -> None:
    path = write(tmp_path / "h.jsonl", [{"ID": "anna", "events": [event(i) for i in range(12)]}])
    with pytest.raises(DataError, match=r"line 1: there is no field 'ID'\. Did you mean 'id'"):
        read_histories(path, CATALOGUE, 40)


def test_two_lines_of_one_id(tmp_path) -> None:
    """By name, or where a line without one would be named as another is."""
    events = [event(i) for i in range(12)]
    for ids in (["anna", "ben", "anna"], ["3", "ben", None], [3, "ben", "3"]):
        path = write(tmp_path / "h.jsonl", [{"id": i, "events": events} for i in ids])
        with pytest.raises(DataError, match=r"line 3: the id '\w+' stands in line 1 too"):
            read_histories(path, CATALOGUE, 40)


def test_ids(tmp_path) -> None:
    events = [event(i) for i in range(12)]
    records: list[Any] = [{"id": i, "events": events} for i in ("anna", 7, None)]
    path = write(tmp_path / "h.jsonl", [*records, {"events": events}])
    assert read_histories(path, CATALOGUE, 40)[0] == ["anna", "7", "3", "4"]
    for wrong in (
        "",
        "NaN",
        "a\nb",
        "a\u2028b",
        "a\x85b",
        "\x1b[31m",
        "\u202e",
        "\0",
        1.5,
        True,
        [],
    ):
        with pytest.raises(DataError, match=r"line 1: id is .*expected text or a whole number"):
            read(tmp_path, events, id=wrong)
    with pytest.raises(DataError, match=r"line 1: half a character .*one JSON object per line"):
        read(tmp_path, events, id="\ud800")
    joined = "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645"  # Persian needs a joiner
    assert read_histories(write(path, [{"id": joined, "events": events}]), CATALOGUE, 40)[0] == [
        joined
    ]


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


GOOD = json.dumps(
    {"id": "a", "events": [event(i, note="a\u2028b\x85") for i in range(12)]}
).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.decode().encode("utf-16"), "is UTF-16; expected UTF-8 text"),
        (b"\x1f\x8b\x08\x00\x00", "is gzip"),
        (b"PAR1\x00", "is parquet"),
        (b"\n" + b'{"id": "caf\xe9"}\n', "line 2: not UTF-8 text"),
        (GOOD[:-1] + b', "events": []}', "line 1: the field 'events' stands twice"),
        (lines("[" * 100_000), "line 1: nested too deep"),
        (lines('{"id": ' + "7" * 5_000 + "}"), "line 1: Exceeds the limit"),
        (lines('{"id": "a", "events": [{"location": NaN}]}'), "line 1: NaN is no JSON value"),
        (lines("["), "line 1: not valid JSON"),
    ],
)
def test_files_that_are_no_json_lines(tmp_path, content: bytes, message: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_histories(path, CATALOGUE, 40)
    assert "\n" not in str(caught.value)


def test_lines_end_with_line_feeds_only(tmp_path) -> None:
    path = tmp_path / "h.jsonl"
    raw = json.loads(GOOD)
    text = json.dumps(raw, ensure_ascii=False)
    other = json.dumps(raw | {"id": "b"}, ensure_ascii=False)
    path.write_text(f"\ufeff{text}\r\n\r\n{other}\n", encoding="utf-8", newline="")
    assert read_histories(path, CATALOGUE, 40)[0] == ["a", "b"]
