"""SAND's days as stretches of time, what its pretraining learns, and its adversaries by hand."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.events.schema import EventStore
from bua_jax.models.sand import Sand
from bua_jax.training import checkpoint
from bua_jax.training.events import EncoderSettings, train
from bua_jax.training.generators import gail
from bua_jax.training.generators.gail import Acts, Adversaries, GailSettings, play
from bua_jax.training.generators.sand import DayBatches, Days, Reading, rates_of
from bua_jax.training.generators.sand_days import Known, Past, knots_of, known_days, times_of
from tests.events.stores import store_of

NETWORK = Sand((0, 1, 2), 1)
READING = Reading(slots=24, replay_days=1, length=8, most=2)


def test_times_are_spread_within_a_slot() -> None:
    slot, day = np.asarray([3, 3, 10, 10]), np.asarray([0, 0, 0, 1])
    assert (times_of(slot, 24, day) * 24).tolist() == pytest.approx([3.25, 3.75, 10.5, 10.5])
    assert times_of(slot[:0], 24).shape == (0,)


PAST = Past(np.asarray([-2, 0, 0]), np.asarray([5, 6, 20]), np.asarray([2, 1, 0]))
KNOWN = Known(3, np.asarray([0.5 / 24, 8.25 / 24]), np.asarray([1, 2]), PAST)


def test_stretches_end_at_hours_and_events() -> None:
    knots = knots_of(KNOWN, 24, 1, 60, whole=True)
    ends = np.cumsum(knots.dt) * 24
    events = knots.event >= 0
    np.testing.assert_allclose(ends[events], [6.5, 20.5, 24.5, 32.25], atol=1e-4)  # float32
    assert knots.event[events].tolist() == [1, 0, 1, 2]
    assert (knots.hour[events] + 24 * knots.counted[events]).tolist() == [6, 20, 24, 32]
    assert knots.weekday[events].tolist() == [2, 2, 3, 3]
    assert knots.dt.max() * 24 == pytest.approx(1)
    assert ends[-1] == pytest.approx(48)
    assert knots.counted.sum() == 24 + 2
    assert (knots.dt[52:] == 0).all()  # 48 hours and 4 events, then padding
    assert not knots.counted[52:].any()
    past = knots_of(KNOWN, 24, 1, 60, whole=False)
    assert np.cumsum(past.dt)[-1] == pytest.approx(1)
    assert not past.counted.any()
    longer = knots_of(KNOWN, 24, 5, 120, whole=False)
    assert np.cumsum(longer.dt)[-1] == pytest.approx(3)  # from the first event's day
    nothing = KNOWN._replace(past=Past(*(x[:0] for x in PAST)))
    assert np.sum(knots_of(nothing, 24, 1, 60, whole=False).dt) == 0
    assert np.sum(knots_of(KNOWN, 24, 0, 60, whole=True).dt) == pytest.approx(1)


def test_known_days_are_whole_and_look_back_to_the_last_gap() -> None:
    first = [(0, 1, 5, 0), (0, 2, 5, 1), (1, 3, 5, 2), (2, 4, 5, 0), (3, 5, 5, 1, True)]
    second = [(0, 1, 5, 0), (0, 2, 5, 1, True), (1, 3, 5, 2)]
    store = store_of([first, second, first], slots=24, split=[0, 0, 2])
    found = known_days(store, "train", 1, 2)
    assert [one.weekday for one in found] == [0, 1, 2, 3, 1]  # the second's Monday is cut
    assert [one.behaviour.tolist() for one in found] == [[0], [2], [0], [1], [2]]
    assert [one.past.behaviour.tolist() for one in found] == [[], [0, 1], [1, 2], [], [1]]
    assert found[2].past.day.tolist() == [-1, 0]
    assert len(known_days(store, "train", 9, 9)[0].time) == 2


# ----------------------------------------------------------------------------------- pretraining


def regular_store(people: int = 8, days: int = 12) -> EventStore:
    """Everybody does 0 at 8, and 1 at 20; nobody does 2."""
    life = [(d, *e) for d in range(days) for e in ((8, 5, 0), (20, 5, 1))]
    return store_of([life] * people, slots=24, split=[0] * (people - 1) + [1])


SETTINGS = EncoderSettings(
    epochs=6, batch=16, peak_lr=2e-2, weight_decay=0.0, patience=0, validation=8
)


@functools.cache
def pretrained() -> tuple[Days, Any]:
    problem = Days(NETWORK, regular_store(), SETTINGS, READING)
    begun = NETWORK.init(jax.random.key(0), rates_of(problem.days, 3))
    return problem, train(problem, {"policy": begun}, {"policy": 1.0}, None, {})["policy"]


@pytest.mark.long
def test_pretraining_learns_what_the_hour_says() -> None:
    problem, policy = pretrained()
    measure = problem.validation(None)
    constant = 2 - 2 * np.log(1.0)  # a day's loss at the mean rates, 1 a day of each that happens
    begun = NETWORK.init(jax.random.key(0), rates_of(problem.days, 3))
    assert measure({"policy": begun})["validation/log_loss"] > 0.8 * constant
    # known hours and behaviours would be worth 2 (ln 24 - 1) less; half of it is learnt soon
    assert measure({"policy": policy})["validation/log_loss"] < constant - (np.log(24) - 1)


@pytest.mark.long
def test_batches_go_on_where_they_were() -> None:
    days = pretrained()[0].days
    whole = DayBatches(days, 16, 6, 3)
    taken = [next(whole) for _ in range(9)]
    again = DayBatches(days, 16, 6, 3)
    for _ in range(7):
        next(again)
    cut = DayBatches(days, 16, 6, 99)
    cut.set_state(again.get_state())
    for batch in taken[7:]:
        found = next(cut)
        assert all(np.array_equal(found[name], batch[name]) for name in batch)
    assert not np.array_equal(taken[0]["noise"], taken[6]["noise"])


def test_without_a_whole_day_it_says_so() -> None:
    cut = store_of([[(0, 1, 5, 0), (0, 2, 5, 1, True)]], slots=24, split=[0])
    with pytest.raises(DataError, match=r"No training person has a day .* Leave the row sand out"):
        Days(NETWORK, cut, SETTINGS, READING).data()


# ----------------------------------------------------------------------------------- adversaries


def acts_of_days() -> Acts:
    problem = pretrained()[0]
    return gail.acts_of(problem.reading.knots(problem.known[:4], whole=True), READING.most)


def test_acts_are_the_events_of_the_day() -> None:
    problem = pretrained()[0]
    acts = gail.acts_of(problem.reading.knots(problem.known[:4], whole=True), 4)
    assert acts.there.tolist() == [[True, True, False, False]] * 4
    assert acts.behaviour[:, :2].tolist() == [[0, 1]] * 4
    assert acts.hour[:, :2].tolist() == [[8, 20]] * 4
    np.testing.assert_allclose(acts.interval[:, :2] * 24, [[8.5, 12]] * 4, atol=1e-4)  # float32


def test_the_discriminator_looks_back_alone() -> None:
    acts = acts_of_days()
    params = gail.discriminator(jax.random.key(0), 3)
    judged = jax.jit(lambda acts: gail.judged(params, NETWORK.levels, acts))
    before = np.asarray(judged(acts))
    later = acts.behaviour.copy()
    later[:, 1] = 2
    after = np.asarray(judged(acts._replace(behaviour=later)))
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-6)
    assert np.abs(after[:, 1] - before[:, 1]).min() > 1e-3
    earlier = acts.behaviour.copy()
    earlier[:, 0] = 2
    moved = np.asarray(judged(acts._replace(behaviour=earlier)))
    assert np.abs(moved[:, 1] - before[:, 1]).min() > 1e-4


def test_advantages_and_the_clipped_surrogate_by_hand() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 2, 4)).astype(np.float32)
    there = np.asarray([[True] * 4, [True, True, False, False]])
    gain, returns = gail.advantages(rewards, values, there)
    for row in range(2):
        last, later = 0.0, 0.0
        for i in reversed(range(there[row].sum())):
            delta = rewards[row, i] + 0.99 * later - values[row, i]
            last, later = delta + 0.99 * 0.95 * last, values[row, i]
            assert float(gain[row, i]) == pytest.approx(last, abs=1e-5)  # float32
            assert float(returns[row, i]) == pytest.approx(last + values[row, i], abs=1e-5)
    assert np.asarray(gain)[~there].tolist() == [0, 0]
    new, old = rng.normal(size=(2, 2, 4))
    ratio = np.exp(new - old)
    plain = np.minimum(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain)[there]
    found = gail.clipped(new, old, gain, there)
    assert float(found) == pytest.approx(-plain.mean(), abs=1e-5)


HOW = GailSettings(rounds=3, batch=4, steps=48, seed=1)


@pytest.mark.long
def test_rounds_cut_and_gone_on_with_end_as_if_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And change the policy; what lies there of other settings is refused."""
    problem, policy = pretrained()
    adversaries = Adversaries(NETWORK, problem.known, READING, HOW)
    whole = play(adversaries, policy, tmp_path / "whole", {"a": 1})
    monkeypatch.setattr(gail, "_KEPT", 1)
    save, count = checkpoint.save, []

    def cut(*given: Any) -> None:
        save(*given)
        count.append(given[1])
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        play(adversaries, policy, tmp_path / "cut", {"a": 1})
    found = play(adversaries, policy, tmp_path / "cut", {"a": 1})
    assert count == [1, 2, 3]
    same = jax.tree.map(np.array_equal, found, whole)
    assert all(jax.tree.leaves(same))
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), whole, policy)
    assert 1e-5 < max(jax.tree.leaves(moved)) < 0.5
    with pytest.raises(MismatchError, match="a=1, but this run has 2"):
        play(adversaries, policy, tmp_path / "cut", {"a": 2})


def test_the_discriminator_learns_to_tell_another_behaviour() -> None:
    """Of days in which 2 stands where real ones have 1."""
    real = acts_of_days()
    made = real._replace(behaviour=np.where(real.behaviour == 1, 2, real.behaviour))
    problem, policy = pretrained()
    adversaries = Adversaries(NETWORK, problem.known, READING, HOW)
    adversaries.judge_tx = gail.optax.adam(1e-2)
    tell, state = jax.jit(adversaries._told_apart), adversaries.begun(policy)
    begun = float(gail.judging_loss(state["judge"], NETWORK.levels, real, made))
    for _ in range(10):
        state = tell(state, real, made)
    after = float(gail.judging_loss(state["judge"], NETWORK.levels, real, made))
    assert begun > 1.0
    assert after < 0.8 * begun  # first events are the same in both, of which nothing can be told
    odds = np.asarray(gail.judged(state["judge"], NETWORK.levels, real))
    assert (
        odds[:, 1].min()
        > 0
        > np.asarray(gail.judged(state["judge"], NETWORK.levels, made))[:, 1].max()
    )
