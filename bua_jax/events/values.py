"""What single values of events mean, the same for the columns of files and the fields of JSON lines."""

from typing import Any

import polars as pl

from bua_jax.basics.errors import DataError
from bua_jax.events.schema import WEEKDAYS
from bua_jax.events.spec import DataSpec

NO_TEXT = ("", "NaN", "nan")
"""Texts that stand for no value: the latter two are what libraries write of a missing number."""
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
WEEKDAY_NUMBERS = {
    key: number
    for number, name in enumerate(map(str.lower, WEEKDAYS))
    for key in (name, name[:3], str(number))
}


def text_column(role: str) -> pl.Expr:
    """Text without surrounding spaces; null where there is none."""
    text = pl.col(role).cast(pl.String).str.strip_chars()
    return pl.when(~text.is_in(NO_TEXT)).then(text)


def plain_columns(spec: DataSpec, frame: pl.DataFrame) -> pl.DataFrame:
    """Mapped columns by role, categories as their texts and NaN as null.

    Raises `DataError` for columns whose type has no such text, by name.
    """
    for role, column in spec.columns.items():
        kind = frame.schema[role]
        plain = kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)
        if not (
            plain
            or (role == "gap" and kind == pl.Boolean)
            or (role == "time" and kind.is_temporal())
        ):
            raise DataError(
                f"{spec.path}: column {column!r} ({role}) has type {kind}, expected text or numbers. "
                "Write it as text (UUIDs too), or map another column."
            )
    frame = frame.with_columns(
        pl.col(pl.Categorical, pl.Enum).cast(pl.String),
        pl.col(pl.Float32, pl.Float64).fill_nan(None),
    )
    names = [role for role in ("user", "location", "behaviour") if role in spec.columns]
    return frame.with_columns(_whole(spec, role, frame[role]) for role in names)


def _whole(spec: DataSpec, role: str, column: pl.Series) -> pl.Series:
    """Whole numbers that are stored as floats, as tables with gaps have them, as integers: 7, not 7.0.

    Raises `DataError` for numbers so large that floats cannot tell them apart.
    """
    if not column.dtype.is_float() or not (column == column.floor()).all():
        return column
    largest = 2**53 if column.dtype == pl.Float64 else 2**24
    if (column.abs() >= largest).any():
        raise DataError(
            f"{spec.path}: column {spec.columns[role]!r} ({role}) holds floats of {largest} and more, of "
            "which neighbours are the same number. Write it as text or as integers."
        )
    return column.cast(pl.Int64)


def text(value: Any) -> str | None:
    """Scalar `text_column`. Raises `ValueError` for what is neither text nor a number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a text")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # as a column of such numbers is read
    found = str(value).strip()
    return None if found in NO_TEXT else found


def flag(value: Any) -> bool:
    """Scalar of a gap; nothing is false. Raises `ValueError`."""
    found = value if isinstance(value, bool) else text(value)
    if found is None or isinstance(found, bool):
        return bool(found)
    if found.lower() not in BOOLEANS:
        raise ValueError("true or false")
    return BOOLEANS[found.lower()]


def weekday(value: Any) -> int:
    """0 (Monday) to 6. Raises `ValueError`."""
    name = (text(value) or "").lower()
    if name not in WEEKDAY_NUMBERS:
        raise ValueError("a name such as 'Tuesday' or 'Tue', or 0 (Monday) to 6")
    return WEEKDAY_NUMBERS[name]


def day(value: Any, largest: int) -> int:
    """A whole number of days. Raises `ValueError`."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or abs(value) > largest:
        raise ValueError(f"a whole number of days, at most {largest}")
    return int(value)
