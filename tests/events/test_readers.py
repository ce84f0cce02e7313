import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.readers import read_events, read_store
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import EventStore
from tests.events.stores import COLUMNS, HEADER, LABELS, good_rows, read_rows, spec_of, write_csv


def test_csv_tsv_and_parquet_give_the_same_store(tmp_path) -> None:
    path = write_csv(tmp_path / "mine.csv", good_rows())
    store = read_events(spec_of(path))
    frame = pl.read_csv(path)
    frame.write_csv(tmp_path / "mine.tsv", separator="\t")
    frame.with_columns(pl.col("time").str.to_datetime()).write_parquet(tmp_path / "mine.parquet")
    for name in ("mine.tsv", "mine.parquet"):
        assert read_events(spec_of(tmp_path / name)).fingerprint == store.fingerprint
    assert store.users.tolist() == [f"p{i}" for i in range(5)]
    assert store.catalogue.behaviours == LABELS
    assert np.diff(store.offsets).tolist() == [12] * 5
    assert store.slot[:12].tolist() == [17] * 12
    assert store.slot[-12:].tolist() == [25] * 12
    assert np.diff(store.day[:12]).tolist() == [1] * 11
    assert store.weekday[0] == 4  # 2024-03-01 was a Friday
    assert sorted(store.split.tolist()) == [0, 0, 0, 0, 2]


def test_the_order_of_rows_does_not_matter_but_minutes_do(tmp_path) -> None:
    rows = good_rows()
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert read_rows(tmp_path, rows).fingerprint == read_rows(tmp_path, mixed).fingerprint
    late, early = (f"p0,2024-03-20T10:{m}:00,x,{b}\n" for m, b in ((20, "pay"), (5, "chat")))
    store = read_rows(tmp_path, [*rows, late, early])
    assert [LABELS[b] for b in store.behaviour[12:14]] == ["chat", "pay"]  # one slot, two minutes


def test_codes_do_not_depend_on_what_was_read_before(tmp_path) -> None:
    first = read_rows(tmp_path, good_rows())
    keep = pl.Series(["cell2", "cell1", "zzz"], dtype=pl.Categorical)
    again = read_rows(tmp_path, good_rows())
    assert first.fingerprint == again.fingerprint
    assert len(keep) == 3
    assert sorted(set(first.location.tolist())) == [0, 1, 2]


def test_integer_ids_are_numbers_and_locations_may_be_missing(tmp_path) -> None:
    rows = [f"{u},2024-03-01T08:{m:02d},,chat\n" for u in (10, 9, 8) for m in range(12)]
    store = read_rows(tmp_path, rows)
    assert store.users.tolist() == ["8", "9", "10"]
    assert (store.location == -1).all()


def test_labels_may_be_given(tmp_path) -> None:
    store = read_rows(tmp_path, good_rows(), behaviours=("subway", "chat", "pay", "rare"))
    assert store.catalogue.behaviours == ("subway", "chat", "pay", "rare")
    assert set(store.behaviour.tolist()) == {0, 1, 2}


BAD = {
    "empty user": (",2024-03-05T08:00,x,chat\n", "user_id: value None, expected a value"),
    "blank user": ('"  ",2024-03-05T08:00,x,chat\n', r"user_id: value '  '"),
    "empty behaviour": ("p0,2024-03-05T08:00,x,\n", "behavior: value None"),
    "short line": ("p0,2024-03-05T08:00\n", "behavior: value None"),
    "bad time": ("p0,05.03.2024 8:00,x,chat\n", "time: value '05.03.2024 8:00', expected ISO 8601"),
    "no time": ("p0,,x,chat\n", "time: value None"),
    "long line": ("p0,2024-03-05T08:00,x,chat,9\n", r".whole record.: value .*expected 4 fields"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named(tmp_path, case: str) -> None:
    rows = good_rows()
    rows.insert(7, BAD[case][0])
    message = rf"mine\.csv, row 8 \(line 9\), column {BAD[case][1]}.*on_bad_row=skip"
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path, rows)


def test_bad_rows_are_skipped_and_counted(tmp_path, capsys) -> None:
    rows = good_rows()
    for case, _ in BAD.values():
        rows.insert(7, case)
    path = write_csv(tmp_path / "mine.csv", rows)
    report = BadRows()
    store = read_events(spec_of(path, on_bad_row="skip"), report)
    assert report.counts == {
        "(whole record): expected 4 fields as in the header": 1,
        "user_id: expected a value that is not empty": 2,
        "behavior: expected a value that is not empty": 2,
        "time: expected ISO 8601 such as 2024-03-01T18:30, or epoch seconds, between 1973 and "
        "2200": 2,
    }
    clean = read_rows(tmp_path, good_rows())
    assert store.fingerprint == clean.fingerprint
    read_store(spec_of(write_csv(tmp_path / "mine.csv", rows), on_bad_row="skip"))
    assert "skipped 2 rows (user_id: expected a value" in capsys.readouterr().err


def test_text_that_is_not_utf8(tmp_path) -> None:
    rows = good_rows()
    raw = (HEADER + "".join(rows[:4])).encode() + "p0,2024-03-30T08:00,caf\xe9,chat\n".encode(
        "latin-1"
    )
    path = tmp_path / "mine.csv"
    path.write_bytes(raw + "".join(rows[4:]).encode())
    with pytest.raises(DataError, match=r"row 5 \(line 6\).*caf\\xe9.*expected UTF-8"):
        read_events(spec_of(path))
    report = BadRows()
    store = read_events(spec_of(path, on_bad_row="skip"), report)
    assert report.counts == {"(whole record): expected UTF-8 text": 1}
    assert store.fingerprint == read_rows(tmp_path, rows).fingerprint


def test_row_numbers_hold_after_a_mended_line(tmp_path) -> None:
    rows = good_rows()
    rows.insert(3, "p0,2024-03-05T08:00,x,chat,9\n")
    rows.insert(7, "p0,sometime,x,chat\n")
    path = write_csv(tmp_path / "mine.csv", rows)
    report = BadRows()
    read_events(spec_of(path, on_bad_row="skip"), report)
    assert sum(report.counts.values()) == 2
    rows[3] = good_rows()[0]
    with pytest.raises(DataError, match=r"row 8 \(line 9\)"):
        read_rows(tmp_path, rows)


def test_a_byte_order_mark_and_empty_lines_are_no_errors(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    rows = good_rows()
    path.write_text(
        "\ufeff" + HEADER + "".join(rows[:3]) + "\n" + "".join(rows[3:]) + "\n\n", "utf-8"
    )
    assert read_events(spec_of(path)).fingerprint == read_rows(tmp_path, rows).fingerprint


def test_an_unknown_behaviour(tmp_path) -> None:
    rows = [*good_rows(), "p0,2024-03-30T08:00,x,swim\n"]
    with pytest.raises(DataError, match=r"row 61 .*'swim', expected one of: chat, pay, subway"):
        read_rows(tmp_path, rows, behaviours=LABELS)
    assert len(read_rows(tmp_path, rows, behaviours=LABELS, on_bad_row="skip").day) == 60


@pytest.mark.parametrize("role", COLUMNS)
def test_a_missing_column_names_the_present_ones_and_the_flag(tmp_path, role: str) -> None:
    path = write_csv(tmp_path / "mine.csv", good_rows())
    message = rf"no column 'nope' .*user_id, time, location, behavior.*columns\.{role}=COLUMN"
    with pytest.raises(DataError, match=message):
        read_events(spec_of(path, columns=COLUMNS | {role: "nope"}))


def test_files_that_are_no_events(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    with pytest.raises(DataError, match="There is no file"):
        read_events(spec_of(path))
    with pytest.raises(ConfigError, match=r"--config.data.path=FILE"):
        read_events(dataclasses.replace(spec_of(path), path=""))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_events(spec_of(path))
    with pytest.raises(DataError, match="holds no usable row"):
        read_rows(tmp_path, [])
    with pytest.raises(DataError, match=r"holds no usable row \(1 skipped\)"):
        read_rows(tmp_path, ["p0,never,x,chat\n"], on_bad_row="skip")
    with pytest.raises(DataError, match="1 people"):
        read_rows(tmp_path, ["p0,2024-03-30T08:00,x,chat\n"])
    pl.read_csv(write_csv(path, good_rows())).write_parquet(tmp_path / "other.csv")
    with pytest.raises(DataError, match="is a parquet file, not csv"):
        read_events(spec_of(tmp_path / "other.csv"))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_events(spec_of(path, format="parquet"))


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_truncated_parquet_file(tmp_path, keep: float) -> None:
    path = tmp_path / "mine.parquet"
    pl.read_csv(write_csv(tmp_path / "mine.csv", good_rows())).write_parquet(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(DataError, match=r"mine\.parquet cannot be read as parquet .*truncated"):
        read_events(spec_of(path))


def ordered(tmp_path: Path, rows: list[str], **fields) -> EventStore:
    path = write_csv(tmp_path / "o.csv", rows, "n,user_id,time,location,behavior\n")
    return read_events(spec_of(path, columns=COLUMNS | {"order": "n"}, **fields))


def test_an_order_decides_between_equal_times_and_may_not_go_back(tmp_path) -> None:
    rows = [f"{100 - i},{row}" for i, row in enumerate(reversed(good_rows()))]
    assert len(ordered(tmp_path, rows).day) == 60
    same = [f"{300 - i},p0,2024-04-01T08:00,x,{b}\n" for i, b in enumerate(("chat", "pay"))]
    store = ordered(tmp_path, [*rows, *same])
    assert [LABELS[b] for b in store.behaviour[12:14]] == ["pay", "chat"]
    back = ["500,p0,2024-01-01T08:00,x,chat\n", "501,p0,2024-01-02T08:00,x,chat\n"]
    with pytest.raises(
        DataError, match=r"row 63 .*column n: value '500', expected an order in which"
    ):
        ordered(tmp_path, [*rows, *same, *back])
    report = ordered(tmp_path, [*rows, *same, *back], on_bad_row="skip")
    assert report.fingerprint == store.fingerprint  # both rows that lie before what came earlier
    with pytest.raises(DataError, match="column n: value 'x', expected a whole number"):
        ordered(tmp_path, [*rows, "x,p0,2024-05-01T08:00,x,chat\n"])


AUTUMN = {  # 27 October 2024 in Berlin: at 3:00 clocks went back to 2:00
    "UTC": ["2024-10-27T00:50:00Z", "2024-10-27 01:10:00+00", "1730000000"],
    "offsets": ["2024-10-27 02:50+02:00", "2024-10-27T02:10:00+0100", "2024-10-27 04:33:20+01"],
}


@pytest.mark.parametrize("form", AUTUMN)
def test_events_of_the_autumn_clock_change_are_in_order(tmp_path, form: str) -> None:
    days = [f"p{i},2024-03-01T08:00Z,x,subway\n" for i in (1, 2)]
    rows = [f"p0,{t},x,{b}\n" for t, b in zip(AUTUMN[form], LABELS, strict=True)]
    mixed = [rows[2], rows[0], rows[1], *days]
    store = read_rows(tmp_path, mixed, time_zone="Europe/Berlin")
    assert [LABELS[b] for b in store.behaviour[:3]] == list(LABELS)
    assert store.slot[:3].tolist() == [5, 4, 9]
    assert np.diff(store.day[:3]).tolist() == [0, 0]
    rows = [f"{i},{row}" for i, row in enumerate([*rows, *days])]
    assert ordered(tmp_path, rows, time_zone="Europe/Berlin").fingerprint == store.fingerprint


def test_local_clocks_order_by_the_instant(tmp_path) -> None:
    days = [f"p{i},2024-03-01T08:00,x,subway\n" for i in (1, 2)]
    offsets = [f"p0,{t},x,chat\n" for t in AUTUMN["offsets"]]
    assert read_rows(tmp_path, [*offsets[::-1], *days]).slot[:3].tolist() == [5, 4, 9]
    walls = ["1,p0,2024-10-27T02:50,x,chat\n", "2,p0,2024-10-27T02:10,x,pay\n"]
    store = ordered(tmp_path, [*walls, *(f"3,{row}" for row in days)])
    assert store.slot[:2].tolist() == [5, 4]
    east = ["p0,2024-03-02T08:00+09:00,x,chat\n", "p0,2024-03-01T16:00-08:00,x,pay\n"]
    with pytest.raises(
        DataError, match=r"row 2 .*column time: .*2024-03-01, .*data.time_zone=ZONE"
    ):
        read_rows(tmp_path, [*east, *days])
    assert len(read_rows(tmp_path, [*east, *days], time_zone="Asia/Tokyo").day) == 4


def weekly(tmp_path: Path, rows: list[str], **columns: str) -> EventStore:
    header = "person,week,weekday,hour,what\n"
    names = {"user": "person", "weekday": "weekday", "hour": "hour", "behaviour": "what"} | columns
    path = write_csv(
        tmp_path / "w.csv", [f"{p},{r}\n" for p in ("a", "b", "c") for r in rows], header
    )
    spec = spec_of(path, columns=names, has_places=False, has_dates=False, slots_per_day=24)
    return read_events(spec)


def test_weeks_start_after_gaps(tmp_path) -> None:
    rows = ["17,Monday,8,chat", "17,Sunday,9,chat", "31,Tuesday,1,pay", "30,Friday,2,pay"]
    store = weekly(tmp_path, rows, week="week")
    assert store.day[:4].tolist() == [0, 6, 11, 15]
    assert store.weekday[:4].tolist() == [0, 6, 4, 1]
    assert store.gap.tolist() == [False, False, True, True] * 3
    assert store.slot[:4].tolist() == [8, 9, 2, 1]


def test_days_from_an_order_of_weekdays(tmp_path) -> None:
    rows = ["1,Monday,8,chat", "2,Monday,7,chat", "3,Tuesday,1,pay"]
    store = weekly(tmp_path, rows, order="week")
    assert store.day[:3].tolist() == [0, 7, 8]
    assert not store.gap.any()


def daily(tmp_path: Path, rows: list[str], **columns: str) -> EventStore:
    names = {"user": "u", "day": "day", "weekday": "weekday", "slot": "slot", "behaviour": "b"}
    path = write_csv(
        tmp_path / "d.csv",
        [f"{p},{r}\n" for p in "abc" for r in rows],
        "u,day,weekday,slot,b,gap,split\n",
    )
    return read_events(spec_of(path, columns=names | columns, has_places=False))


def test_gap_flags(tmp_path) -> None:
    rows = ["0,2,1,chat,true,", "1,3,1,chat,,", "30,0,1,pay,1,", "31,1,2,pay,False,"]
    store = daily(tmp_path, rows, gap="gap")
    assert store.gap[:4].tolist() == [False, False, True, False]  # nothing precedes the first
    with pytest.raises(DataError, match="column gap: value 'maybe', expected true or false"):
        daily(tmp_path, ["0,2,1,chat,maybe,"], gap="gap")


def test_weekdays_must_fit_day_numbers(tmp_path) -> None:
    assert daily(tmp_path, ["0,2,1,chat,,", "8,3,1,chat,,"]).weekday[:2].tolist() == [2, 3]
    with pytest.raises(
        DataError, match=r"row 2 .*column weekday: value '4', expected a weekday that"
    ):
        daily(tmp_path, ["0,2,1,chat,,", "8,4,1,chat,,"])


def test_a_split_column_decides(tmp_path) -> None:
    rows = ["0,2,1,chat,,validation", "1,3,1,chat,, validation "]
    assert daily(tmp_path, rows, split="split").split.tolist() == [1, 1, 1]
    with pytest.raises(DataError, match="column split: value 'dev', expected one of train, valid"):
        daily(tmp_path, ["0,2,1,chat,,dev"], split="split")
    with pytest.raises(DataError, match=r"row 2 .*one split for all rows of a person"):
        daily(tmp_path, ["0,2,1,chat,,train", "1,3,1,chat,,test"], split="split")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "xlsx"}, "data.format has 'xlsx', expected one of csv, tsv, parquet"),
        ({"on_bad_row": "ignore"}, "data.on_bad_row has 'ignore', expected one of error, skip"),
        ({"slots_per_day": 96}, "data.slots_per_day has 96, expected one of 24, 48"),
        ({"time_zone": "Mars/Olympus"}, "time_zone is 'Mars/Olympus'"),
        ({"columns": COLUMNS | {"venue": "v"}}, "data.columns has 'venue'"),
        ({"columns": COLUMNS | {"user": ""}}, "no column for the field 'user'"),
        ({"columns": COLUMNS | {"time": ""}}, "does not say when events happen"),
        (
            {"columns": COLUMNS | {"time": "", "week": "w", "weekday": "d", "hour": "h"}},
            "has_dates",
        ),
    ],
)
def test_mappings_that_cannot_work(tmp_path, fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(tmp_path / "mine.csv", **fields)


def test_a_saved_store_keeps_what_was_read(tmp_path) -> None:
    store = read_rows(tmp_path, good_rows())
    store.save(tmp_path / "events.parquet")
    assert EventStore.load(tmp_path / "events.parquet").fingerprint == store.fingerprint
    assert "location" in pq.read_schema(tmp_path / "events.parquet").names


def test_places_are_left_out_by_either_field(tmp_path) -> None:
    path = write_csv(tmp_path / "mine.csv", good_rows())
    without = COLUMNS | {"location": ""}
    stores = [
        read_events(spec_of(path, **fields))
        for fields in (
            {"columns": without},
            {"has_places": False},
            {"columns": without, "has_places": False},
            {"columns": COLUMNS | {"location": "no such column"}, "has_places": False},
        )
    ]
    assert len({store.fingerprint for store in stores}) == 1
    assert not stores[0].catalogue.has_places
