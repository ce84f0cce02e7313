"""CSV, TSV and parquet files to an `EventStore`, through a column mapping.

Time comes in one of two forms: a `time` column (ISO 8601 text or epoch seconds), or a weekday with an
hour (or slot) column. In the second form days are numbered from `day` if there is one; else from
`week`, whose every new value starts after an unknown gap.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from bua_jax.console import notice
from bua_jax.errors import ConfigError, DataError
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore
from bua_jax.events.split import split_from_column, split_users

RENEWED_KEY = b"bua_jax.renewed_ids"
"""Parquet metadata key of files whose ids the anonymiser renewed."""
_ROW = "__row"


@dataclass(frozen=True)
class DataSpec:
    """What `configs/data/*.py` describe: a file and what its columns mean."""

    name: str
    path: str
    format: str = "parquet"
    columns: Mapping[str, str] = field(default_factory=dict)
    slots_per_day: int = 48
    has_dates: bool = True
    has_places: bool = True
    behaviours: tuple[str, ...] = ()
    on_bad_row: str = "error"
    split_seed: int = 42
    time_zone: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "DataSpec":
        """Builds it from the plain-dict form of a config; fields it does not know are ignored."""
        names = {f.name for f in dataclasses.fields(cls)}
        known = {k: v for k, v in values.items() if k in names}
        known["behaviours"] = tuple(known.get("behaviours", ()))
        known["columns"] = {k: v for k, v in known.get("columns", {}).items() if v}
        return cls(**known)


@dataclass
class BadRows:
    """Counts of skipped rows by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count


def _scan(spec: DataSpec) -> pl.DataFrame:
    path = Path(spec.path)
    if not spec.path:
        raise ConfigError(f"Data set {spec.name!r} has no file yet: give --config.data.path=FILE.")
    if not path.is_file():
        raise DataError(f"There is no file {path}; set --config.data.path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    wanted = list(dict.fromkeys(spec.columns.values()))
    try:
        if spec.format in ("csv", "tsv"):
            separator = "," if spec.format == "csv" else "\t"
            frame = pl.scan_csv(path, separator=separator, infer_schema=False)
        elif spec.format == "parquet":
            frame = pl.scan_parquet(path)
        else:
            raise ConfigError(f"data.format={spec.format!r} is none of csv, tsv, parquet.")
        present = frame.collect_schema().names()
        for name, column in spec.columns.items():
            if column not in present:
                raise DataError(
                    f"{path} has no column {column!r} for the field {name!r}; it has "
                    f"{', '.join(present)}. Map it with --config.data.columns.{name}=COLUMN."
                )
        frame = frame.select(wanted).with_row_index(_ROW, offset=1)
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as {spec.format} ({first}). Expected a complete "
            f"{'parquet file' if spec.format == 'parquet' else 'UTF-8 text file with a header line'}."
        ) from error


class _Checker:
    """Finds bad rows of a frame; raises at the first, or drops and counts them."""

    def __init__(self, spec: DataSpec, frame: pl.DataFrame, report: BadRows) -> None:
        self.spec, self.frame, self.report = spec, frame, report

    def require(self, name: str, good: pl.Expr, expected: str, *, shown: str | None = None) -> None:
        """Keeps rows where `good`; a bad one is an error that names row, column and value."""
        column = self.spec.columns.get(name, name)
        bad = self.frame.filter(~good.fill_null(False))
        if bad.is_empty():
            return
        if self.spec.on_bad_row == "skip":
            self.report.add(f"{column}: not {expected}", len(bad))
            self.frame = self.frame.filter(good.fill_null(False))
            return
        row = bad.row(0, named=True)
        number = row[_ROW]
        line = f" (line {number + 1})" if self.spec.format != "parquet" else ""
        raise DataError(
            f"{self.spec.path}, row {number}{line}, column {column}: value "
            f"{row[shown or column]!r}, expected {expected}. Mend the row, or skip and count such "
            "rows with --config.data.on_bad_row=skip."
        )


def _weekday(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars().str.to_lowercase()
    names = {name.lower(): i for i, name in enumerate(WEEKDAYS)}
    names |= {name.lower()[:3]: i for i, name in enumerate(WEEKDAYS)}
    names |= {str(i): i for i in range(7)}
    return text.replace_strict(names, default=None, return_dtype=pl.Int8)


def _integer(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Int64, strict=False)


def _timestamp(frame: pl.DataFrame, column: str, zone: str) -> pl.Expr:
    if frame[column].dtype.is_temporal():
        parsed = pl.col(column).cast(pl.Datetime("us"))
    elif frame[column].dtype.is_numeric():
        parsed = pl.from_epoch(pl.col(column).cast(pl.Int64), time_unit="s").cast(pl.Datetime("us"))
    else:
        text = pl.col(column).str.strip_chars()
        epoch = pl.from_epoch(text.cast(pl.Int64, strict=False), time_unit="s").cast(pl.Datetime("us"))
        iso = [
            text.str.to_datetime(form, strict=False, time_unit="us")
            for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
        ]
        parsed = pl.coalesce(*iso, epoch)
    if zone:
        parsed = parsed.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return parsed


def _clock_columns(check: _Checker) -> None:
    """Adds day, weekday, slot and gap columns to the checker's frame."""
    spec, columns = check.spec, check.spec.columns
    per_hour = spec.slots_per_day // 24
    if "time" in columns:
        check.frame = check.frame.with_columns(
            __time=_timestamp(check.frame, columns["time"], spec.time_zone)
        )
        check.require(
            "time",
            pl.col("__time").is_not_null(),
            "ISO 8601 such as 2024-03-01T18:30 or epoch seconds",
        )
        time = pl.col("__time")
        check.frame = check.frame.with_columns(
            __day=time.dt.date().cast(pl.Int32),
            __weekday=(time.dt.weekday() - 1).cast(pl.Int8),
            __slot=(
                (time.dt.hour().cast(pl.Int32) * 60 + time.dt.minute()) * per_hour // 60
            ).cast(pl.Int16),
            __gap=pl.lit(False),
        )
        return
    if "weekday" in columns:
        check.frame = check.frame.with_columns(__weekday=_weekday(columns["weekday"]))
        check.require(
            "weekday", pl.col("__weekday").is_not_null(), "a weekday name or 0 (Monday) to 6"
        )
    if "slot" in columns:
        check.frame = check.frame.with_columns(__slot=_integer(columns["slot"]).cast(pl.Int16))
        legal = pl.col("__slot").is_between(0, spec.slots_per_day - 1)
        check.require("slot", legal, f"a slot from 0 to {spec.slots_per_day - 1}")
    elif "hour" in columns:
        check.frame = check.frame.with_columns(__hour=_integer(columns["hour"]))
        check.require("hour", pl.col("__hour").is_between(0, 23), "an hour from 0 to 23")
        check.frame = check.frame.with_columns(__slot=(pl.col("__hour") * per_hour).cast(pl.Int16))
    else:
        raise ConfigError(f"Data set {spec.name!r} maps neither time, slot nor hour.")
    if "day" in columns:
        check.frame = check.frame.with_columns(__day=_integer(columns["day"]).cast(pl.Int32))
        check.require("day", pl.col("__day") >= 0, "an elapsed-day number, 0 or more")
        if "weekday" not in columns:  # day 0 is a Monday
            check.frame = check.frame.with_columns(__weekday=(pl.col("__day") % 7).cast(pl.Int8))
        check.frame = check.frame.with_columns(__gap=pl.lit(False))
    elif "week" in columns and "weekday" in columns:
        check.frame = check.frame.with_columns(__week=_integer(columns["week"]))
        check.require("week", pl.col("__week").is_not_null(), "a week number")
        user = columns["user"]
        check.frame = check.frame.with_columns(
            __day=(
                pl.col("__week").rank("dense").over(user).cast(pl.Int32) * 7
                + pl.col("__weekday").cast(pl.Int32)
            )
        )
    else:
        raise ConfigError(f"Data set {spec.name!r} maps no time, day, or week with weekday.")


def _read_frame(spec: DataSpec, report: BadRows) -> pl.DataFrame:
    """Checked rows with plain columns user, day, weekday, slot, gap, location, behaviour[, split]."""
    check = _Checker(spec, _scan(spec), report)
    columns = spec.columns
    for name in ("user", "behaviour"):
        if name not in columns:
            raise ConfigError(f"Data set {spec.name!r} maps no column for {name}.")
        text = pl.col(columns[name]).cast(pl.String).str.strip_chars()
        check.require(name, text.str.len_chars() > 0, "a value that is not empty")
    if check.frame.is_empty():
        raise DataError(f"{spec.path} holds no usable row.")
    _clock_columns(check)
    if spec.behaviours:
        label = pl.col(columns["behaviour"]).cast(pl.String).str.strip_chars()
        known = ", ".join(spec.behaviours)
        check.require("behaviour", label.is_in(list(spec.behaviours)), f"one of: {known}")
    frame = check.frame
    selected = [
        pl.col(_ROW),
        pl.col(columns["user"]).cast(pl.String).str.strip_chars().alias("user"),
        pl.col("__day").alias("day"),
        pl.col("__weekday").alias("weekday"),
        pl.col("__slot").alias("slot"),
        pl.col(columns["behaviour"]).cast(pl.String).str.strip_chars().alias("behaviour"),
    ]
    if spec.has_places:
        if "location" not in columns:
            raise ConfigError(
                f"Data set {spec.name!r} has places but maps no location column; map one or set "
                "--config.data.has_places=False."
            )
        selected.append(pl.col(columns["location"]).cast(pl.String).alias("location"))
    if "split" in columns:
        selected.append(pl.col(columns["split"]).cast(pl.String).alias("split"))
    if "order" in columns:
        selected.append(_integer(columns["order"]).alias("order"))
    if "gap" in columns:
        selected.append(pl.col(columns["gap"]).cast(pl.Boolean).fill_null(False).alias("gap"))
    elif "__week" in frame.columns:
        selected.append(pl.col("__week").alias("week"))
    return frame.select(selected)


def _sort(spec: DataSpec, frame: pl.DataFrame, report: BadRows) -> pl.DataFrame:
    """Rows by user and time. With an `order` column that order must agree with the clock."""
    if "order" in frame.columns:
        frame = frame.sort("user", "order", maintain_order=True)
        moment = pl.col("day") * 48 + pl.col("slot")
        back = (moment < moment.shift(1)) & (pl.col("user") == pl.col("user").shift(1))
        check = _Checker(spec, frame.with_columns(__back=back.fill_null(False)), report)
        check.require("order", ~pl.col("__back"), "an order that does not go back in time", shown="order")
        frame = check.frame
    else:
        frame = frame.sort("user", "day", "slot", maintain_order=True)
    same = pl.col("user") == pl.col("user").shift(1)
    if "week" in frame.columns:
        frame = frame.with_columns(gap=((pl.col("week") != pl.col("week").shift(1)) & same).fill_null(False))
    elif "gap" not in frame.columns:
        frame = frame.with_columns(gap=pl.lit(False))
    return frame


def _refuse_renewed(spec: DataSpec) -> None:
    if spec.format == "parquet" and "split" not in spec.columns:
        metadata = pq.read_schema(spec.path).metadata or {}
        if RENEWED_KEY in metadata:
            raise DataError(
                f"{spec.path} has renewed ids: one person has several, so a new split could put them "
                "on both sides. Map its split column with --config.data.columns.split=split."
            )


def read_events(spec: DataSpec, report: BadRows | None = None) -> EventStore:
    """Reads, checks, sorts and splits a file into an `EventStore`.

    Raises `DataError` (file, row, column, value, expectation) or `ConfigError` (mapping).
    """
    report = report if report is not None else BadRows()
    frame = _sort(spec, _read_frame(spec, report), report)
    _refuse_renewed(spec)
    runs = frame["user"].rle().struct.unnest()
    users, counts = runs["value"].to_list(), runs["len"].to_numpy()
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    behaviours = spec.behaviours or tuple(sorted(frame["behaviour"].unique().to_list()))
    catalogue = Catalogue(behaviours, spec.slots_per_day, spec.has_places, spec.has_dates)
    if "split" in frame.columns:
        per_user = frame["split"].gather(offsets[:-1])
        split = np.asarray(split_from_column(per_user.fill_null("").to_list()), np.int8)
    else:
        assigned = split_users([str(u) for u in users], spec.split_seed)
        split = np.asarray([assigned[str(u)] for u in users], np.int8)
    if spec.has_places:
        codes = frame["location"].cast(pl.Categorical).to_physical().cast(pl.Int32)
        location = codes.fill_null(-1).to_numpy()
    else:
        location = np.full(len(frame), -1, np.int32)
    label = frame["behaviour"].replace_strict(
        list(behaviours), list(range(len(behaviours))), return_dtype=pl.Int16
    )
    return EventStore(
        catalogue=catalogue,
        users=np.asarray(users),
        split=split,
        offsets=offsets,
        day=frame["day"].to_numpy().astype(np.int32),
        weekday=frame["weekday"].to_numpy().astype(np.int8),
        slot=frame["slot"].to_numpy().astype(np.int16),
        location=np.ascontiguousarray(location, np.int32),
        behaviour=label.to_numpy(),
        gap=frame["gap"].to_numpy(),
    ).with_fingerprint()


def read_store(spec: DataSpec) -> EventStore:
    """`read_events`, reporting skipped rows to the person who asked for that."""
    report = BadRows()
    store = read_events(spec, report)
    for reason, count in report.counts.items():
        notice(f"{spec.path}: skipped {count} rows ({reason})")
    return store
