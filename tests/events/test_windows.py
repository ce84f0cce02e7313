import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import ConfigError
from bua_jax.events.schema import NUM_PLACES, EventStore
from bua_jax.events.windows import (
    future_events,
    generation_windows,
    history,
    prediction_windows,
    sample_id,
    sample_windows,
    shown_id,
    target_day,
    window_arrays,
)
from tests.events.stores import people, store_of


def ranks_by_hand(locations: list[int]) -> list[int]:
    """Rank by visits, ties by the earlier first visit; plain Python."""
    visited = [code for code in locations if code >= 0]
    counts = Counter(visited)
    order = sorted(counts, key=lambda code: (-counts[code], visited.index(code)))[:NUM_PLACES]
    return [order.index(code) + 1 if code in order else 0 for code in locations]


def seen_by_hand(locations: list[int]) -> list[int]:
    order = list(dict.fromkeys(code for code in locations if code >= 0))[:NUM_PLACES]
    return [order.index(code) + 1 if code in order else 0 for code in locations]


@settings(max_examples=60, deadline=None)
@given(locations=st.lists(st.integers(-1, 14), min_size=1, max_size=40))
def test_places_against_plain_python(locations: list[int]) -> None:
    store = store_of([[(0, 0, code, 0) for code in locations]])
    seen = history(store, 0, len(locations))
    assert seen.place.tolist() == ranks_by_hand(locations)
    assert seen.place_seen.tolist() == seen_by_hand(locations)


def test_places_by_hand() -> None:
    store = store_of([[(0, 0, code, 0) for code in (5, 9, 9, -1, 5, 9, 3)]])
    seen = history(store, 0, 7)
    assert seen.place.tolist() == [2, 1, 1, 0, 2, 1, 3]
    assert seen.place_seen.tolist() == [1, 2, 2, 0, 1, 2, 3]
    assert history(store, 3, 6).place.tolist() == [0, 1, 2]  # ranked within the window


def test_beyond_ten_places_is_other() -> None:
    store = store_of([[(0, 0, code, 0) for code in [*range(12), 11]]])
    seen = history(store, 0, 13)
    assert seen.place.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 1, 1]
    assert seen.place_seen.tolist() == [*range(1, 11), 0, 0, 0]


def test_without_places_all_are_one() -> None:
    store = store_of([[(0, s, -1, 0) for s in range(12)]], has_places=False)
    windows = prediction_windows(store, "test")
    assert history(store, 0, 5).place.tolist() == [1] * 5
    arrays = window_arrays(store, windows, length=12)
    assert arrays["place_rank"][0].tolist() == [1] * 10 + [0] * 2
    assert arrays["fields"][0, :, 2].tolist() == [1] * 10 + [0] * 2


def changed_from(store: EventStore, position: int, seed: int) -> EventStore:
    """The store with every field of every event from `position` on redrawn."""
    rng = np.random.default_rng(seed)
    n = len(store.day) - position
    columns = {name: column.copy() for name, column in store.columns().items()}
    columns["slot"][position:] = rng.integers(0, 48, n)
    columns["weekday"][position:] = rng.integers(0, 7, n)
    columns["location"][position:] = rng.integers(-1, 15, n)
    columns["behaviour"][position:] = rng.integers(0, 3, n)
    columns["gap"][position:] = rng.integers(0, 2, n) > 0
    columns["day"][position:] += rng.integers(0, 50)
    return dataclasses.replace(store, **columns)


@settings(max_examples=40, deadline=None)
@given(everyone=people(max_people=1), data=st.data())
def test_what_follows_never_reaches_the_encoder(everyone, data) -> None:
    store = store_of(everyone)
    n = len(store.day)
    j = data.draw(st.integers(0, n - 1))
    before, after = history(store, 0, n), history(changed_from(store, j, seed=n), 0, n)
    np.testing.assert_array_equal(before.encoder_fields()[:j], after.encoder_fields()[:j])
    np.testing.assert_array_equal(before.place_seen[:j], after.place_seen[:j])


@settings(max_examples=40, deadline=None)
@given(everyone=people())
def test_a_history_holds_nothing_of_its_target(everyone) -> None:
    store = store_of(everyone)
    for windows in (
        prediction_windows(store, "test", history_length=12, min_history=3),
        generation_windows(store, "test", history_length=12, min_history=3),
    ):
        for row in range(len(windows)):
            start, end = int(windows.start[row]), int(windows.end[row])
            changed = changed_from(store, end, seed=row)
            one, other = history(store, start, end), history(changed, start, end)
            for field in dataclasses.fields(one):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
            arrays, theirs = (
                window_arrays(s, windows.take(np.asarray([row])), length=12)
                for s in (store, changed)
            )
            for name in set(arrays) - {"target_behaviour"}:
                np.testing.assert_array_equal(arrays[name], theirs[name])


@settings(max_examples=40, deadline=None)
@given(everyone=people(), length=st.integers(3, 15))
def test_prediction_windows_against_a_loop(everyone, length: int) -> None:
    store = store_of(everyone, split=[2, 0, 2][: len(everyone)])
    windows = prediction_windows(store, "test", history_length=length, min_history=3)
    expected = []
    for user in range(len(everyone)):
        first, last = int(store.offsets[user]), int(store.offsets[user + 1])
        if store.split[user] == 2:
            for end in range(first + 3, last):
                expected.append((user, max(first, end - length), end, end + 1))
    found = zip(
        *(getattr(windows, f.name).tolist() for f in dataclasses.fields(windows)), strict=True
    )
    assert list(found) == expected


@settings(max_examples=30, deadline=None)
@given(everyone=people())
def test_arrays_equal_histories(everyone) -> None:
    store = store_of(everyone)
    windows = prediction_windows(store, "test", history_length=11, min_history=2)
    arrays = window_arrays(store, windows, length=13)
    assert arrays["fields"].shape == (len(windows), 13, 4)
    for row in range(len(windows)):
        one = history(store, int(windows.start[row]), int(windows.end[row]))
        n = len(one)
        assert arrays["n_events"][row] == n
        np.testing.assert_array_equal(arrays["fields"][row, :n], one.encoder_fields())
        np.testing.assert_array_equal(arrays["place_rank"][row, :n], one.place)
        np.testing.assert_array_equal(arrays["gap"][row, :n], one.gap)
        np.testing.assert_array_equal(arrays["day"][row, :n], one.day)
        for name in ("fields", "place_rank", "gap", "day"):
            assert not arrays[name][row, n:].any()
        assert arrays["target_behaviour"][row] == store.behaviour[windows.end[row]]


def test_arrays_too_short_for_the_histories_are_refused() -> None:
    store = store_of([[(0, s, 1, 0) for s in range(20)]])
    with pytest.raises(ConfigError, match="19"):
        window_arrays(store, prediction_windows(store, "test"), length=18)


def test_arrays_of_more_windows_than_a_chunk() -> None:
    store = store_of([[(d, d % 48, d % 7, d % 3) for d in range(5000)]])
    windows = prediction_windows(store, "test", history_length=10)
    arrays = window_arrays(store, windows, length=10)
    rows = np.asarray([0, 4095, 4096, len(windows) - 1])
    part = window_arrays(store, windows.take(rows), length=10)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name][rows], part[name])


def test_history_by_hand() -> None:
    store = store_of([[(1, 5, 4, 0, False), (8, 6, 4, 1, True), (9, 7, 5, 2, False)]])
    seen = history(store, 1, 3)
    assert seen.day.tolist() == [-1, 0]
    assert seen.weekday.tolist() == [1, 2]
    assert seen.gap.tolist() == [False, False]  # the gap before the first event is out of sight
    assert history(store, 0, 3).gap.tolist() == [False, True, False]
    assert seen.encoder_fields().tolist() == [[1, 6, 1, 1], [2, 7, 2, 2]]
    assert seen.encoder_fields().dtype == np.int32


def generation_by_hand(store: EventStore, min_history: int, length: int) -> list[tuple]:
    """(start, end, target_end) of every day that directly follows a day, untouched by gaps."""
    found = []
    for user in range(len(store.users)):
        first, last = int(store.offsets[user]), int(store.offsets[user + 1])
        for end in range(first + max(1, min_history), last):
            day = store.day[end]
            same_day = [p for p in range(first, last) if store.day[p] == day]
            starts_day = same_day[0] == end
            follows = store.day[end - 1] == day - 1
            if starts_day and follows and not store.gap[same_day].any():
                found.append((max(first, end - length), end, same_day[-1] + 1))
    return found


@settings(max_examples=60, deadline=None)
@given(everyone=people(), min_history=st.integers(1, 6))
def test_generation_windows_against_a_loop(everyone, min_history: int) -> None:
    store = store_of(everyone)
    windows = generation_windows(store, "test", history_length=8, min_history=min_history)
    found = zip(
        windows.start.tolist(), windows.end.tolist(), windows.target_end.tolist(), strict=True
    )
    assert list(found) == generation_by_hand(store, min_history, 8)
    np.testing.assert_array_equal(windows.user, store.user_of(windows.end))


def test_a_target_day_by_hand() -> None:
    days = [(0, 10, 7, 0), (0, 20, 7, 1), (0, 30, 8, 2), (1, 4, 8, 1), (1, 40, 9, 0), (3, 1, 7, 0)]
    store = store_of([days])
    windows = generation_windows(store, "test", min_history=2)
    assert len(windows) == 1  # day 3 does not follow day 1 directly
    day = target_day(store, windows, 0)
    assert (day.weekday, day.slot, day.place, day.behaviour) == (1, (4, 40), (2, 0), (1, 0))
    assert len(day) == 2


def test_future_events_at_half_hours() -> None:
    slots = [10, 11, 14, 15, 47]
    store = store_of([[(0, s, 1, 0) for s in slots] + [(1, 3, 1, 0), (1, 4, 1, 0)]])
    assert future_events(store, 1, 2) == slice(1, 3)  # slots 10 .. 14
    assert future_events(store, 4, 2) == slice(4, 4)  # nothing in 15 .. 19, but the record goes on
    assert future_events(store, 5, 2) == slice(5, 6)  # 23:30 reaches 01:30 of the next day
    assert future_events(store, 6, 2) is None  # the record ends before the span does
    assert future_events(store, 7, 2) is None


def test_future_events_at_hours_and_gaps() -> None:
    events = [(0, 14, 1, 0), (0, 16, 1, 0), (0, 17, 1, 0), (9, 1, 1, 0, True), (9, 9, 1, 0)]
    store = store_of([events, [(9, 20, 1, 0)]], slots=24)
    assert future_events(store, 1, 2) == slice(1, 2)
    assert future_events(store, 2, 2) is None  # a gap follows before two hours are known to be over
    assert future_events(store, 4, 2) == slice(4, 4)
    assert future_events(store, 5, 2) is None  # the next person's event is not this one's future


@settings(max_examples=40, deadline=None)
@given(everyone=people(max_people=2), hours=st.integers(1, 30))
def test_future_events_lie_within_the_span(everyone, hours: int) -> None:
    store = store_of(everyone)
    moment = store.day.astype(int) * 48 + store.slot
    for end in range(1, len(moment) + 1):
        part = future_events(store, end, hours)
        if part is None:
            continue
        last = int(store.offsets[store.user_of(np.asarray(end - 1)) + 1])
        assert part.start == end
        assert part.stop < last
        assert not store.gap[end : part.stop + 1].any()
        assert (moment[end : part.stop] <= moment[end - 1] + 2 * hours).all()
        assert moment[part.stop] > moment[end - 1] + 2 * hours


def test_samples_are_deterministic_and_in_order() -> None:
    store = store_of([[(0, s % 48, 1, 0) for s in range(200)]])
    windows = prediction_windows(store, "test")
    one, two, other = (sample_windows(windows, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.end, two.end)
    assert (np.diff(one.end) > 0).all()
    assert not np.array_equal(one.end, other.end)
    assert len(sample_windows(windows, 0, 1)) == len(sample_windows(windows, 10**6, 1)) == 190


def test_sample_ids_are_unique_and_stable() -> None:
    store = store_of([[(0, s, 1, 0) for s in range(20)]] * 2)
    windows = prediction_windows(store, "test")
    ids = [sample_id(store, windows, row) for row in range(len(windows))]
    assert len(set(ids)) == len(ids) == 20
    assert ids[0] == "u0:10"
    assert ids[10] == "u1:10"
    assert sample_id(store, windows.take(np.asarray([10])), 0) == "u1:10"


def test_shown_ids_hide_the_user_from_who_has_not_the_events() -> None:
    events = [[(0, s, 1, 0) for s in range(20)]] * 2
    store, windows = store_of(events), prediction_windows(store_of(events), "test")
    ids = [shown_id(store, windows, row) for row in range(len(windows))]
    assert len(set(ids)) == len(ids) == 20
    assert [name.partition(":")[2] for name in ids] == [str(n) for n in range(10, 20)] * 2
    assert ids == [shown_id(store_of(events), windows, row) for row in range(len(windows))]
    assert not any(user in name for name in ids for user in store.users)
    others = store_of([[(0, s, 1, 0) for s in range(19)] + [(0, 20, 1, 0)]] * 2)
    assert not set(ids) & {shown_id(others, windows, row) for row in range(len(windows))}


@pytest.mark.parametrize(("history_length", "min_history"), [(5, 6), (10, 0)])
def test_impossible_lengths_are_refused(history_length: int, min_history: int) -> None:
    store = store_of([[(0, s, 1, 0) for s in range(20)]])
    for make in (prediction_windows, generation_windows):
        with pytest.raises(ConfigError, match=f"min_history={min_history}"):
            make(store, "test", history_length=history_length, min_history=min_history)


def test_too_few_events_give_no_window() -> None:
    store = store_of([[(0, s, 1, 0) for s in range(10)], [(0, 1, 1, 0)]])
    assert len(prediction_windows(store, "test")) == 0
    assert len(prediction_windows(store, "train")) == 0
    arrays = window_arrays(store, prediction_windows(store, "test"), length=40)
    assert arrays["fields"].shape == (0, 40, 4)


def test_a_target_day_is_in_the_order_of_the_clock() -> None:
    """In autumn an event at 2:10 may follow one at 2:50."""
    events = [(0, 20, 1, 0)] * 10 + [(1, 5, 2, 0), (1, 4, 1, 1), (1, 9, 1, 2)]
    store = store_of([events])
    day = target_day(store, generation_windows(store, "test"), 0)
    assert (day.slot, day.place, day.behaviour) == ((4, 5, 9), (1, 0, 1), (1, 0, 2))
