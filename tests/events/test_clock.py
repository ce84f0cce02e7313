import datetime
import zoneinfo
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import DataError
from bua_jax.events.clock import add_clock, days_from_order, days_from_weeks
from bua_jax.events.rows import BadRows, Checker
from bua_jax.events.spec import DataSpec


def clock(columns: dict[str, list[Any] | pl.Series], **fields: Any) -> pl.DataFrame:
    """Clock columns of rows given by role; everything belongs to one person."""
    names = {"user": "u", "behaviour": "b"} | {role: role for role in columns}
    defaults = {"has_places": False, "has_dates": "time" in columns or "day" in columns}
    spec = DataSpec("test", "file.csv", "csv", names, **(defaults | fields))
    frame = pl.DataFrame(columns).with_row_index("row", offset=1).with_columns(_user=pl.lit(0))
    check = Checker(spec, frame, BadRows())
    add_clock(check)
    return check.frame


def clocks(times: list[Any] | pl.Series, **fields: Any) -> list[tuple]:
    return clock({"time": times}, **fields).select("_day", "_weekday", "_slot").rows()


FRIDAY = (datetime.date(2024, 3, 1) - datetime.date(1970, 1, 1)).days  # 2024-03-01


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T18:40",
        "2024-03-01 18:40",
        "2024-03-01T18:40:59",
        "2024-03-01 18:40:59.25",
        " 2024-03-01T18:40:00 ",
        "2024-03-01T18:40:00Z",
        "2024-03-01T18:40:00+08:00",
        "2024-03-01 18:40:00-0500",
        "2024-03-01T18:40+08:00",
        "2024-03-01 18:40+08:00",
        "2024-03-01 18:40:00+02",
        "2024-03-01 18:40:00 +0200",
        "2024-03-01T18:40:00.5-03",
        "2024-03-01T18:40Z",
        "1709318400",
        "1709318400.5",
    ],
)
def test_forms_of_one_time(text: str) -> None:
    """Without a time zone field the clock is read as it stands, whatever the offset."""
    assert clocks([text]) == [(FRIDAY, 4, 37)]
    assert clocks([text], slots_per_day=24) == [(FRIDAY, 4, 18)]


def test_forms_may_be_mixed_in_one_file() -> None:
    times = ["2024-03-01T18:40", "1709318400", "2024-03-01 18:40:00", "2024-03-01T18:40:00+03:00"]
    assert clocks(times) == [(FRIDAY, 4, 37)] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-01T18:40:00", (FRIDAY + 1, 5, 5)),  # UTC to UTC+8
        ("1709318400", (FRIDAY + 1, 5, 5)),
        ("2024-03-01T18:40:00Z", (FRIDAY + 1, 5, 5)),
        ("2024-03-01T18:40:00+08:00", (FRIDAY, 4, 37)),
        ("2024-03-01T18:40:00+08", (FRIDAY, 4, 37)),
        ("2024-03-01 10:40:00+00", (FRIDAY, 4, 37)),
        ("2024-03-01 05:10-0530", (FRIDAY, 4, 37)),
    ],
)
def test_conversion_to_a_time_zone(text: str, expected: tuple) -> None:
    assert clocks([text], time_zone="Asia/Shanghai") == [expected]


@settings(max_examples=50, deadline=None)
@given(
    seconds=st.integers(100_050_000, 4_000_000_000),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Australia/Adelaide"]),
)
def test_epoch_seconds_against_the_standard_library(seconds: int, zone: str) -> None:
    local = datetime.datetime.fromtimestamp(seconds, zoneinfo.ZoneInfo(zone))
    days = (local.date() - datetime.date(1970, 1, 1)).days
    slot = local.hour * 2 + local.minute // 30
    plain = 1_700_000_001  # a column whose every number reads as a date in digits is refused
    assert clocks([seconds, plain], time_zone=zone)[0] == (days, local.weekday(), slot)
    assert clocks([local.isoformat()], time_zone=zone) == [(days, local.weekday(), slot)]
    assert clocks([local.isoformat()]) == [(days, local.weekday(), slot)]


def test_timestamp_columns() -> None:
    moment = datetime.datetime(2024, 3, 1, 18, 40)
    for unit in ("ms", "us", "ns"):
        assert clocks(pl.Series([moment], dtype=pl.Datetime(unit))) == [(FRIDAY, 4, 37)]
    aware = pl.Series([moment]).dt.replace_time_zone("UTC")
    assert clocks(aware, time_zone="Asia/Shanghai") == [(FRIDAY + 1, 5, 5)]
    assert clocks(aware) == [(FRIDAY, 4, 37)]


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-01",
        "yesterday",
        "18:30",
        "2024-13-01T00:00",
        "1709318400000",
        "-5",
        "",
        "nan",
        "inf",
        "2024-03-01T18:40:00+2",
        "2024-03-01T18:40:00+02:60",
        "2024-03-01T18:40:00+99",
        "2024-03-01T18:40:00 CET",
        "20240301",
        "202403011830",
        "45352.77",
        "0",
        "1970-01-01T00:00",
    ],
)
def test_unparsable_times(value: str) -> None:
    with pytest.raises(DataError, match=r"row 2 .*column time: value .*expected ISO 8601"):
        clocks(["2024-03-01T18:40", value])


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (20240301, "a date in digits"),
        ("20240301183000", "a date in digits"),
        (45352.77, "serial day"),
        (1709318400000, "epoch milliseconds: divide the column by 10.*3"),
        ("1709318400000000", "epoch microseconds"),
    ],
)
def test_numbers_that_are_no_epoch_seconds(value: float | str, hint: str) -> None:
    with pytest.raises(DataError, match=rf"row 1 .*value .*{value}.*expected ISO 8601.*{hint}"):
        clocks([value])


@pytest.mark.parametrize(
    "times",
    [
        [2024030118, 2024030209],
        [2024030118.0, float("nan")],  # what pandas makes of whole numbers where some are missing
        ["2024030118.0", ""],
        [" 2024030118", "2024030209 "],
        ["n/a", "2024030209"],
        ["2024030118", "2024030224", "2024030309"],  # hours from 1 to 24
        ["0", "2024030118", "2024030209"],  # 0 for a time that is missing
        [0, 2024030118, 2024030209],
        ["2024030118", "2024030225", "2024030309"],  # one slip of the pen
    ],
)
def test_dates_and_hours_in_digits_are_no_epoch_seconds(times: list) -> None:
    with pytest.raises(DataError, match=r"column 'time' holds dates and hours.*2024-03-01T18:00"):
        clocks(times, on_bad_row="skip")


def test_what_is_no_date_and_hour_in_digits() -> None:
    for nothing in ([None, None], [float("nan")]):
        with pytest.raises(DataError, match=r"row 1 .*column time: value (None|nan)"):
            clocks(pl.Series(nothing, dtype=pl.Float64))
    assert len(clocks([2024030118, 1709318400])) == 2  # a column of seconds may hold such a number


def test_a_date_without_a_time_of_day_is_no_time() -> None:
    with pytest.raises(DataError, match="time of day"):
        clocks(pl.Series([datetime.date(2024, 3, 1)]))


@pytest.mark.parametrize("weekday", ["Tuesday", "tue", " TUESDAY ", "1", 1])
def test_weekdays_by_name_or_number_from_monday(weekday) -> None:
    frame = days_from_weeks(clock({"week": [7], "weekday": [weekday], "hour": ["9"]}))
    assert frame.select("_day", "_weekday", "_slot").rows() == [(1, 1, 18)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"weekday": ["7"], "hour": ["9"]}, "weekday: value '7'.*0 .Monday. to 6"),
        ({"weekday": ["Tues"], "hour": ["9"]}, "weekday: value 'Tues'"),
        ({"weekday": [None], "hour": ["9"]}, "weekday: value None"),
        ({"weekday": ["1"], "hour": ["24"]}, "hour: value '24', expected an hour from 0 to 23"),
        ({"weekday": ["1"], "hour": ["-1"]}, "hour: value '-1'"),
        ({"weekday": ["1"], "hour": ["8.5"]}, "hour: value '8.5'"),
        ({"weekday": ["1"], "hour": [8.5]}, "hour: value 8.5"),
        ({"weekday": ["1"], "slot": ["48"]}, "slot: value '48', expected a slot from 0 to 47"),
        ({"weekday": ["1"], "slot": ["99999999999"]}, "slot: value"),
        ({"weekday": ["1"], "hour": ["9"], "minute": ["60"]}, "minute: value '60'"),
        ({"day": ["-1"], "hour": ["9"]}, "day: value '-1', expected an elapsed-day number"),
        ({"day": ["99999999999"], "hour": ["9"]}, "day: value '99999999999'"),
        ({"week": ["x"], "weekday": ["1"], "hour": ["9"]}, "week: value 'x'"),
    ],
)
def test_values_out_of_range(columns: dict[str, list], message: str) -> None:
    if "day" not in columns:
        columns = {"week": ["0"]} | columns
    with pytest.raises(DataError, match=rf"file\.csv, row 1 \(line 2\), column {message}"):
        clock(columns)


def test_slots_from_hours_minutes_and_whole_floats() -> None:
    frame = clock({"day": ["8", "8.0"], "hour": [9, 9], "minute": ["29", "30"]})
    assert frame.select("_day", "_weekday", "_slot").rows() == [(8, 1, 18), (8, 1, 19)]
    assert clock({"day": [0], "slot": ["23"]}, slots_per_day=24)["_slot"].to_list() == [23]


def test_days_from_weekdays_in_order() -> None:
    rows = [  # weekday, slot, gap -> day
        (2, 10, False, 2),
        (2, 12, False, 2),
        (3, 1, False, 3),
        (3, 0, False, 10),  # an earlier slot of the same weekday: a week on
        (1, 5, False, 15),
        (1, 9, True, 22),  # after a gap at least a day passes
        (2, 9, True, 23),
    ]
    weekday, slot, gap, day = zip(*rows, strict=True)
    frame = pl.DataFrame(
        {"_weekday": weekday, "_slot": slot, "_gap": gap, "_user": [0] * len(rows)}
    )
    other = frame.head(1).with_columns(_user=pl.lit(1, pl.Int64), _weekday=pl.lit(6, pl.Int64))
    found = days_from_order(pl.concat([frame, other]))["_day"].to_list()
    assert found == [*day, 6]
