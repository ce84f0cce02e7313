"""People out of a frame or a file whose columns nobody has said: what Python asks a model about."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from bua_jax.basics.errors import DataError
from bua_jax.events.histories import People, people_of_events
from bua_jax.events.schema import Catalogue
from bua_jax.events.spec import DataSpec
from bua_jax.planning.columns import guess_columns, layout_of, plain_copy, sample_of

TUPLE = ("user", "time", "behaviour", "location")


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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(events) if isinstance(events, str | Path) else _written(events, Path(folder))
        layout = layout_of(path)
        guesses = guess_columns(sample_of(path, layout), columns or {})
        mapped = {guess.role: guess.column for guess in guesses}
        if not catalogue.has_places:
            mapped.pop("location", None)
        if not layout.as_read:
            plain_copy(path, layout, Path(folder) / "plain.csv")
        spec = DataSpec(
            name="own",
            path=str(path if layout.as_read else Path(folder) / "plain.csv"),
            format=layout.format if layout.as_read else "csv",
            columns=mapped,
            slots_per_day=catalogue.slots_per_day,
            has_dates=bool({"time", "day"} & set(mapped)),
        )
        return people_of_events(spec, {}, catalogue, limit, only)


def _written(events: Any, folder: Path) -> Path:
    """A frame, or tuples, as a parquet file."""
    path = folder / "events.parquet"
    if not isinstance(events, pl.DataFrame):
        known = hasattr(events, "__dataframe__")  # of pandas, pyarrow and others
        events = pl.from_dataframe(events) if known else _framed(events)
    events.write_parquet(path)
    return path


def _framed(events: Iterable[Any]) -> pl.DataFrame:
    rows = list(events) if isinstance(events, Iterable) else []
    width = len(rows[0]) if rows and isinstance(rows[0], tuple) else 0
    if width not in (3, 4) or any(not isinstance(row, tuple) or len(row) != width for row in rows):
        raise DataError(
            "Events are a path, a frame of polars or pandas, or tuples (user, time, behaviour[, location]); "
            f"this is {type(events).__name__}."
        )
    return pl.DataFrame(rows, schema=TUPLE[:width], orient="row")
