import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from bua_jax.basics.errors import DataError
from bua_jax.events.schema import Catalogue, EventStore
from tests.events.stores import people, store_of


def test_clock_at_both_resolutions() -> None:
    half, hour = (Catalogue(("a",), slots, True) for slots in (48, 24))
    assert [half.clock(s) for s in (0, 15, 47)] == ["00:00", "07:30", "23:30"]
    assert [hour.clock(s) for s in (0, 7, 23)] == ["00:00", "07:00", "23:00"]


def test_catalogue_survives_json_and_its_hash_tells_label_sets_apart() -> None:
    one = Catalogue(("café", "b"), 48, True, has_dates=False)
    assert Catalogue.from_json(one.to_json()) == one
    others = [
        Catalogue(("b", "café"), 48, True, has_dates=False),
        Catalogue(("café", "b"), 24, True, has_dates=False),
        Catalogue(("café", "b"), 48, False, has_dates=False),
    ]
    assert len({c.fingerprint() for c in (one, *others)}) == 4
    assert Catalogue.from_json(one.to_json()).fingerprint() == one.fingerprint()


@pytest.mark.parametrize("label", ["", " a", "a ", "a; b", "a\nb", "<|im_end|>", "a|b"])
def test_labels_that_text_cannot_carry_are_refused(label: str) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        Catalogue(("ok", label), 48, True)


def test_other_bad_catalogues_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        Catalogue((), 48, True)
    with pytest.raises(DataError, match="twice"):
        Catalogue(("a", "a"), 48, True)
    with pytest.raises(DataError, match="96"):
        Catalogue(("a",), 96, True)


@settings(max_examples=20, deadline=None)
@given(everyone=people())
def test_a_store_survives_saving(everyone, tmp_path_factory) -> None:
    store = store_of(everyone)
    path = tmp_path_factory.mktemp("store") / "events.parquet"
    store.save(path)
    loaded = EventStore.load(path)
    assert loaded.catalogue == store.catalogue
    assert loaded.fingerprint == store.fingerprint
    for field in dataclasses.fields(EventStore):
        mine, theirs = getattr(store, field.name), getattr(loaded, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


def test_a_saved_store_can_be_read_as_a_table(tmp_path) -> None:
    store_of([[(0, 1, 7, 0)], [(0, 2, 8, 1)]]).save(tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet").to_pydict()
    assert table["user"] == ["u0", "u1"]
    assert table["slot"] == [1, 2]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_store_is_a_data_error(tmp_path, keep: float) -> None:
    path = tmp_path / "events.parquet"
    store_of([[(d, 1, 7, 0) for d in range(200)]]).save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(DataError, match=r"events\.parquet"):
        EventStore.load(path)


def test_a_missing_foreign_or_altered_store_is_a_data_error(tmp_path) -> None:
    path = tmp_path / "events.parquet"
    with pytest.raises(DataError, match="not an event store"):
        EventStore.load(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(DataError, match="not an event store"):
        EventStore.load(path)
    store_of([[(0, 1, 7, 0), (0, 2, 7, 1)]]).save(path)
    table = pq.read_table(path)
    changed = table.set_column(
        table.schema.get_field_index("slot"), "slot", pa.array([1, 3], pa.int16())
    )
    pq.write_table(changed, path)
    with pytest.raises(DataError, match="altered"):
        EventStore.load(path)


def test_an_interrupted_save_leaves_the_old_store(tmp_path, monkeypatch) -> None:
    path = tmp_path / "events.parquet"
    old = store_of([[(0, 1, 7, 0)]])
    old.save(path)

    def full_disk(table: pa.Table, where: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(DataError, match="No space left"):
        store_of([[(0, 2, 7, 0)]]).save(path)
    assert EventStore.load(path).fingerprint == old.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["events.parquet"]
