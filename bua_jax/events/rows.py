"""Raw rows: a file's mapped columns as a table, and the checks that name a bad row."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.records import SEPARATORS, header, line_of, records, separator_hint
from bua_jax.events.spec import DataSpec

ROW = "row"
"""Column of 1-based data row numbers (the header line of a text file is not counted)."""


@dataclass
class BadRows:
    """Counts of skipped rows by reason; filled while a file is read with on_bad_row=skip.

    `duplicates`: kept rows that say in all mapped columns what an earlier one says. `mixed_clocks`:
    whether some times have an offset from UTC and others none. `null_words`: "column 'x' holds 'NULL'" of
    values that were read as they stand.
    """

    counts: dict[str, int] = field(default_factory=dict)
    duplicates: int | None = None
    mixed_clocks: bool = False
    null_words: set[str] = field(default_factory=set)

    def add(self, reason: str, count: int) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count


def bad_row(
    spec: DataSpec, number: int, column: str, value: object, expected: str, hint: str = ""
) -> DataError:
    """The error for one row; `number` counts data rows from 1."""
    line = ""
    if spec.format != "parquet":
        line = f" (line {line_of(Path(spec.path), spec.format, number)})"
    shown = str(value) if isinstance(value, date) else repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]} ..."
    return DataError(
        f"{spec.path}, row {number}{line}, column {column}: value {shown}, expected {expected}."
        f"{hint} Mend the row, or skip and count such rows with --config.data.on_bad_row=skip."
    )


class Checker:
    """Rows under examination: `require` raises at the first bad one, or drops and counts them."""

    def __init__(self, spec: DataSpec, frame: pl.DataFrame, report: BadRows) -> None:
        self.spec, self.frame, self.report = spec, frame, report

    def require(
        self, role: str, good: pl.Expr, expected: str, hint: Callable[[object], str] | None = None
    ) -> None:
        """Keeps the rows where `good` (null counts as bad); the error shows the value of `role`.

        hint: what to say about that value beyond what was expected.
        """
        passed = self.frame.select(good.fill_null(False).alias("good")).to_series()
        if passed.all():
            return
        column = self.spec.columns.get(role, role)
        if self.spec.on_bad_row == "error":
            row = self.frame.row(int(passed.not_().arg_true()[0]), named=True)
            more = hint(row[role]) if hint else ""
            raise bad_row(self.spec, row[ROW], column, row[role], expected, more)
        self.report.add(f"{column}: expected {expected}", int((~passed).sum()))
        self.frame = self.frame.filter(passed)


def _mended(spec: DataSpec, report: BadRows, path: Path) -> pl.DataFrame:
    """The mapped columns of the good records of a text file that polars refuses, by role.

    Raises for the first bad record (not UTF-8, misplaced quotes, or more fields than the header) or,
    with on_bad_row=skip, drops and counts it. Only damaged files come here.
    """
    found = records(path, spec.format)
    names = next(found).fields or []
    at = [names.index(column) for column in spec.columns.values()]
    rows: list[list[str | int | None]] = []
    for number, record in enumerate(found, 1):
        wrong, value = record.wrong, record.text
        if record.fields is not None and len(record.fields) > len(names):
            wrong, value = f"{len(names)} fields as in the header", ",".join(record.fields).encode()
        if not wrong:
            fields = [field or None for field in record.fields or []]
            if any(fields):
                fields += [None] * (len(names) - len(fields))
                rows.append([*(fields[i] for i in at), number])
        elif spec.on_bad_row == "error":
            raise bad_row(spec, number, "(whole record)", value[:80], wrong)
        else:
            report.add(f"(whole record): expected {wrong}", 1)
    schema = dict.fromkeys(spec.columns, pl.String) | {ROW: pl.UInt32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _scan_text(spec: DataSpec, path: Path) -> pl.LazyFrame:
    separator = SEPARATORS[spec.format]
    return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)


def _misquoted(spec: DataSpec, path: Path) -> bool:
    """Whether a record breaks the rules of quotes: polars reads some of these as part of others.

    Lines are looked at first, because that is fast; those of records over several lines look wrong.
    """
    separator = SEPARATORS[spec.format]
    field = f'(?:"(?:[^"]|"")*"|[^"{separator}][^{separator}]*)?'
    record, line = f"^{field}(?:{separator}{field})*\r?$", pl.col("line").str
    wrong = line.contains('"', literal=True) & ~line.contains(record)
    if pl.scan_lines(path, glob=False).filter(wrong).head(1).collect().is_empty():
        return False
    return any(found.wrong for found in records(path, spec.format))


def _overfull_end(spec: DataSpec, path: Path, columns: int) -> bool:
    """Whether the last line has no end and may hold an empty field too many, which polars overlooks."""
    with open(path, "rb") as file:
        file.seek(-min(path.stat().st_size, 2**20), os.SEEK_END)
        last = file.read().rpartition(b"\n")[2]
    separator = SEPARATORS[spec.format].encode()
    return last.endswith(separator) and last.count(separator) >= columns


def _check_columns(spec: DataSpec, present: Sequence[str]) -> None:
    """Raises `DataError` unless each mapped column is there once."""
    for role, column in spec.columns.items():
        if column not in present:
            hint = "" if spec.format == "parquet" else separator_hint(present, spec.format)
            near = next((name for name in present if name.strip().lower() == column.lower()), None)
            if not hint and near is not None:
                hint = f" It is called {near!r} there: --config.data.columns.{role}={shlex.quote(near)}."
            hint = hint or f" Map it with --config.data.columns.{role}=COLUMN."
            raise DataError(
                f"{spec.path} has no column {column!r} for the field {role!r}; it has "
                f"{', '.join(present)}.{hint}"
            )
        if list(present).count(column) > 1:
            raise DataError(f"{spec.path} has several columns {column!r}; rename all but one.")


def _select(spec: DataSpec, frame: pl.LazyFrame) -> pl.DataFrame:
    """The mapped columns by role, with row numbers; empty lines of text are no rows."""
    mapped = [pl.col(column).alias(role) for role, column in spec.columns.items()]
    if spec.format == "parquet":
        return frame.select(mapped).with_row_index(ROW, offset=1).collect()
    filled = pl.any_horizontal(pl.all().exclude("__row").is_not_null())
    numbered = frame.with_row_index("__row", offset=1).filter(filled)
    return numbered.select(*mapped, pl.col("__row").alias(ROW)).collect()


def is_parquet(path: Path) -> bool:
    """Whether the file begins as parquet files do."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def check_file(spec: DataSpec) -> Path:
    """Path of the set's file. Raises if none is given, it is absent, empty or of another format."""
    if not spec.path:
        raise ConfigError(f"Data set {spec.name!r} has no file yet: give --config.data.path=FILE.")
    path = Path(spec.path)
    if not path.is_file():
        source = f" Where data set {spec.name!r} is from: {spec.cite}." if spec.cite else ""
        raise DataError(f"There is no file {path}; set --config.data.path=FILE.{source}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; expected events, one per row.")
    if spec.format != "parquet" and is_parquet(path):
        raise DataError(
            f"{path} is a parquet file, not {spec.format}; set --config.data.format=parquet."
        )
    return path.absolute()  # or polars takes file:x.csv for an address


def read_rows(spec: DataSpec, report: BadRows) -> pl.DataFrame:
    """The mapped columns by role, unchecked; text files as strings. Rows are numbered from 1.

    Raises `DataError` for a missing, empty, truncated or malformed file or a missing column.
    """
    path = check_file(spec)
    if spec.format == "parquet":
        try:
            frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            _check_columns(spec, frame.collect_schema().names())
            return _select(spec, frame)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as parquet ({str(error).partition(chr(10))[0]}). It is truncated "
                "or of another format; copy it again or set --config.data.format."
            ) from error
    names = header(path, spec.format)
    _check_columns(spec, names)
    try:
        if not _overfull_end(spec, path, len(names)) and not _misquoted(spec, path):
            return _select(spec, _scan_text(spec, path))
    except pl.exceptions.PolarsError:
        pass
    return _mended(spec, report, path)
