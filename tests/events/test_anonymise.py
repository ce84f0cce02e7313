import dataclasses
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.anonymise import (
    KEPT_AREAS,
    PERIOD_DAYS,
    Hiding,
    anonymise,
    anonymise_file,
    load_key,
    renamed,
)
from bua_jax.events.readers import read_events, read_frame
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import SPLITS
from bua_jax.events.spec import DataSpec
from bua_jax.events.split import split_users
from tests.events.stores import COLUMNS, HEADER, LABELS

AUTUMN = (("02:50+02:00", "pay"), ("02:10+01:00", "chat"), ("04:30+01:00", "subway"))
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def year_of_events(people: int = 12, events: int = 150) -> list[tuple[str, str, str, str]]:
    """(user, time, area, behaviour) over 440 days; areas are shared by people."""
    rng = np.random.default_rng(3)
    rows = []
    for person in range(people):
        areas = rng.permutation(30)[:15]
        for day in np.sort(rng.integers(0, 440, events)):
            time = np.datetime64("2024-01-01") + day
            area = areas[min(int(rng.geometric(0.15)) - 1, 14)]
            label = LABELS[int(rng.integers(3))]
            rows.append(
                (f"alice{person}", f"{time}T{int(rng.integers(24)):02d}:15", f"cell{area}", label)
            )
    return rows


def spec_of(tmp_path: Path, rows=None, name: str = "raw.csv", **fields) -> DataSpec:
    path = tmp_path / name
    path.write_text(HEADER + "".join(",".join(row) + "\n" for row in rows or year_of_events()))
    return DataSpec.from_mapping(
        {"name": "x", "path": str(path), "format": "csv", "columns": COLUMNS} | fields
    )


def both(tmp_path: Path, *, renew: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
    frame = read_frame(spec_of(tmp_path), BadRows())
    return frame, anonymise(frame, KEY, renew=renew)


def matched(frame: pl.DataFrame, result: pl.DataFrame) -> list[tuple[dict, dict]]:
    """Pairs of original and anonymised events; (id, period) runs are matched by their content."""
    first = int(frame["day"].min())
    runs: dict[tuple, list[dict]] = defaultdict(list)
    for row in frame.iter_rows(named=True):
        runs[row["id"], (row["day"] - first) // PERIOD_DAYS].append(row)
    opaque: dict[str, list[dict]] = defaultdict(list)
    for row in result.iter_rows(named=True):
        opaque[row["user"]].append(row)

    def content(rows: list[dict]) -> tuple:
        return tuple((r["day"], r["weekday"], r["slot"], r["behaviour"]) for r in rows)

    known = {content(rows): rows for rows in runs.values()}
    assert len(known) == len(runs) == len(opaque)
    return [
        pair for rows in opaque.values() for pair in zip(known[content(rows)], rows, strict=True)
    ]


def test_nothing_but_the_names_changes(tmp_path) -> None:
    frame, result = both(tmp_path)
    pairs = matched(frame, result)  # every (person, period) has exactly one new id, and vice versa
    assert len(pairs) == len(frame) == len(result)
    assert result.columns == [
        "user",
        "split",
        "day",
        "weekday",
        "slot",
        "location",
        "behaviour",
        "gap",
    ]


def test_ids_are_opaque_and_renewed(tmp_path) -> None:
    frame, result = both(tmp_path)
    ids: dict[str, set] = defaultdict(set)
    for before, after in matched(frame, result):
        assert re.fullmatch(r"renewed-[0-9a-f]{16}", after["user"])
        ids[before["id"]].add(after["user"])
    assert all(len(mine) == 5 for mine in ids.values())  # 440 days in periods of 90
    assert len(set().union(*ids.values())) == 5 * len(ids)
    spans = result.group_by("user").agg((pl.col("day").max() - pl.col("day").min()).alias("days"))
    assert spans["days"].max() < PERIOD_DAYS


def test_days_are_shifted_by_whole_weeks_of_each_id(tmp_path) -> None:
    frame, plain = both(tmp_path)
    shifted = anonymise(frame, KEY, renew=True, hiding=Hiding(date_shift=True))
    assert plain.drop("day").equals(shifted.drop("day"))
    moved = plain.select("user", weeks=(shifted["day"] - plain["day"]) / 7).unique()
    assert moved["user"].n_unique() == len(moved)  # within an id the distances of days stay
    assert set(moved["weeks"]) <= set(range(52))
    assert moved["weeks"].n_unique() > 10
    assert (shifted["day"] % 7 == plain["day"] % 7).all()


@pytest.mark.parametrize(("slots", "hours", "block"), [(48, 4, 8), (24, 6, 6), (48, 0, 1)])
def test_times_are_rounded_down_to_blocks(tmp_path, slots: int, hours: int, block: int) -> None:
    frame = read_frame(spec_of(tmp_path, slots_per_day=slots), BadRows())
    plain = anonymise(frame, KEY, renew=True)
    hiding = Hiding(slot_hours=hours)
    coarse = anonymise(frame, KEY, renew=True, slots_per_day=slots, hiding=hiding)
    assert plain.drop("slot").equals(coarse.drop("slot"))
    assert coarse["slot"].to_list() == [slot // block * block for slot in plain["slot"]]


def test_a_split_for_each_id(tmp_path) -> None:
    frame, plain = both(tmp_path)
    drawn = anonymise(frame, KEY, renew=True, hiding=Hiding(split_by="period"))
    assert plain.drop("split").equals(drawn.drop("split"))
    sides = drawn.select("user", "split").unique()
    assert len(sides) == drawn["user"].n_unique() == 60
    assert Counter(sides["split"]) == {"train": 48, "validation": 6, "test": 6}
    people = renamed(frame, KEY, renew=True).with_columns(pl.col("opaque").cast(pl.String))
    joined = sides.with_columns(pl.col("user").cast(pl.String).alias("opaque")).join(
        people.select("opaque", "id"), on="opaque"
    )
    assert joined.group_by("id").agg(pl.col("split").n_unique())["split"].max() > 1
    own = frame.with_columns(pl.lit("train").alias("split"))
    with pytest.raises(ConfigError, match=r"split_by='period' draws a split, but the data brings"):
        anonymise(own, KEY, renew=True, hiding=Hiding(split_by="period"))


def test_what_is_blurred_is_written_and_read(tmp_path) -> None:
    hiding = Hiding(date_shift=True, slot_hours=4, split_by="period")
    spec, output = spec_of(tmp_path), tmp_path / "out.parquet"
    anonymise_file(spec, output, KEY, hiding=hiding)
    mark = json.loads(pq.read_schema(output).metadata[b"bua_jax.anonymised"])
    assert (mark["date_shift"], mark["slot_hours"], mark["split_by"]) == (True, 4, "period")
    store = read_events(dataclasses.replace(spec, path=str(output)))
    assert set(store.slot.tolist()) <= set(range(0, 48, 8))
    assert len(store.users) == 60
    for wrong in ({"slot_hours": 5}, {"split_by": "id"}):
        with pytest.raises(ConfigError, match=r"config\.anonymise\..* is none of"):
            Hiding(**wrong)
    with pytest.raises(ConfigError, match="has no dates to shift"):
        anonymise_file(dataclasses.replace(spec, has_dates=False), output, KEY, hiding=hiding)


def test_nobody_lands_on_both_sides(tmp_path) -> None:
    frame, result = both(tmp_path)
    expected = split_users(frame["id"].unique().to_list())
    for before, after in matched(frame, result):
        assert SPLITS.index(after["split"]) == expected[before["id"]]


def test_ten_most_visited_areas_stay(tmp_path) -> None:
    frame, result = both(tmp_path)
    visits: dict[str, list] = defaultdict(list)
    for row in frame.iter_rows(named=True):
        visits[row["id"]].append(row["location"])
    kept: dict[str, dict] = defaultdict(dict)
    for before, after in matched(frame, result):
        person = visits[before["id"]]
        counts = Counter(person)
        best = sorted(counts, key=lambda a: (-counts[a], person.index(a)))[:KEPT_AREAS]
        assert (after["location"] is not None) == (before["location"] in best)
        if after["location"] is not None:
            assert re.fullmatch(r"area-[0-9a-f]{16}", after["location"])
            codes = kept[after["user"]]
            assert codes.setdefault(before["location"], after["location"]) == after["location"]
    for codes in kept.values():
        assert len(set(codes.values())) == len(codes) <= KEPT_AREAS
    everyone = [code for codes in kept.values() for code in codes.values()]
    assert len(everyone) == len(set(everyone))  # a code never links two ids
    assert any(len(set(person)) > KEPT_AREAS for person in visits.values())


def test_the_order_of_ids_tells_nothing(tmp_path) -> None:
    _, result = both(tmp_path)
    users = result["user"].to_list()
    assert users == sorted(users)
    first = (result["user"] != result["user"].shift(1)).fill_null(True)
    assert not result.filter(first)["gap"].any()


def test_without_renewal_a_person_keeps_one_id(tmp_path) -> None:
    frame, result = both(tmp_path, renew=False)
    assert result["user"].n_unique() == frame["id"].n_unique()
    assert result["user"].cast(pl.String).str.contains(r"^person-[0-9a-f]{16}$").all()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_key_decides_everything(data, tmp_path_factory) -> None:
    tmp_path = tmp_path_factory.mktemp("key")
    rows = data.draw(st.permutations(year_of_events(people=3, events=8)))
    frame = read_frame(spec_of(tmp_path, rows), BadRows())
    one, two, other = (anonymise(frame, key, renew=True) for key in (KEY, KEY, OTHER_KEY))
    assert one.equals(two)
    assert not set(one["user"]) & set(other["user"])
    assert not set(one["location"].drop_nulls()) & set(other["location"].drop_nulls())


def test_an_anonymised_file_reads_back_with_the_same_windows(tmp_path) -> None:
    spec = spec_of(tmp_path)
    output = tmp_path / "out" / "events.parquet"
    done = anonymise_file(spec, output, KEY)
    assert (done.people, done.ids, done.events, done.renewed) == (12, 60, 1800, True)
    assert done.areas_kept_share is not None
    assert 0.5 < done.areas_kept_share < 1
    original = read_events(spec)
    store = read_events(dataclasses.replace(spec, path=str(output)))  # the same config as before
    assert store.catalogue == original.catalogue
    assert len(store.day) == len(original.day)
    for split in range(3):
        events = [np.diff(s.offsets)[s.split == split].sum() for s in (original, store)]
        assert events[0] == events[1] > 0


def test_no_original_name_is_in_the_file(tmp_path) -> None:
    spec = spec_of(tmp_path)
    output = tmp_path / "out" / "events.parquet"
    anonymise_file(spec, output, KEY)
    table = pq.read_table(output)
    text = json.dumps(table.to_pydict()) + str(table.schema.metadata)
    assert "alice" not in text
    assert "cell" not in text
    assert b"alice" not in output.read_bytes()
    assert KEY.hex() not in text


def test_splitting_renewed_ids_is_refused(tmp_path) -> None:
    output = tmp_path / "out.parquet"
    anonymise_file(spec_of(tmp_path), output, KEY)
    table = pq.read_table(output)
    pq.write_table(table.drop_columns(["split"]), output)  # the mark stays
    spec = DataSpec.from_mapping({"name": "x", "path": str(output), "columns": COLUMNS})
    with pytest.raises(DataError, match=r"anonymised but lacks its column 'split'"):
        read_events(spec)
    columns = {c: c for c in ("user", "day", "weekday", "slot", "location", "behaviour")}
    pl.read_parquet(output).write_csv(tmp_path / "copy.csv")  # the mark is lost, the ids are not
    copied = {"name": "x", "path": str(tmp_path / "copy.csv"), "format": "csv", "columns": columns}
    with pytest.raises(DataError, match="These ids were renewed"):
        read_events(DataSpec.from_mapping(copied))
    with_split = pl.from_arrow(table)
    assert isinstance(with_split, pl.DataFrame)
    with_split.write_csv(tmp_path / "copy.csv")
    copied["columns"] = columns | {"split": "split"}
    assert len(read_events(DataSpec.from_mapping(copied)).users) == 60


def test_another_resolution_than_the_files_is_an_error(tmp_path) -> None:
    output = tmp_path / "out.parquet"
    spec = spec_of(tmp_path, slots_per_day=24)
    anonymise_file(spec, output, KEY)
    with pytest.raises(DataError, match="slots_per_day=24"):
        read_events(dataclasses.replace(spec, path=str(output), slots_per_day=48))


def test_sets_without_dates_or_places(tmp_path) -> None:
    columns = {k: v for k, v in COLUMNS.items() if k != "location"}
    spec = spec_of(tmp_path, columns=columns, has_places=False, has_dates=False)
    output = tmp_path / "out.parquet"
    done = anonymise_file(spec, output, KEY)
    assert (done.ids, done.renewed, done.areas_kept_share) == (12, False, None)
    store = read_events(dataclasses.replace(spec, path=str(output)))
    assert not store.catalogue.has_places
    original = read_events(spec)
    assert sorted(np.diff(store.offsets)) == sorted(np.diff(original.offsets))
    assert np.bincount(store.split).tolist() == np.bincount(original.split).tolist()


def test_a_split_column_of_the_input_is_kept(tmp_path) -> None:
    rows = [(*row, "test" if row[0] == "alice3" else "train") for row in year_of_events()]
    path = tmp_path / "raw.csv"
    path.write_text(
        "user_id,time,location,behavior,part\n" + "".join(",".join(r) + "\n" for r in rows)
    )
    columns = COLUMNS | {"split": "part"}
    spec = DataSpec.from_mapping(
        {"name": "x", "path": str(path), "format": "csv", "columns": columns}
    )
    anonymise_file(spec, tmp_path / "out.parquet", KEY)
    result = pl.read_parquet(tmp_path / "out.parquet")
    assert result.filter(pl.col("split") == "test")["user"].n_unique() == 5
    assert set(result["split"]) == {"train", "test"}


def test_inputs_and_outputs_that_are_refused(tmp_path) -> None:
    spec, output = spec_of(tmp_path), tmp_path / "out.parquet"
    with pytest.raises(DataError, match=r"ends with \.parquet"):
        anonymise_file(spec, tmp_path / "out.csv", KEY)
    anonymise_file(spec, output, KEY)
    with pytest.raises(DataError, match="is the input"):
        anonymise_file(dataclasses.replace(spec, path=str(output), format="parquet"), output, KEY)
    with pytest.raises(DataError, match="anonymised already"):
        anonymise_file(dataclasses.replace(spec, path=str(output)), tmp_path / "b.parquet", KEY)


def test_key_files(tmp_path) -> None:
    output = tmp_path / "out" / "events.parquet"
    path = tmp_path / "secret" / "key.json"
    key = load_key(path, output)
    assert len(key) == 32
    assert load_key(path, output) == key
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    path.write_text(text.replace(key.hex()[:2], f"{key[0] ^ 1:02x}", 1))  # would name all otherwise
    with pytest.raises(DataError, match="was altered or damaged"):
        load_key(path, output)
    path.write_text(json.dumps({"key": key.hex()}))  # by hand
    assert load_key(path, output) == key
    assert path.stat().st_mode & 0o077 == 0
    assert load_key(None, output) != load_key(None, output)
    assert not output.parent.exists()  # nothing is written beside the output
    for beside in (output.parent / "key.json", output.parent / "deep" / "key.json"):
        with pytest.raises(DataError, match="in the folder of the output"):
            load_key(beside, output)
    for text in ('{"key": "abcd"}', '{"other": 1}', "[]", '{"key": 7}'):
        path.write_text(text)
        with pytest.raises(DataError, match="holds no key"):
            load_key(path, output)
    path.write_text("not json")
    with pytest.raises(DataError, match="not valid JSON"):
        load_key(path, output)


def test_events_of_the_autumn_clock_change_stay_in_order(tmp_path) -> None:
    rows = [(f"p{i}", f"2024-10-27T{t}", "x", b) for i in range(3) for t, b in AUTUMN]
    spec = spec_of(tmp_path, rows)
    anonymise_file(spec, tmp_path / "out.parquet", KEY)
    store = read_events(dataclasses.replace(spec, path=str(tmp_path / "out.parquet")))
    assert store.slot.tolist() == [5, 4, 9] * 3
    assert [LABELS[b] for b in store.behaviour] == [b for _, b in AUTUMN] * 3
