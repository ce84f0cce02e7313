"""CSV, TSV and parquet files to an `EventStore`, through a column mapping.

Rows are checked one field at a time. A bad row is an error that names file, row, column, value and
what was expected; with on_bad_row=skip it is left out and counted per reason. The forms of time are
those of `DataSpec`.
"""

import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError
from bua_jax.events.clock import CLOCK_CHANGE, add_clock, days_from_order, days_from_weeks, integer
from bua_jax.events.names import MOST_LABELS, WRITABLE, writable
from bua_jax.events.rows import ROW, BadRows, Checker, check_file, is_parquet, read_rows
from bua_jax.events.schema import SPLITS, Catalogue, EventStore
from bua_jax.events.spec import DataSpec
from bua_jax.events.split import sorted_ids, split_users
from bua_jax.events.values import BOOLEANS, plain_columns, text_column

ANONYMISED_KEY = b"bua_jax.anonymised"
"""Parquet metadata key of anonymised files: JSON with slots_per_day, has_dates, has_places."""
_NULLS = {"null", "none", "nil", "na", "n/a", "<na>", "\\n", "undefined"}
"""How other programs spell that there is no value, in lower case."""
_EPOCH = datetime.date(1970, 1, 1)
_CHUNK = 2_000_000
"""Rows that are checked together: text is several times larger than what is made of it."""


def anonymised_mark(path: Path) -> dict | None:
    """What the anonymiser wrote into a file about itself; None for other files."""
    if not is_parquet(path):
        return None
    try:
        value = (pq.read_schema(path).metadata or {}).get(ANONYMISED_KEY)
    except (OSError, pa.ArrowException):
        return None  # damaged: the reader says so
    return None if value is None else json.loads(value)


def _resolved(spec: DataSpec) -> DataSpec:
    """The spec of an anonymised file follows from its mark: it keeps no column of the original."""
    mark = anonymised_mark(Path(spec.path)) if spec.path and Path(spec.path).is_file() else None
    if mark is None:
        check_file(spec)
        return spec
    present = pq.read_schema(spec.path).names
    if "split" not in present:
        raise DataError(
            f"{spec.path} is anonymised but lacks its column 'split'; it has {', '.join(present)}. "
            "Where ids are renewed one person has several, and a new split could put them on both "
            "sides. Use the file as the anonymise verb wrote it."
        )
    if mark["slots_per_day"] != spec.slots_per_day:
        raise DataError(
            f"{spec.path} was anonymised with {mark['slots_per_day']} slots per day, the config "
            f"has {spec.slots_per_day}; give --config.data.slots_per_day={mark['slots_per_day']}."
        )
    has_places = spec.has_places and mark["has_places"]
    roles = ["user", "day", "weekday", "slot", "behaviour", "gap", "split"]
    return dataclasses.replace(
        spec,
        format="parquet",
        columns={role: role for role in roles + ["location"] * has_places},
        has_dates=mark["has_dates"],
        has_places=has_places,
        time_zone="",
    )


def _codes(column: pl.Series, values: list[str], dtype: type[pl.DataType]) -> pl.Series:
    """Index in `values` of each value of a categorical column; null for a null."""
    index = {value: number for number, value in enumerate(values)}
    present = column.drop_nulls().unique()
    codes = present.to_physical().to_numpy()
    table = np.zeros(codes.max(initial=0) + 1, np.int64)
    table[codes] = [index[value] for value in present.to_list()]
    return pl.Series(table).cast(dtype).gather(column.to_physical())


def _values(column: pl.Series) -> list[str]:
    """The values that occur in a categorical column, sorted as text."""
    return sorted(column.drop_nulls().unique().to_list())


def _require_values(check: Checker, role: str, good: Callable[[str], bool], expected: str) -> None:
    """`check.require` by the distinct values of a categorical column."""
    bad = [value for value in _values(check.frame[f"_{role}"]) if not good(value)]
    if bad:
        check.require(role, ~pl.col(f"_{role}").cast(pl.String).is_in(bad), expected)


def _note_nulls(check: Checker, role: str) -> None:
    """Notes values that may mean that there is none: a person, a label or a place of that name."""
    for value in _values(check.frame[f"_{role}"]):
        if value.lower() in _NULLS:
            check.report.null_words.add(f"column {check.spec.columns[role]!r} holds {value!r}")


def _check_rows(check: Checker) -> pl.DataFrame:
    """All checks that need one row alone.

    Returns `_user`, `_behaviour`, `_gap`, what `add_clock` adds, `_location`, `_order`, `split` where
    mapped, the row number, and raw columns that later checks may have to show. Texts are categorical.
    """
    spec = check.spec
    check.frame = plain_columns(spec, check.frame)
    for role in ("user", "behaviour"):
        check.frame = check.frame.with_columns(
            text_column(role).cast(pl.Categorical).alias(f"_{role}")
        )
        check.require(role, pl.col(f"_{role}").is_not_null(), "a value that is not empty")
        _require_values(check, role, writable, WRITABLE)
        _note_nulls(check, role)
    if spec.behaviours:
        known = set(spec.behaviours)
        expected = f"one of: {', '.join(spec.behaviours)}"
        _require_values(check, "behaviour", known.__contains__, expected)
    gap = pl.lit(False)
    if "gap" in spec.columns:
        text = text_column("gap").str.to_lowercase()
        flag = text.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
        gap = pl.when(text.is_null()).then(False).otherwise(flag)
        check.require("gap", gap.is_not_null(), "true or false (empty = false)")
    check.frame = check.frame.with_columns(_gap=gap)
    if "order" in spec.columns:
        check.require("order", integer("order").is_not_null(), "a whole number")
        check.frame = check.frame.with_columns(_order=integer("order"))
    if "split" in spec.columns:
        split = text_column("split")
        check.require("split", split.is_in(list(SPLITS)), f"one of {', '.join(SPLITS)}")
        check.frame = check.frame.with_columns(split=split.cast(pl.Enum(SPLITS)))
    if spec.has_places:
        area = text_column("location").cast(pl.Categorical)
        check.frame = check.frame.with_columns(_location=area)
        _note_nulls(check, "location")
    add_clock(check)
    shown = pl.col(f"^({ROW}|split|order|weekday)$")
    return check.frame.select(pl.col("^_.*$"), shown)


def _require_days(check: Checker, role: str) -> None:
    """Days follow each other also where the clocks of several time zones are read as they stand."""
    legal = pl.col("_day") >= pl.col("_day").cum_max().over("_user")
    expected = (
        "no earlier local date than that of the event before it (--config.data.time_zone=ZONE reads "
        "all times in one zone)"
    )
    date = pl.col("_day").cast(pl.Date) if role == "time" else pl.col(role)
    check.frame = check.frame.with_columns(date.alias(role))
    check.require(role, legal, expected)


def _sort(check: Checker) -> None:
    """Rows by person and time, with gaps and, in the form `order`, days; checks the order."""
    spec, form = check.spec, check.spec.time_form()
    if "split" in spec.columns:
        first = pl.col("split").first().over("_user")
        check.require("split", pl.col("split") == first, "one split for all rows of a person")
    if form == "week":
        check.frame = days_from_weeks(check.frame)
    if "_order" in check.frame.columns:
        check.frame = check.frame.sort("_user", "_order", maintain_order=True)
        if form != "order":
            latest = pl.col("_moment").cum_max().over("_user")
            legal = pl.col("_moment") >= latest - CLOCK_CHANGE
            expected = "an order in which time does not go back, but by an hour in autumn"
            check.require("order", legal, expected)
            _require_days(check, "order")
    else:
        # Two stable sorts by one column take half the memory of one by two.
        in_time = check.frame.sort("_moment", maintain_order=True)
        check.frame = in_time.sort("_user", maintain_order=True)
        if form == "time":
            _require_days(check, "time")
    if form == "week":
        new_week = (pl.col("_week") != pl.col("_week").shift(1)).fill_null(False)
        check.frame = check.frame.with_columns(_gap=pl.col("_gap") | new_week)
    first = (pl.col("_user") != pl.col("_user").shift(1)).fill_null(True)
    check.frame = check.frame.with_columns(_gap=pl.col("_gap") & ~first)
    if form == "order":
        check.frame = days_from_order(check.frame)
    if form == "day" and "weekday" in spec.columns:
        # Between gaps, days and weekdays advance together.
        offset = (pl.col("_day") - pl.col("_weekday").cast(pl.Int32)) % 7
        check.frame = check.frame.with_columns(_segment=pl.col("_gap").cum_sum().over("_user"))
        legal = offset == offset.first().over("_user", "_segment")
        check.require("weekday", legal, "a weekday that fits the day number of the rows before it")


def _duplicates(frame: pl.DataFrame) -> int:
    """Rows of a sorted frame that equal an earlier one in all that was read."""
    moment = "_moment" if "_moment" in frame.columns else "_slot"
    again = frame.select(
        (pl.col("_user") == pl.col("_user").shift(1)) & (pl.col(moment) == pl.col(moment).shift(1))
    ).to_series()
    near = frame.filter((again | again.shift(-1)).fill_null(False)).select(pl.col("^_.*$"))
    return len(near) - near.hash_rows().n_unique()  # of 64 bits: faster than the rows themselves


def read_frame(spec: DataSpec, report: BadRows) -> pl.DataFrame:
    """Checked rows sorted by person and time.

    Columns: user int32 (index into the sorted ids), id, day int32, weekday int8, slot int16, behaviour,
    gap bool, and location (or null), split where mapped; texts are categorical.

    Raises `DataError` (file, row, column, value, expectation) or `ConfigError` (mapping).
    """
    given, spec = spec, _resolved(spec)
    rows = read_rows(spec, report)
    parts = rows.iter_slices(_CHUNK) if len(rows) else [rows]
    checked = [_check_rows(Checker(spec, part, report)) for part in parts]
    del rows
    check = Checker(spec, pl.concat(checked), report)
    del checked
    if spec is not given:  # the anonymiser left its rows in order, and minutes out
        check.frame = check.frame.with_columns(_order=pl.col(ROW), order=pl.col(ROW))
    labels = check.frame["_behaviour"].n_unique()
    if labels > MOST_LABELS:
        raise DataError(
            f"{spec.path}: column {spec.columns['behaviour']!r} holds {labels} different labels, "
            f"expected at most {MOST_LABELS}. Map the column that says what people do with "
            "--config.data.columns.behaviour=COLUMN, or merge rare labels."
        )
    ids = pl.Series("id", sorted_ids(_values(check.frame["_user"])), pl.String)
    check.frame = check.frame.with_columns(
        _codes(check.frame["_user"], ids.to_list(), pl.Int32).alias("_user")
    )
    _sort(check)
    if spec is given:
        report.duplicates = _duplicates(check.frame)
    else:
        report.duplicates = (anonymised_mark(Path(spec.path)) or {}).get("duplicates")
    if check.frame.is_empty():
        raise DataError(
            f"{spec.path} holds no usable row ({sum(report.counts.values())} skipped); expected "
            "one event per row."
        )
    names = ["user", "day", "weekday", "slot", "behaviour", "gap"]
    names += ["location"] * spec.has_places
    columns = [pl.col(f"_{name}").alias(name) for name in names]
    frame = check.frame.select(*columns, pl.col("^split$"))
    return frame.with_columns(ids.cast(pl.Categorical).gather(frame["user"]).alias("id"))


def store_from_frame(spec: DataSpec, frame: pl.DataFrame) -> EventStore:
    """The store of `read_frame`'s rows, split by the `split` column or else by person (8:1:1)."""
    changes = frame.select((pl.col("user") != pl.col("user").shift(1)).fill_null(True)).to_series()
    starts = changes.arg_true()
    offsets = np.append(starts.to_numpy(), len(frame)).astype(np.int64)
    users = frame["id"].gather(starts).to_list()
    behaviours = spec.behaviours or tuple(_values(frame["behaviour"]))
    if "split" in frame.columns:
        split = [SPLITS.index(name) for name in frame["split"].gather(starts)]
    else:
        assigned = split_users(users, spec.split_seed)
        split = [assigned[user] for user in users]
    location = np.full(len(frame), -1, np.int32)
    if "location" in frame.columns:
        areas = _values(frame["location"])
        location = _codes(frame["location"], areas, pl.Int32).fill_null(-1).to_numpy()
    return EventStore(
        catalogue=Catalogue(
            behaviours, spec.slots_per_day, "location" in frame.columns, spec.has_dates
        ),
        users=np.asarray(users),
        split=np.asarray(split, np.int8),
        offsets=offsets,
        day=frame["day"].to_numpy().astype(np.int32),
        weekday=frame["weekday"].to_numpy().astype(np.int8),
        slot=frame["slot"].to_numpy().astype(np.int16),
        location=location,
        behaviour=_codes(frame["behaviour"], list(behaviours), pl.Int16).to_numpy(),
        gap=frame["gap"].to_numpy(),
    ).with_fingerprint()


def read_events(spec: DataSpec, report: BadRows | None = None) -> EventStore:
    """Reads, checks, sorts and splits a file into an `EventStore`.

    Skipped rows are counted in `report`. Raises `DataError` or `ConfigError` as `read_frame` does.
    """
    frame = read_frame(spec, report if report is not None else BadRows())
    return store_from_frame(_resolved(spec), frame)


def read_people(spec: DataSpec) -> tuple[EventStore, list[str]]:
    """The events of a file's people, whom no split divides, and the names of the areas that `location` codes.

    Raises `DataError` or `ConfigError` as `read_frame` does.
    """
    undivided = {role: column for role, column in spec.columns.items() if role != "split"}
    spec = dataclasses.replace(spec, columns=undivided)
    frame = read_frame(spec, BadRows()).with_columns(split=pl.lit(SPLITS[-1]))
    areas = _values(frame["location"]) if "location" in frame.columns else []
    return store_from_frame(_resolved(spec), frame), areas


def read_store(spec: DataSpec, report: BadRows | None = None) -> EventStore:
    """`read_events`, telling the person who asked for it which rows were skipped and why."""
    report = report if report is not None else BadRows()
    store = read_events(spec, report)
    for reason, count in report.counts.items():
        notice(f"{spec.path}: skipped {count} rows ({reason})")
    if report.duplicates:
        notice(
            f"{spec.path}: {report.duplicates} rows repeat an earlier one exactly; they are kept"
        )
    for found in sorted(report.null_words):
        notice(f"{spec.path}: {found}, read as it stands; leave a value empty where there is none")
    if _resolved(spec).time_form() == "time":
        last = _EPOCH + datetime.timedelta(days=int(store.day.max()))
        if last > datetime.date.today() + datetime.timedelta(days=1):
            notice(
                f"{spec.path}: the last event is on {last}, which is still to come: are the times what they "
                "are read as?"
            )
    if report.mixed_clocks:
        read = f"UTC, shown in {spec.time_zone}" if spec.time_zone else "the person's own clock"
        notice(
            f"{spec.path}: some times have an offset from UTC and others none: what has none is read as "
            f"{read} (config.data.time_zone)"
        )
    return store
