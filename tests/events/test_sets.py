"""Frozen sets of windows: the same file gives the same windows, and no other is taken for it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import (
    WindowSet,
    draw_donors,
    freeze,
    prediction_windows,
    read_set,
    sample_windows,
    write_set,
)


@pytest.fixture(scope="module")
def store():
    return simulated_store(12, 8, 5)


@pytest.fixture(scope="module")
def frozen(store) -> WindowSet:
    return freeze(store, sample_windows(prediction_windows(store, "train"), 60, 3), seed=3)


def test_donors_are_others_and_all_of_them() -> None:
    user = np.repeat([2, 5, 9], [1, 40, 7])
    drawn = np.stack([draw_donors(user, seed) for seed in range(300)])
    assert (user[drawn] != user).all()
    assert set(drawn[:, 3]) == set(np.flatnonzero(user != 5))  # eight rows, by 300 draws
    assert set(drawn[:, 0]) == set(range(1, 48))
    np.testing.assert_array_equal(draw_donors(user, 7), drawn[7])
    assert draw_donors(np.asarray([4, 4]), 0).tolist() == [-1, -1]
    assert draw_donors(np.asarray([], int), 0).tolist() == []


def test_a_set_comes_back(store, frozen: WindowSet, tmp_path: Path) -> None:
    write_set(tmp_path / "w.parquet", store, frozen)
    again = read_set(tmp_path / "w.parquet", store)
    assert again.fingerprint == frozen.fingerprint
    for name, values in vars(frozen.windows).items():
        np.testing.assert_array_equal(getattr(again.windows, name), values)
        assert getattr(again.windows, name).dtype == values.dtype
    np.testing.assert_array_equal(again.donor, frozen.donor)


def test_every_difference_is_another_fingerprint(store, frozen: WindowSet) -> None:
    fewer = frozen.windows.take(np.arange(59))
    shorter = dataclasses.replace(frozen.windows, start=frozen.windows.start + 1)
    data = dataclasses.replace(store, fingerprint="other")
    others = (
        freeze(store, frozen.windows, seed=4),
        freeze(store, fewer, seed=3),
        freeze(store, shorter, seed=3),
        freeze(data, frozen.windows, seed=3),
    )
    assert len({frozen.fingerprint, *(one.fingerprint for one in others)}) == 5
    assert freeze(store, frozen.windows, seed=3).fingerprint == frozen.fingerprint


def test_what_is_not_the_set_is_refused(store, frozen: WindowSet, tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    with pytest.raises(DataError, match=r"w\.parquet is missing"):
        read_set(path, store)
    write_set(path, store, dataclasses.replace(frozen, donor=frozen.donor[::-1].copy()))
    with pytest.raises(DataError, match="was altered"):
        read_set(path, store)
    write_set(path, dataclasses.replace(store, fingerprint="other"), frozen)
    with pytest.raises(MismatchError, match=f"from data other, but here it is {store.fingerprint}"):
        read_set(path, store)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="no set of windows"):
        read_set(path, store)
    store.save(path)
    with pytest.raises(DataError, match="no set of windows"):
        read_set(path, store)
