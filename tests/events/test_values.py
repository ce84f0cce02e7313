"""Which types, ids and labels columns may have, and rows that say the same."""

from pathlib import Path

import polars as pl
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.events.anonymise import anonymise_file
from bua_jax.events.card import card_markdown, write_card
from bua_jax.events.readers import read_events, read_store
from bua_jax.events.rows import BadRows
from bua_jax.events.spec import DataSpec
from tests.events.stores import good_rows, read_rows, spec_of, write_csv


def parquet(tmp_path: Path, **columns: pl.Series) -> DataSpec:
    """60 good events with some columns replaced."""
    frame = pl.read_csv(write_csv(tmp_path / "mine.csv", good_rows()))
    path = tmp_path / "mine.parquet"
    frame.with_columns(**columns).write_parquet(path)
    return spec_of(path)


def test_columns_are_read_as_their_text(tmp_path) -> None:
    numbers = pl.Series([i // 12 for i in range(60)])
    store = read_events(parquet(tmp_path, user_id=numbers.cast(pl.String)))
    assert read_events(parquet(tmp_path, user_id=numbers)).fingerprint == store.fingerprint
    for kind in (pl.Categorical, pl.Enum([str(i) for i in range(9, -1, -1)])):
        column = numbers.cast(pl.String).cast(kind)
        assert read_events(parquet(tmp_path, user_id=column)).fingerprint == store.fingerprint
    times = pl.Series([f"2024-03-{i % 12 + 1:02d}T{8 + i // 12:02d}:30" for i in range(60)])
    spec = parquet(tmp_path, user_id=numbers, time=times.cast(pl.Categorical))
    assert read_events(spec).fingerprint == store.fingerprint
    areas = [float("nan") if i % 2 else None for i in range(60)]
    assert (read_events(parquet(tmp_path, location=pl.Series(areas))).location == -1).all()


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([bytes([i % 7]) * 16 for i in range(60)]),
        pl.Series([[i % 7] for i in range(60)]),
        pl.Series([{"a": i % 7} for i in range(60)]),
        pl.Series([i % 2 == 0 for i in range(60)]),
    ],
)
@pytest.mark.parametrize("name", ["user_id", "behavior", "location"])
def test_columns_without_a_text(tmp_path, name: str, column: pl.Series) -> None:
    with pytest.raises(DataError, match=rf"column '{name}' .*has type .*expected text or numbers"):
        read_events(parquet(tmp_path, **{name: column}))


def test_a_missing_number_is_nobody(tmp_path) -> None:
    users = pl.Series([float("nan") if i == 7 else float(i // 12) for i in range(60)])
    with pytest.raises(DataError, match="row 8, column user_id: value None"):
        read_events(parquet(tmp_path, user_id=users))
    for text in ("NaN", "nan"):
        with pytest.raises(DataError, match=r"column user_id: value .*expected a value"):
            read_rows(tmp_path, [*good_rows(), f"{text},2024-03-05T08:00,x,chat\n"])


@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\x85b", "\x1b[31m", "\u202ex", "a\x00b", '"a\nb"', "a\rb", "x" * 257]
)
@pytest.mark.parametrize("column", ["user_id", "behavior"])
def test_names_that_cannot_be_written(tmp_path, name: str, column: str) -> None:
    row = (
        f"{name},2024-03-05T08:00,x,chat\n"
        if column == "user_id"
        else f"p0,2024-03-05T08:00,x,{name}\n"
    )
    with pytest.raises(DataError, match=rf"row 61 .*column {column}: .*at most 256 char") as caught:
        read_rows(tmp_path, [*good_rows(), row])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert len(read_rows(tmp_path, [*good_rows(), row], on_bad_row="skip").day) == 60


def test_a_limit_of_labels(tmp_path) -> None:
    labels = [f"b{i}" for i in range(10_001)]
    frame = pl.DataFrame({"user_id": 1, "time": 1709318400, "location": "x", "behavior": labels})
    frame.write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"column 'behavior' holds 10001 .*at most 10000"):
        read_events(spec_of(tmp_path / "mine.parquet"))


def test_exact_duplicates_are_counted_and_kept(tmp_path, capsys) -> None:
    """Of one person, in all columns, to the second; also where another event lies between them."""
    again = [
        f"p0,2024-03-01T08:30:0{s},cell0,{b}\n" for s, b in ((1, "chat"), (1, "pay"), (2, "chat"))
    ]
    rows = [*good_rows(), *again, good_rows()[0], good_rows()[13], again[0], again[0]]
    spec = spec_of(write_csv(tmp_path / "mine.csv", rows))
    report = BadRows()
    store = read_store(spec, report)
    assert (len(store.day), report.duplicates) == (67, 4)
    assert "4 rows repeat an earlier one exactly" in capsys.readouterr().err
    card = write_card(store, tmp_path, report.duplicates)
    assert "| exact duplicates | 4 |" in card_markdown(card)
    anonymise_file(spec, tmp_path / "a.parquet", b"k" * 32)
    assert read_store(spec_of(tmp_path / "a.parquet"), report).fingerprint
    assert report.duplicates == 4
    read_events(spec_of(write_csv(tmp_path / "mine.csv", good_rows())), report)
    assert report.duplicates == 0
