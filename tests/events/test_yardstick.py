"""The public sets against the counts that independent reference runs published for them."""

import numpy as np
import polars as pl
import pytest

from bua_jax.basics import config as configs
from bua_jax.events.groups import behaviour_groups
from bua_jax.events.readers import read_store
from bua_jax.events.schema import EventStore
from bua_jax.events.spec import DataSpec
from bua_jax.events.split import split_users
from bua_jax.events.windows import prediction_windows
from tests.support.helpers import shared_data


def public(name: str) -> tuple[EventStore, pl.DataFrame]:
    path = shared_data(f"{name}.parquet")
    values = configs.part("data", name).to_dict() | {"path": str(path)}
    return read_store(DataSpec.from_mapping(values)), pl.read_parquet(path)


@pytest.fixture(scope="module")
def nyc() -> tuple[EventStore, pl.DataFrame]:
    return public("foursquare_nyc")


@pytest.fixture(scope="module")
def usa() -> tuple[EventStore, pl.DataFrame]:
    return public("foursquare_usa")


def test_nyc_counts(nyc) -> None:
    store, raw = nyc
    windows = prediction_windows(store, "test")
    assert (len(raw), len(store.day), len(store.users)) == (66_962, 66_962, 193)
    assert int((store.split == 2).sum()) == 20
    assert len(windows) == 5_136
    assert {k: len(v) for k, v in behaviour_groups(store).items()} == {
        "head": 7,
        "medium": 2,
        "tail": 1,
    }
    tail = behaviour_groups(store)["tail"][0]
    assert int((store.behaviour[windows.end] == tail).sum()) == 1


def test_usa_counts(usa) -> None:
    store, _ = usa
    windows = prediction_windows(store, "test")
    assert int((store.split == 2).sum()) == 476
    assert len(np.unique(windows.user)) == 443
    assert len(windows) == 6_259
    assert {k: len(v) for k, v in behaviour_groups(store).items()} == {
        "head": 8,
        "medium": 6,
        "tail": 0,
    }


def test_the_split_is_the_yardsticks(nyc) -> None:
    store, raw = nyc
    p = np.random.default_rng(42).permutation(sorted(raw["user_id"].unique().to_list()))
    n = len(p)
    expected = [p[: int(0.8 * n)], p[int(0.8 * n) : int(0.9 * n)], p[int(0.9 * n) :]]
    for index, ids in enumerate(expected):
        mine = {int(u) for u in store.users[store.split == index]}
        assert mine == {int(i) for i in ids}


def test_text_order_would_be_another_split(nyc) -> None:
    store, _ = nyc
    as_text = split_users([f"u{u}" for u in store.users])
    counts = dict(zip(store.users, np.diff(store.offsets), strict=True))
    windows = sum(counts[u[1:]] - 10 for u, split in as_text.items() if split == 2)
    assert windows != 5_136


def test_nyc_rows_in_their_order(nyc) -> None:
    """Events, gaps and day numbers row by row against the file, which is in time order."""
    store, raw = nyc
    for index in (0, 57, 192):
        user = int(store.users[index])
        mine = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
        rows = raw.filter(pl.col("user_id") == user)
        labels = [store.catalogue.behaviours[b] for b in store.behaviour[mine]]
        assert labels == rows["category"].to_list()
        assert store.slot[mine].tolist() == rows["hour"].to_list()
        weeks = rows["week_traj_id"].to_numpy()
        new_week = np.append(False, weeks[1:] != weeks[:-1])
        np.testing.assert_array_equal(store.gap[mine], new_week)
        np.testing.assert_array_equal(
            store.day[mine], np.cumsum(new_week) * 7 + store.weekday[mine]
        )


def test_nyc_knows_areas_not_venues(nyc) -> None:
    store, raw = nyc
    assert (
        len(np.unique(store.location)) == raw["grid_id"].n_unique() < raw["location_id"].n_unique()
    )
    cells = {}
    order = {int(u): i for i, u in enumerate(store.users)}
    position = store.offsets[[order[u] for u in raw["user_id"].unique(maintain_order=True)]]
    assert len(position) == 193
    first = raw.group_by("user_id", maintain_order=True).first()
    for start, cell in zip(position, first["grid_id"], strict=True):
        assert cells.setdefault(cell, store.location[start]) == store.location[start]


def test_usa_starts_on_mondays_and_has_no_places(usa) -> None:
    store, raw = usa
    assert not store.catalogue.has_places
    assert (store.location == -1).all()
    np.testing.assert_array_equal(store.weekday, store.day % 7)
    assert not store.gap.any()
    np.testing.assert_array_equal(np.sort(store.day), np.sort(raw["day_index"]))
    sequence = raw.filter(pl.col("seq_id") == 1)
    index = store.users.tolist().index("1")
    mine = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
    assert store.slot[mine].tolist() == sequence["hour"].to_list()
