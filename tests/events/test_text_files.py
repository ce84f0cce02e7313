"""Records, quotes, separators, encodings and names of text files."""

import dataclasses
import gzip
from pathlib import Path

import polars as pl
import pytest

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events import values
from bua_jax.events.readers import read_events, read_frame, read_store
from bua_jax.events.rows import BadRows
from tests.events.stores import HEADER, good_rows, read_rows, spec_of, write_csv


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("name", "other"), [("ev[1]", "ev1"), ("e*", "ev"), ("e?", "ev"), ("d[1]=x/ev", "d1=x/ev")]
)
def test_names_are_no_patterns(tmp_path, suffix: str, name: str, other: str) -> None:
    """Not the file that the name would match as a pattern, and not both."""
    rows = {name: good_rows(), other: good_rows(people=4)}
    for stem in rows:
        path = tmp_path / f"{stem}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        write_csv(tmp_path / "rows.csv", rows[stem])
        if suffix == "csv":
            (tmp_path / "rows.csv").rename(path)
        else:
            pl.read_csv(tmp_path / "rows.csv").write_parquet(path)
    for stem, people in ((name, 5), (other, 4)):
        assert len(read_events(spec_of(tmp_path / f"{stem}.{suffix}")).users) == people


def test_a_line_for_spreadsheets_before_the_header(tmp_path) -> None:
    for separator in ",;":
        path = write_csv(tmp_path / "s.csv", good_rows(), f"sep={separator}\n{HEADER}")
        with pytest.raises(DataError, match=f"line 1 is 'sep={separator}', .* Take that line out"):
            read_events(spec_of(path))


def test_a_name_that_looks_like_an_address(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "file:mine.csv", good_rows())
    assert len(read_events(spec_of(Path("file:mine.csv"))).users) == 5


def test_records_not_lines(tmp_path) -> None:
    """Fields over several lines, and quotes within a field, as spreadsheets and people write them."""
    rows = ['p0,2024-03-30T08:00,"two\nlines",chat\n', 'p1,2024-03-30T08:00,5" screen,chat\n']
    frame = read_frame(spec_of(write_csv(tmp_path / "mine.csv", [*rows, *good_rows()])), BadRows())
    assert {"two\nlines", '5" screen'} <= set(frame["location"].to_list())
    bad = {
        "p2,never,x,chat\n": "column time",
        "p2,2024-03-30T08:00,x,chat,9\n": r"column .whole record.*expected 4 fields",
        'p2,2024-03-30T08:00,"x,chat\n': r"column .whole record.*none that stays open",
        'p2,2024-03-30T08:00,"5" x,chat\n': r"column .whole record.*doubled inside",
    }
    clean = read_rows(tmp_path, [*rows, *good_rows()])
    for row, message in bad.items():
        damaged = [*rows, row, *good_rows()]
        with pytest.raises(DataError, match=rf"row 3 \(line 5\), {message}"):
            read_rows(tmp_path, damaged)
        report = BadRows()
        path = write_csv(tmp_path / "mine.csv", damaged)
        assert (
            read_events(spec_of(path, on_bad_row="skip"), report).fingerprint == clean.fingerprint
        )
        assert sum(report.counts.values()) == 1


def test_a_quote_left_open_swallows_no_event(tmp_path) -> None:
    """Two quotes that are not doubled inside their fields stand around the records between them."""
    rows = [f"{row.strip()},x\n" for row in good_rows()]
    notes = [f'p0,2024-03-30T08:0{i},x,chat,"{i}" screen"\n' for i in range(2)]
    path = write_csv(tmp_path / "mine.csv", [*rows, *notes], f"{HEADER.strip()},note\n")
    with pytest.raises(DataError, match=rf"row {len(rows) + 1} .*column .whole record.*doubled"):
        read_frame(spec_of(path), BadRows())
    report = BadRows()
    assert len(read_frame(spec_of(path, on_bad_row="skip"), report)) == len(rows)
    assert sum(report.counts.values()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user_id;time;location;behavior\np0;2024-03-30T08:00;x;chat\n",
            "separated by ';'.*commas",
        ),
        (
            "user_id;time;location,area;behavior\np0;2024-03-30T08:00;x,y;chat\n",
            "separated by ';'.*commas",
        ),
        ("user_id\ttime\tlocation\tbehavior\n", "separated by '.t'.*format=tsv"),
        ("user_id,time,location,location,behavior\n", "several columns 'location'"),
        ("user_id,time,location,behavior\rp0,2024-03-30T08:00,x,chat\r", "line 1.*carriage return"),
        ('user_id,time,"location,behavior\np0,2024-03-30T08:00,x,chat\n', "line 1.*stays open"),
        ("\nuser_id,time,location,behavior\n", "line 1 holds no names of columns: it is empty"),
        ("user_id, time,location,behavior\n", "called ' time' there: .*columns.time=' time'"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_events(spec_of(write_csv(tmp_path / "mine.csv", [], text)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_other_encodings(tmp_path, encoding: str) -> None:
    (tmp_path / "mine.csv").write_bytes((HEADER + "".join(good_rows())).encode(encoding))
    with pytest.raises(DataError, match=r"mine\.csv is UTF-16"):
        read_events(spec_of(tmp_path / "mine.csv"))
    (tmp_path / "mine.csv").write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(DataError, match=r"mine\.csv is gzip; .*unpack"):
        read_events(spec_of(tmp_path / "mine.csv"))


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_field_too_many_in_the_last_line(tmp_path, end: str) -> None:
    """Which polars overlooks where the file ends without a line end."""
    rows = good_rows()
    path = write_csv(tmp_path / "mine.csv", [*rows, f"p0,2024-03-30T08:00,x,chat,{end}"])
    with pytest.raises(DataError, match=rf"row {len(rows) + 1} .*4 fields as in the header"):
        read_events(spec_of(path))
    path = write_csv(tmp_path / "mine.csv", [*rows[:-1], rows[-1].strip()])
    assert len(read_events(spec_of(path)).day) == len(rows)


def test_times_with_and_without_an_offset(tmp_path, capsys) -> None:
    rows = [f"p{i % 9},2024-03-01T08:{i:02}:00,x,chat\n" for i in range(30)]
    read_store(spec_of(write_csv(tmp_path / "mine.csv", rows)))
    assert "offset" not in capsys.readouterr().err
    path = write_csv(tmp_path / "mine.csv", [*rows, "p0,2024-03-02T08:00:00+02:00,x,chat\n"])
    read_store(spec_of(path))
    said = " ".join(capsys.readouterr().err.split())
    assert "others none: what has none is read as the person's own clock" in said


def test_words_for_nothing_and_days_to_come_are_said(tmp_path, capsys) -> None:
    """`2403010800` is a date in digits to a person, and the year 2046 as epoch seconds."""
    rows = [f"p{i % 9},24030108{i:02},NULL,chat\n" for i in range(30)]
    read_store(spec_of(write_csv(tmp_path / "mine.csv", rows)))
    said = " ".join(capsys.readouterr().err.split())
    assert "column 'location' holds 'NULL', read as it stands" in said
    assert "the last event is on 2046-02-23, which is still to come" in said


def test_whole_numbers_in_floats_are_those_of_a_text_file(tmp_path) -> None:
    """As pandas stores a column of integers with a gap."""
    rows = [f"{i % 9},2024-03-01T08:{i:02}:00,{i % 3},chat\n" for i in range(30)]
    path = write_csv(tmp_path / "mine.csv", rows)
    whole = pl.read_csv(path).with_columns(pl.col("user_id", "location").cast(pl.Float64))
    whole.write_parquet(tmp_path / "mine.parquet")
    found = [read_events(spec_of(tmp_path / f"mine.{kind}")) for kind in ("csv", "parquet")]
    assert found[0].fingerprint == found[1].fingerprint
    assert [values.text(one) for one in (7.0, 7, "7", 7.5, -0.0)] == [
        "7",
        "7",
        "7",
        "7.5",
        "0",
    ]  # of JSON
    large = whole.with_columns(pl.col("user_id") + 2.0**53)
    large.write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"'user_id' .user. holds floats .*neighbours"):
        read_events(spec_of(tmp_path / "mine.parquet"))


def test_time_is_said_once(tmp_path) -> None:
    spec = spec_of(write_csv(tmp_path / "mine.csv", good_rows()))
    with pytest.raises(ConfigError, match=r"maps time and hour, .*data\.columns\.hour="):
        dataclasses.replace(spec, columns={**spec.columns, "hour": "location"})
