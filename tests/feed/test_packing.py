"""Rows hold whole dialogues, epochs hold every dialogue once, iterators resume exactly."""

import json
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.feed import packing
from bua_jax.feed.batches import Batches, fixed_batches, one_per_row
from tests.feed.made import dialogues_of, random_records, record


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(1, 40))
def test_an_epoch_has_every_dialogue_whole(count: int, seed: int, batch_dialogues: int) -> None:
    records = random_records(count, seed)
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=batch_dialogues, seed=seed)
    data = Batches(records, plan, seed)
    seen: Counter[int] = Counter()
    for _ in range(int(np.ceil(plan.steps_per_epoch)) + 1):
        batch = next(data)
        assert batch["tokens"].shape == (plan.rows_per_batch, 64)
        assert batch["events"].shape == (plan.rows_per_batch, plan.event_length, 4)
        assert (batch["round_ids"] > 0).sum(1).max() <= plan.max_supervised
        seen.update(dialogues_of(batch, records))
    assert set(seen) == set(range(1, count + 1))


def test_batches_average_what_was_asked_for() -> None:
    records = random_records(600, 0)
    plan = packing.plan_packing(records, row_length=128, batch_dialogues=48, seed=0)
    data, seen = Batches(records, plan, 0), []
    for _ in range(round(plan.steps_per_epoch)):
        seen.append(len(dialogues_of(next(data), records)))
    assert np.mean(seen) == pytest.approx(48, rel=0.05)
    assert sum(seen) == pytest.approx(600, rel=0.05)
    assert plan.fill > 0.9
    assert packing.plan_packing(
        records, row_length=128, batch_dialogues=48, seed=0, rows_multiple=8
    ).rows_per_batch == 8 * round(plan.rows_per_batch / 8)


def test_small_data_is_not_seen_more_often_within_an_epoch() -> None:
    """Rows of a later epoch must not come before this epoch's."""
    records = random_records(40, 3)
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=4, seed=3)
    data = Batches(records, plan, 3)
    seen: Counter[int] = Counter()
    for epoch in range(1, 4):
        for _ in range(round(plan.steps_per_epoch)):
            seen.update(dialogues_of(next(data), records))
        assert sum(seen.values()) == pytest.approx(40 * epoch, rel=0.1)
        assert max(seen.values()) <= epoch + 1
        assert sum(n >= epoch for n in seen.values()) >= 30


def test_batches_never_ask_for_more_than_there_is() -> None:
    plan = packing.plan_packing(random_records(10, 0), row_length=64, batch_dialogues=96, seed=0)
    assert 0.9 <= plan.steps_per_epoch <= 1.1


def test_order_is_the_seeds_and_changes_by_epoch() -> None:
    records = [record(i + 1, 30, 2) for i in range(30)]
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=2, seed=0)
    first, again, other = (Batches(records, plan, seed) for seed in (7, 7, 8))
    orders = [
        [n for _ in range(30) for n in dialogues_of(next(d), records)]
        for d in (first, again, other)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:30] != orders[0][30:]
    assert sorted(orders[0][:30]) == sorted(orders[0][30:]) == list(range(1, 31))


@pytest.mark.parametrize("steps", [0, 1, 7, 40])
def test_state_is_exact(steps: int) -> None:
    records = random_records(80, 1)
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=10, seed=1)
    data = Batches(records, plan, 1)
    for _ in range(steps):
        next(data)
    state = json.loads(json.dumps(data.get_state()))  # as it comes back from a checkpoint
    other = Batches(records, plan, 1)
    next(other)
    other.set_state(state)
    for _ in range(12):
        jax.tree.map(np.testing.assert_array_equal, next(data), next(other))


def test_validation_is_seen_once_and_has_room() -> None:
    """Validation dialogues may have more events and supervised tokens than training ones."""
    records = [record(i + 1, 30, 2) for i in range(20)]
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=6, seed=0)
    validation = [record(i + 1, 40 + i, 36, supervised=30) for i in range(7)]
    room = packing.plan_for(validation, plan)
    batches = list(fixed_batches(validation, room))
    assert sorted(n for b in batches for n in dialogues_of(b, validation)) == list(range(1, 8))
    assert all(b["tokens"].shape == (plan.rows_per_batch, 64) for b in batches)
    assert all((b["round_ids"] > 0).sum(1).max() <= room.max_supervised for b in batches)
    again = list(fixed_batches(validation, room))
    jax.tree.map(np.testing.assert_array_equal, batches, again)


def test_without_events() -> None:
    records = [record(i + 1, 20, 0) for i in range(9)]
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=3, seed=0)
    batch = next(Batches(records, plan, 0))
    assert not batch["event_segments"].any()
    assert len(dialogues_of(batch, records)) == 3


def test_more_events_than_tokens() -> None:
    """Pooled soft tokens: one placeholder stands for a long history."""
    records = [record(i + 1, 10, 40) for i in range(12)]
    plan = packing.plan_packing(records, row_length=64, batch_dialogues=6, seed=0)
    assert plan.dialogues_per_row == 6
    assert len(dialogues_of(next(Batches(records, plan, 0)), records)) == 6


def test_rows_without_packing() -> None:
    """Each row is what packing makes of its dialogue alone, but for the padding."""
    records = random_records(5, seed=3)
    batch = one_per_row(records, 64)
    assert dialogues_of(batch, records) == [1, 2, 3, 4, 5]
    for i, one in enumerate(records):
        plan = packing.plan_packing([one], row_length=64, batch_dialogues=1, seed=0)
        (alone,) = fixed_batches([one], plan)
        assert alone.keys() == batch.keys()
        for name, value in alone.items():
            size = min(value.shape[1], batch[name].shape[1])
            np.testing.assert_array_equal(value[0, :size], batch[name][i, :size], err_msg=name)
            assert not value[0, size:].any()
            assert not batch[name][i, size:].any()
