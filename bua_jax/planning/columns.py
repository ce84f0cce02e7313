"""What a stranger's file is, and what its columns mean: by their names, and by what stands in them."""

import codecs
import csv
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.names import MOST_LABELS
from bua_jax.events.rows import is_parquet
from bua_jax.events.schema import SPLITS
from bua_jax.events.spec import ROLES

SEPARATORS = (",", "\t", ";", "|")
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PACKED = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip (a spreadsheet?)"}
_ISO = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}:?\d{2}))?$"
_EPOCH = r"^\d{9,10}(\.\d+)?$"
_LIKE_TIME = (
    r"^\d{12,13}$|^\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|^\d{1,2}:\d{2}"  # in a form that is not read
)
_SAMPLE = 20_000  # rows that columns are judged by
_LINES = 50  # lines that the separator is judged by

_CALLED = {
    "user": """user_id user userid uid person_id person participant_id participant subject_id subject pid
        customer_id customer member device_id who seq_id id""",
    "time": """time timestamp datetime date_time event_time utc_time local_time ts created_at start_time start
        begin when date""",
    "behaviour": """behaviour behavior activity action event event_type event_name label category
        venue_category app app_name type what name""",
    "location": """location place area location_id place_id venue_id venue poi poi_id grid_id cell_id cell
        zone region site where""",
    "day": "day day_index day_number",
    "week": "week week_id week_traj_id",
    "order": "order position",
    "weekday": "weekday day_of_week",
    "hour": "hour hour_of_day",
}
NAMES = {role: tuple(called.split()) for role, called in _CALLED.items()}
"""What people call a column of each role, the surest first."""


@dataclass(frozen=True)
class Layout:
    """How a file is written; `names` are its columns. Parquet has neither encoding nor separator."""

    format: str
    encoding: str
    separator: str
    names: tuple[str, ...]

    @property
    def as_read(self) -> bool:
        """Whether a run reads it as it is: parquet, or UTF-8 with commas or tabs."""
        return self.encoding in ("", "utf-8", "utf-8-sig") and self.separator in ("", ",", "\t")


@dataclass(frozen=True)
class Guess:
    """The column of a role, and why."""

    role: str
    column: str
    why: str
    examples: tuple[str, ...]


def _encoding(path: Path) -> str:
    """UTF-8 where all bytes are, UTF-16 by its mark, else Windows-1252, or Latin-1, which takes any byte."""
    with open(path, "rb") as file:
        start = file.read(4)
        for mark, name in _PACKED.items():
            if start.startswith(mark):
                raise DataError(f"{path} is {name}; unpack it, or write it as CSV, first.")
        for mark, name in _BOMS.items():
            if start.startswith(mark):
                return name
        if b"\0" in start:
            raise DataError(f"{path} is binary; expected text (CSV, TSV) or parquet.")
        for name in ("utf-8", "cp1252"):
            file.seek(0)
            decoder = codecs.getincrementaldecoder(name)()
            try:
                while part := file.read(2**20):
                    decoder.decode(part)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            return name
    return "latin-1"


def _separator(lines: Sequence[str]) -> str:
    """That by which most lines have the header's number of fields, more than one of them."""

    def fit(separator: str) -> tuple[int, int]:
        rows = list(csv.reader(lines, delimiter=separator))
        width = len(rows[0]) if rows else 0
        return (sum(len(row) == width for row in rows) if width > 1 else 0, width)

    return max(SEPARATORS, key=fit)


def layout_of(path: Path) -> Layout:
    """Reads a file's beginning (and all of its bytes, for the encoding).

    Raises `DataError` for a file that is not there, is empty, packed or binary, or has no header.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise DataError(
            f"{path} is empty; expected events, one per row, under a line of column names."
        )
    if is_parquet(path):
        try:
            return Layout("parquet", "", "", tuple(pl.read_parquet_schema(path)))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as parquet: it is truncated. Copy it again."
            ) from error
    encoding = _encoding(path)
    try:
        with open(path, encoding=encoding, newline="") as file:
            head = [line for line in (file.readline() for _ in range(_LINES)) if line.strip()]
        if not head:
            raise DataError(f"{path} holds empty lines only; expected events, one per row.")
        separator = _separator(head)
        names = tuple(next(csv.reader(head[:1], delimiter=separator)))
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as a table in {encoding}: {error}.") from error
    values = [name for name in names if re.match(f"{_ISO}|{_EPOCH}", name.strip())]
    if values:
        raise DataError(
            f"The first line of {path} holds values ({values[0]!r}), not names of columns. Write a line of "
            "names above it, such as user,time,location,behaviour."
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has several columns {twice!r}; rename all but one.")
    return Layout("tsv" if separator == "\t" else "csv", encoding, separator, names)


def _rows(path: Path, layout: Layout) -> Iterator[list[str]]:
    """The rows of a text file, its header first. Raises `DataError` for one that cannot be read."""
    with open(path, encoding=layout.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=layout.separator)
        try:
            yield from reader
        except (csv.Error, UnicodeError) as error:
            raise DataError(
                f"{path}, after line {reader.line_num}: {error}. Mend that row."
            ) from error


def plain_copy(path: Path, layout: Layout, output: Path) -> None:
    """Writes a text file as UTF-8 with commas, field by field, as the readers take it."""
    with open(output, "w", encoding="utf-8", newline="") as target:
        csv.writer(target, lineterminator="\n").writerows(_rows(path, layout))


def sample_of(path: Path, layout: Layout) -> pl.DataFrame:
    """The first rows, every column as text; columns of other types than text and numbers as null."""
    if layout.format == "parquet":
        try:
            scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            frame = scan.head(_SAMPLE).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as parquet: it is damaged. Copy it again."
            ) from error
        return frame.select(
            pl.lit(None, pl.String).alias(name)
            if frame.schema[name].is_nested() or frame.schema[name] == pl.Binary
            else pl.col(name).cast(pl.String)
            for name in frame.columns
        )
    rows: list[list[str | None]] = []
    for row in itertools.islice(_rows(path, layout), 1, None):
        if any(row):
            texts = map(str.strip, row)
            filled: list[str | None] = [None if t in ("", "NaN", "nan") else t for t in texts]
            rows.append((filled + [None] * len(layout.names))[: len(layout.names)])
        if len(rows) == _SAMPLE:
            break
    return pl.DataFrame(rows, schema=dict.fromkeys(layout.names, pl.String), orient="row")


def share_of(values: pl.Series, pattern: str) -> float:
    """Share of the texts that hold a match of the pattern; nulls aside, 0 of none."""
    found = values.drop_nulls().str.contains(pattern)
    return float(found.sum()) / max(1, len(found))


def _plausible(role: str, values: pl.Series, *, named: bool = False) -> str:
    """What in a column's values fits a role, or nothing; named: as its name does."""
    filled = values.drop_nulls()
    if not len(filled):
        return ""
    dates, epochs = share_of(values, _ISO), share_of(values, _EPOCH)
    if role == "time":
        if max(dates, epochs) < 0.5:
            return ""
        return "dates and times" if dates >= epochs else "epoch seconds"
    if max(dates, epochs) > 0.5:
        return ""
    distinct = filled.n_unique()
    if role == "user":
        return "values that recur" if 2 * distinct <= len(filled) else ""
    if role == "behaviour":
        few = distinct <= min(MOST_LABELS, max(2, len(filled) // 4))
        return "few and recurring values" if few and (named or distinct > 1) else ""
    return "values that differ" if distinct > 1 else ""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _named(role: str, name: str) -> float:
    """How well a name fits a role: 1 to 2 for one that people use, less for one that contains such, 0."""
    known, key = NAMES[role], _key(name)
    if key in known:
        return 2 - known.index(key) / len(known)
    parts = key.split("_")
    return 0.5 * any(word in parts for word in known)


def _exact(names: Sequence[str]) -> dict[str, str]:
    """Roles that are columns' own names: what has no other sign, such as `slot` or `gap`."""
    return {
        role: name for name in names for role in ROLES if _key(name) in NAMES.get(role, (role,))
    }


_CLOCK = ("day", "week", "order", "weekday", "slot", "hour", "minute")
"""Fields that say when an event was where no column holds whole times."""


def guess_columns(frame: pl.DataFrame, given: Mapping[str, str]) -> list[Guess]:
    """The columns of the fields that a file has, as far as they can be told; what is given is kept.

    given: role -> column, or "" for none. Raises `ConfigError` for a role or column that there is not,
    `DataError` where no column fits person, time or behaviour.
    """
    _check_given(frame, given)
    if frame.is_empty():
        raise DataError("The file has names of columns and no rows; expected events, one per row.")
    found = {role: Guess(role, column, "given", ()) for role, column in given.items() if column}
    exact = _exact(frame.columns)
    timed = "time" in found or any(_plausible("time", frame[name]) for name in frame.columns)
    days, hours = {"day", "week", "order", "weekday"} & set(exact), {"slot", "hour"} & set(exact)
    counted = days and hours  # else whole times are missing, which is said
    clock = _CLOCK if {*_CLOCK} & set(given) or (counted and not timed) else ()
    by_name = ["gap", *clock]
    if "split" in exact and set(frame[exact["split"]].drop_nulls()) <= {*SPLITS}:
        by_name.append("split")
    for role in by_name:
        if role in exact and role not in given:
            found[role] = Guess(role, exact[role], "its name", ())
    by_content = ("user", "behaviour", "location")
    left = [r for r in (by_content if clock else ("time", *by_content)) if r not in given]
    for named in (True, False):  # a column's name says more than another's contents
        for role in [role for role in left if role not in found]:
            try:
                found |= _best(role, frame, found, named)
            except DataError as error:
                asked = ",".join(f"{r}=COLUMN" for r in left if r not in found and r != "location")
                untold = role != "time" and "location" in left and "location" not in found
                places = " (and location=COLUMN, if there are places)" * untold
                raise DataError(f"{error} Say which it is: --columns={asked}{places}.") from error
    return [
        replace(
            guess, examples=tuple(frame[guess.column].drop_nulls().unique(maintain_order=True)[:3])
        )
        for guess in sorted(found.values(), key=lambda guess: ROLES.index(guess.role))
    ]


def _check_given(frame: pl.DataFrame, given: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a role or a column that there is not."""
    for role, column in given.items():
        if role not in ROLES:
            raise ConfigError(f"--columns: {role!r} is none of {', '.join(ROLES)}.")
        if column and column not in frame.columns:
            near = difflib.get_close_matches(column, frame.columns, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"--columns={role}={column}: the file has no such column; it has "
                f"{', '.join(frame.columns)}.{hint}"
            )


def _best(
    role: str, frame: pl.DataFrame, taken: Mapping[str, Guess], named: bool
) -> dict[str, Guess]:
    """The column that fits a role best by its name, or by its contents alone, which no place is told by."""
    used = {guess.column for guess in taken.values()}
    fits = {
        name: said
        for name in frame.columns
        if name not in used and (said := _plausible(role, frame[name], named=named))
    }
    if named:
        called = [name for name in fits if _named(role, name)]
        if not called:
            return {}
        best = max(called, key=lambda name: _named(role, name))  # the first of equals
        return {role: Guess(role, best, f"its name; {fits[best]}", ())}
    if role == "location":
        return {}
    if len(fits) == 1:
        return {role: Guess(role, *next(iter(fits.items())), ())}
    which = (
        f"Several columns could be the {_MEANT[role]}: {', '.join(fits)}."
        if fits
        else f"No column looks like the {_MEANT[role]}; the file has {', '.join(frame.columns)}."
    )
    if role == "time":
        called = [
            name
            for name in frame.columns
            if _named(role, name) or share_of(frame[name], _LIKE_TIME) > 0.5
        ]
        shown = "; ".join(f"{name}: {frame[name].drop_nulls().first()!r}" for name in called)
        which += (
            f" Write date and clock into one column of that form ({shown or 'none is called so'})."
        )
    raise DataError(which)


_MEANT = {
    "user": "person (an id that recurs)",
    "time": "time (2024-03-01T18:30, or epoch seconds)",
    "behaviour": "behaviour (a few labels that recur)",
}
