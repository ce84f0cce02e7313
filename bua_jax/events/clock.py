"""Weekday, slot and day number of each row, from the forms of time that `DataSpec` names."""

import re

import polars as pl

from bua_jax.basics.errors import DataError
from bua_jax.events.rows import Checker
from bua_jax.events.values import WEEKDAY_NUMBERS, text_column

_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
_OFFSET = r"^(.*\d)\s?(?:[zZ]|([+-])(\d{2}):?(\d{2})?)$"
"""Wall time, sign, hours and minutes of a text with an offset: Z, +02, +0200 or +02:00."""
_EXPECTED_TIME = "ISO 8601 such as 2024-03-01T18:30, or epoch seconds, between 1973 and 2200"
_FIRST, _END = 100_000_000, 7_258_118_400
"""Legal epoch seconds, from March 1973 to 2200. Below lie dates as numbers (20240301) and serial days
of spreadsheets, above milliseconds."""
_DATE = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_HOURS = _DATE + r"([01]\d|2[0-4])(\.0*)?$"
LARGEST_DAY = 10_000_000
_MINUTE = 60_000_000
"""In the unit of `_moment`, microseconds."""
CLOCK_CHANGE = 60 * _MINUTE
"""As far as clocks are put back in autumn."""


def integer(role: str) -> pl.Expr:
    """int64 of a column, null where it is no whole number."""
    number = pl.col(role).cast(pl.Float64, strict=False)
    exact = pl.col(role).cast(pl.Int64, strict=False)
    return pl.when(number == number.floor()).then(
        pl.coalesce(exact, number.cast(pl.Int64, strict=False))
    )


def _times(column: pl.Series, zone: str) -> tuple[pl.Series, pl.Series, bool]:
    """(local time, moment, whether some texts have an offset and others none).

    Both times are datetimes in microseconds, null where they cannot be parsed.

    Text without an offset and epoch seconds are converted from UTC to `zone` if that is given, and
    taken as they stand if not. Text with an offset is converted to `zone`, or else keeps its own
    local clock. Moments are in UTC where that is known: they order what local clocks, which are put
    back in autumn, do not.
    """
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is not None:
            moment = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            if zone:
                column = column.dt.convert_time_zone(zone)
            column = column.dt.replace_time_zone(None)
            return column.cast(pl.Datetime("us")), moment.cast(pl.Datetime("us")), False
        moment = column.cast(pl.Datetime("us"))
        return _shift(moment, zone), moment, False
    if column.dtype.is_numeric():
        moment = _epoch(column)
        return _shift(moment, zone), moment, False
    text = column.str.strip_chars()
    moment = _parsed(text)
    if moment.null_count():
        moment = moment.zip_with(moment.is_not_null(), _epoch(text.cast(pl.Float64, strict=False)))
    local = _shift(moment, zone)
    mixed = False
    if local.null_count():
        known = local.is_not_null()
        wall, utc = _with_offset(text)
        mixed = bool(known.any()) and bool((~known & utc.is_not_null()).any())
        local = local.zip_with(known, _shift(utc, zone) if zone else wall)
        moment = moment.zip_with(known, utc)
    return local, moment, mixed


def _parsed(text: pl.Series) -> pl.Series:
    """Text without an offset as it stands."""
    parsed = text.str.to_datetime(_ISO[0], strict=False, time_unit="us")
    for form in _ISO[1:]:  # most files have one form; later ones see what is left
        if parsed.null_count():
            parsed = parsed.zip_with(
                parsed.is_not_null(), text.str.to_datetime(form, strict=False, time_unit="us")
            )
    return parsed


def _epoch(seconds: pl.Series) -> pl.Series:
    seconds = seconds.cast(pl.Float64)
    legal = seconds.is_between(_FIRST, _END).fill_null(False)
    micro = (seconds.set(~legal, None) * 1e6).round().cast(pl.Int64)
    return micro.cast(pl.Datetime("us"))


def _shift(utc: pl.Series, zone: str) -> pl.Series:
    if not zone:
        return utc
    return utc.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)


def _with_offset(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(wall time, UTC) of texts that end with an offset, null for others."""
    parts = text.to_frame("text").select(
        pl.col("text").str.extract_groups(_OFFSET).struct.rename_fields(["wall", "sign", "h", "m"])
    )
    parts = parts.unnest("text")
    hours, minutes = (parts[name].fill_null("0").cast(pl.Int64) for name in "hm")
    offset = hours * 60 + minutes
    offset = offset.zip_with(parts["sign"].fill_null("+") == "+", -offset)
    legal = (hours <= 18) & (minutes < 60)
    wall = _parsed(parts["wall"]).set(~legal, None)
    return wall, wall - (offset * _MINUTE).cast(pl.Duration("us"))


def _time_hint(value: object) -> str:
    """What a number is that was meant as a time."""
    digits = str(value).strip().split(".")[0]
    if re.match(r"\d{1,2}([./-])\d{1,2}\1\d{4}\b", str(value).strip()):
        return " Which number is the day cannot be told: write the year first, 2024-03-01T18:30."
    if not (digits.isascii() and digits.isdigit()):
        return ""
    if len(digits) in (8, 10, 12, 14) and re.match(_DATE, digits):
        return " It looks like a date in digits: write 2024-03-01T18:30 instead of 202403011830."
    if len(digits) in (13, 16, 19):
        unit = {13: "milli", 16: "micro", 19: "nano"}[len(digits)]
        power = {13: 3, 16: 6, 19: 9}[len(digits)]
        return f" It looks like epoch {unit}seconds: divide the column by 10**{power}."
    if len(digits) == 5:
        return " It looks like a spreadsheet's serial day: export the column as text, ISO 8601."
    return ""


def _from_time(check: Checker) -> None:
    spec, column = check.spec, check.frame["time"]
    if not (isinstance(column.dtype, pl.Datetime | pl.String) or column.dtype.is_numeric()):
        raise DataError(
            f"{spec.path}: column {spec.columns['time']!r} has type {column.dtype}, expected text, "
            "numbers or timestamps with a time of day."
        )
    numbers = column.cast(pl.String).str.strip_chars()
    # Of those that would be read: one odd value (0, hour 24) must not make seconds of the others.
    seconds = numbers.cast(pl.Float64, strict=False).is_between(_FIRST, _END).fill_null(False)
    numbers = numbers.filter(seconds)
    digits = numbers.filter(numbers.str.contains(_HOURS))
    if 2 * len(digits) > len(numbers):
        raise DataError(
            f"{spec.path}: column {spec.columns['time']!r} holds dates and hours in digits such as "
            f"{digits[0]!r}, which would be read as epoch seconds. Write 2024-03-01T18:00 instead of "
            "2024030118."
        )
    local, moment, mixed = _times(column, spec.time_zone)
    check.report.mixed_clocks |= mixed
    check.frame = check.frame.with_columns(local.alias("_time"), moment.alias("_moment"))
    legal = pl.col("_time").dt.year().is_between(1973, 2199)
    check.require("time", legal, _EXPECTED_TIME, _time_hint)
    time = pl.col("_time")
    minutes = time.dt.hour().cast(pl.Int32) * 60 + time.dt.minute()
    check.frame = check.frame.with_columns(
        _day=time.dt.date().cast(pl.Int32),
        _weekday=(time.dt.weekday() - 1).cast(pl.Int8),
        _slot=(minutes * spec.slots_per_day // 1440).cast(pl.Int16),
        _moment=pl.col("_moment").cast(pl.Int64),
    ).drop("_time")


def _slots(check: Checker) -> None:
    spec = check.spec
    if "slot" in spec.columns:
        last = spec.slots_per_day - 1
        check.require("slot", integer("slot").is_between(0, last), f"a slot from 0 to {last}")
        slot = integer("slot")
    else:
        check.require("hour", integer("hour").is_between(0, 23), "an hour from 0 to 23")
        minute = pl.lit(0)
        if "minute" in spec.columns:
            minute = integer("minute")
            check.require("minute", minute.is_between(0, 59), "a minute from 0 to 59")
        slot = (integer("hour") * 60 + minute) * spec.slots_per_day // 1440
    check.frame = check.frame.with_columns(_slot=slot.cast(pl.Int16))


def _weekdays(check: Checker) -> None:
    text = text_column("weekday").str.to_lowercase()
    weekday = text.replace_strict(WEEKDAY_NUMBERS, default=None, return_dtype=pl.Int8)
    check.frame = check.frame.with_columns(_weekday=weekday)
    check.require(
        "weekday", pl.col("_weekday").is_not_null(), "a weekday's name, or 0 (Monday) to 6"
    )


def add_clock(check: Checker) -> None:
    """Adds `_weekday`, `_slot` and, unless days come from weeks or the order, `_day` and `_moment`.

    `_moment` orders a person's rows in time, in microseconds. In the form `week` `_week` and `_clock`
    (minutes) are added, of which `days_from_weeks` makes both.
    """
    form = check.spec.time_form()
    if form == "time":
        return _from_time(check)
    _slots(check)
    if "weekday" in check.spec.columns:
        _weekdays(check)
    if form == "day":
        legal = integer("day").is_between(0, LARGEST_DAY)
        check.require("day", legal, "an elapsed-day number, 0 or more")
        check.frame = check.frame.with_columns(_day=integer("day").cast(pl.Int32))
        if "weekday" not in check.spec.columns:
            check.frame = check.frame.with_columns(_weekday=(pl.col("_day") % 7).cast(pl.Int8))
    elif form == "week":
        check.frame = check.frame.with_columns(_week=integer("week"))
        check.require("week", pl.col("_week").is_not_null(), "a week number")
    else:
        return None
    clock = pl.col("_slot").cast(pl.Int64) * (1440 // check.spec.slots_per_day)
    if "minute" in check.spec.columns and "slot" not in check.spec.columns:
        clock = integer("hour") * 60 + integer("minute")
    if form == "week":
        check.frame = check.frame.with_columns(_clock=clock)
    else:
        check.frame = check.frame.with_columns(_moment=_moment(clock))
    return None


def _moment(clock: pl.Expr) -> pl.Expr:
    """Orders rows by `_day`, then by `clock`, the minute of the day."""
    return (pl.col("_day").cast(pl.Int64) * 1440 + clock) * _MINUTE


def days_from_weeks(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `_day` = (dense rank of `_week` within the person) * 7 + weekday, and `_moment`."""
    rank = pl.col("_week").rank("dense").over("_user").cast(pl.Int32) - 1
    frame = frame.with_columns(_day=rank * 7 + pl.col("_weekday").cast(pl.Int32))
    return frame.with_columns(_moment=_moment(pl.col("_clock"))).drop("_clock")


def days_from_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `_day` to rows sorted by (_user, order): less than a week passes between two rows.

    The next event is on the next such weekday: later the same day if its slot is not earlier, else
    a week on. After a gap at least one day passes.
    """
    same = pl.col("_user") == pl.col("_user").shift(1)
    step = (pl.col("_weekday") - pl.col("_weekday").shift(1)).cast(pl.Int32) % 7
    wraps = (step == 0) & ((pl.col("_slot") < pl.col("_slot").shift(1)) | pl.col("_gap"))
    step = pl.when(wraps).then(7).otherwise(step)
    step = pl.when(same.fill_null(False)).then(step).otherwise(pl.col("_weekday").cast(pl.Int32))
    return frame.with_columns(_step=step).with_columns(
        _day=pl.col("_step").cum_sum().over("_user").cast(pl.Int32)
    )
