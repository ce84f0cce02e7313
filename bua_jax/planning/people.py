"""People out of files of any dialect, frames and tuples: whom a model is asked about."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from bua_jax.basics.console import waiting
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.histories import People, people_of_events
from bua_jax.events.schema import Catalogue
from bua_jax.events.spec import DataSpec
from bua_jax.pipeline import finished
from bua_jax.planning.columns import guess_columns, layout_of, plain_copy, sample_of

TUPLE = ("user", "time", "behaviour", "location")
_TEXT = ("csv", "tsv")
_INSTEAD = {  # of what only a command line can be told
    "--columns=": "columns: ",
    "skip and count such rows with --config.data.on_bad_row=skip": "leave it out",
}


def asked_people(
    model: str | Path, path: str | Path, catalogue: Catalogue, limit: int, **told: Any
) -> People:
    """`finished.asked_people`, of a file of any separator and encoding, as `check` and `fit` take it."""
    path = Path(path)
    with waiting(f"reading {path}"), tempfile.TemporaryDirectory() as folder:
        copy = None
        if finished.TABLES.get(path.suffix) in _TEXT:
            layout = layout_of(path)
            as_named = layout.format == finished.TABLES[path.suffix]
            if layout.format in _TEXT and not (layout.as_read and as_named):
                copy = Path(folder) / "events.csv"
                plain_copy(path, layout, copy)
        return finished.asked_people(model, path, catalogue, limit, copy=copy, **told)


def people_of(
    events: Any,
    catalogue: Catalogue,
    limit: int,
    *,
    columns: Mapping[str, str] | None = None,
    only: str = "",
) -> People:
    """The last events of each person, at most `limit`.

    events: the path of a file, a frame of polars, pandas or pyarrow, or tuples (user, time, behaviour[,
    location]).
    columns: field -> column where the guess would be wrong. Raises as `guess_columns` and
    `people_of_events`, and `DataError` for what is none of these.
    """
    given, called = dict(columns or {}), str(events)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        if isinstance(events, str | Path):
            path = Path(events)
        elif isinstance(events, pl.DataFrame) or hasattr(events, "__dataframe__"):
            _from_frame(events).write_parquet(path)
            called = "the frame"
        else:
            tuples = _framed(events)
            tuples.write_parquet(path)
            called, given = "the list of tuples", {name: name for name in tuples.columns} | given
        try:
            spec = _spec(path, given, catalogue, Path(folder) / "plain.csv")
            return people_of_events(spec, {}, catalogue, limit, only, called=called)
        except (ConfigError, DataError) as error:  # no command line is here
            said = str(error).replace(str(path), called)
            for flag, instead in _INSTEAD.items():
                said = said.replace(flag, instead)
            raise type(error)(said) from error


def _spec(path: Path, given: Mapping[str, str], catalogue: Catalogue, copy: Path) -> DataSpec:
    """How a file, or its `copy` where it is not written as the readers take it, is read."""
    layout = layout_of(path)
    mapped = {guess.role: guess.column for guess in guess_columns(sample_of(path, layout), given)}
    if not catalogue.has_places:
        mapped.pop("location", None)
    if not layout.as_read:
        plain_copy(path, layout, copy)
    return DataSpec(
        name="own",
        path=str(path if layout.as_read else copy),
        format=layout.format if layout.as_read else "csv",
        columns=mapped,
        slots_per_day=catalogue.slots_per_day,
        has_dates=bool({"time", "day"} & set(mapped)),
    )


def _from_frame(frame: Any) -> pl.DataFrame:
    try:
        return pl.from_dataframe(frame)
    except (pl.exceptions.PolarsError, NotImplementedError, TypeError, ValueError) as error:
        raise DataError(
            f"The frame cannot be read: {error}. Give every column its own name and values of one type, or "
            "leave out columns that are not needed."
        ) from error


def _framed(events: Iterable[Any]) -> pl.DataFrame:
    rows = list(events) if isinstance(events, Iterable) else []
    width = len(rows[0]) if rows and isinstance(rows[0], tuple) else 0
    if width not in (3, 4) or any(not isinstance(row, tuple) or len(row) != width for row in rows):
        raise DataError(
            "Events are a path, a frame of polars or pandas, or tuples (user, time, behaviour[, location]); "
            f"this is {type(events).__name__}."
        )
    return pl.DataFrame(rows, schema=TUPLE[:width], orient="row")
