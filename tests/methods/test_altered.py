"""Altered histories by hand: what moves, what stays, and that no target does."""

import dataclasses

import numpy as np
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import WindowSet, freeze, prediction_windows, sample_windows
from bua_jax.methods.altered import ALTERED, LAST, altered_cases
from bua_jax.methods.protocol import Cases, cases_of
from tests.dialogue.stores import make_store

LENGTH = 16
STORE = simulated_store(20, 8, 1)


def drawn(count: int = 12) -> WindowSet:
    windows = prediction_windows(STORE, "test", history_length=LENGTH, min_history=4)
    return freeze(STORE, sample_windows(windows, count, 0), 0)


def altered(how: str, frozen: WindowSet | None = None) -> Cases:
    return altered_cases(STORE, frozen or drawn(), LENGTH, how, told="time")


def events(cases: Cases, row: int, *columns: int) -> list[tuple[int, ...]]:
    """Columns of the events of a history."""
    seen = cases.arrays
    return [tuple(e) for e in seen.fields[row, : seen.n_events[row]][:, list(columns)].tolist()]


@pytest.mark.parametrize("how", ALTERED)
def test_cases_keep_their_names_people_and_what_is_told(how: str) -> None:
    one, plain = altered(how), altered("own")
    assert (one.sample_id, one.user) == (plain.sample_id, plain.user)
    np.testing.assert_array_equal(one.weekday, plain.weekday)
    np.testing.assert_array_equal(one.slot, plain.slot)
    same = np.array_equal(one.arrays.fields, plain.arrays.fields)
    assert same == (how == "own")


@pytest.mark.parametrize("how", ["shuffled", "reversed"])
def test_another_order_moves_what_was_done_and_where_and_no_time(how: str) -> None:
    one, plain = altered(how), altered("own")
    for row in range(len(plain)):
        assert events(one, row, 0, 1) == events(plain, row, 0, 1)
        done, before = events(one, row, 3), events(plain, row, 3)
        assert sorted(done) == sorted(before)
        assert (done == before[::-1]) == (how == "reversed") or done == done[::-1]
        n = int(plain.arrays.n_events[row])
        pairs = zip(done, one.arrays.place_rank[row, :n].tolist(), strict=True)
        had = zip(before, plain.arrays.place_rank[row, :n].tolist(), strict=True)
        assert sorted(pairs) == sorted(had)  # a place goes with what is done there
        places = [p for (p,) in events(one, row, 2) if p]
        first = list(dict.fromkeys(places))
        assert first == list(range(1, len(first) + 1))  # numbered as they are seen
        assert not one.arrays.fields[row, n:].any()
    some = altered(how, drawn())[3:6]
    np.testing.assert_array_equal(some.arrays.fields, one[3:6].arrays.fields)


def test_places_by_hand() -> None:
    """Three places, the second of which is seen first once the history is turned."""
    store = make_store(
        [[(0, slot, place, 0, False) for slot, place in enumerate((7, 8, 7, 9, 9))]] * 3
    )
    windows = prediction_windows(store, "train", history_length=4, min_history=4)
    frozen = freeze(store, windows, 0)
    before = altered_cases(store, frozen, 4, "own").arrays
    turned = altered_cases(store, frozen, 4, "reversed").arrays
    assert before.fields[0, :, 2].tolist() == [1, 2, 1, 3]
    assert turned.fields[0, :, 2].tolist() == [1, 2, 3, 2]
    assert turned.place_rank[0].tolist() == before.place_rank[0, ::-1].tolist()


def test_the_last_events_are_those_of_a_shorter_window() -> None:
    one, frozen = altered("last10"), drawn()
    start = np.maximum(frozen.windows.start, frozen.windows.end - LAST)
    shorter = dataclasses.replace(frozen.windows, start=start)
    expected = cases_of(STORE, shorter, LENGTH).arrays
    np.testing.assert_array_equal(one.arrays.fields, expected.fields)
    assert one.arrays.n_events.max() == LAST


def test_anothers_is_the_donors_history_and_nobodys_is_an_error() -> None:
    frozen, plain = drawn(), altered("own")
    one = altered("another")
    np.testing.assert_array_equal(one.arrays.fields, plain.arrays.fields[frozen.donor])
    assert all(plain.user[row] != plain.user[donor] for row, donor in enumerate(frozen.donor))
    alone = WindowSet(frozen.windows, np.full(len(frozen), -1), "x")
    with pytest.raises(DataError, match="about one person"):
        altered("another", alone)
