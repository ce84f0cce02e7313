"""BehaveGPT's rollouts: drawn as their distributions say, and what heads for time and place learn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.decoding.rollouts import Seen, draw_behaviours, draw_days
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import generation_windows, target_day
from bua_jax.methods.behavegpt_days import Rolled, longest_day, shortened
from bua_jax.methods.last_day import last_day
from bua_jax.methods.protocol import Cases, cases_of
from bua_jax.models.encoders import EncoderConfig
from bua_jax.models.rollouts import Rollouts
from bua_jax.training.events import EncoderSettings, fresh, train, train_encoder
from bua_jax.training.generators.rollouts import Heads, head_losses
from tests.events.stores import store_of

CONFIG = EncoderConfig("behavegpt", 3, 24, dim=4, num_layers=1, num_heads=2, dropout=0.0)
NETWORK = Rollouts(CONFIG, hidden=8)
LENGTH, DRAWS = 6, 4000


def variables_of(seed: int) -> dict[str, Any]:
    """An encoder and heads far from uniform."""
    rng = np.random.default_rng(seed)
    settings = EncoderSettings(history_length=LENGTH)
    made = {"encoder": fresh(CONFIG, settings), "heads": NETWORK.init(seed)}
    return jax.tree.map(lambda x: np.float32(x + rng.normal(0, 0.5, x.shape)), made)


VARIABLES = variables_of(0)
ENCODED = jax.jit(NETWORK.encoded)
HISTORY = np.asarray([[0, 9, 1, 0], [0, 12, 2, 1], [0, 20, 1, 2], [0, 0, 0, 0]])


def seen_of(count: int) -> Seen:
    fields = np.zeros((count, LENGTH, 4), np.int32)
    fields[:, :4] = HISTORY
    return Seen(jnp.asarray(fields), jnp.full(count, 3))


def after(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """State [2 D] and p [C] of the next behaviour after events [n, 4], from the whole encoder."""
    padded = np.zeros((1, LENGTH, 4), np.int32)
    padded[0, : len(fields)] = fields
    states, scores = ENCODED(
        VARIABLES, padded, np.asarray(np.arange(LENGTH) < len(fields), np.int32)[None]
    )
    logits = np.asarray(scores[0, len(fields) - 1], np.float64)
    return np.asarray(states[0, len(fields) - 1]), np.exp(logits) / np.exp(logits).sum()


def heads_by_hand(name: str, state: np.ndarray, *ids: int) -> np.ndarray:
    """A head's scores in numpy."""
    head = VARIABLES["heads"][name]
    x = state @ head["state"]["kernel"] + head["state"]["bias"]
    for part, row in zip(("behaviour", "slot"), ids, strict=False):
        x = x + head[part]["embedding"][row]
    x = np.asarray(jax.nn.gelu(x))
    return x @ head["out"]["kernel"] + head["out"]["bias"]


def close(found: np.ndarray, p: np.ndarray, draws: int) -> None:
    """Frequencies int[draws] of ids within 5 standard errors of p."""
    shares = np.bincount(found, minlength=len(p)) / draws
    assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / draws) + 1 / draws).all()


def test_first_events_are_of_a_later_day_and_the_others_follow_the_chain_rule() -> None:
    keys = jax.random.split(jax.random.key(1), DRAWS)
    weekday = np.full(DRAWS, 1)
    events, inside = map(
        np.asarray, draw_days(NETWORK, VARIABLES, seen_of(DRAWS), weekday, keys, most=4)
    )
    state, p = after(HISTORY[:3])
    both = np.zeros((3, 24))
    for b in range(3):
        scores = heads_by_hand("when", state, b).astype(np.float64)
        scores[:20] = -np.inf  # the last event was at 20
        when = np.exp(scores) / np.exp(scores).sum()
        both[b] = p[b] * when[24:]
    both /= both.sum()
    close(events[:, 0, 2] * 24 + events[:, 0, 0], both.ravel(), DRAWS)
    assert inside[:, 0].all()
    slots = np.where(inside, events[:, :, 0], 24)
    assert (np.diff(slots, axis=1) >= 0).all()  # ended days stay ended
    assert 0.05 < inside[:, 1].mean() < 0.95
    # after the commonest first event: whether and when there is a second
    common = np.unique(events[:, 0], axis=0, return_counts=True)
    slot, place, behaviour = common[0][common[1].argmax()]
    rows = (events[:, 0] == (slot, place, behaviour)).all(1)
    state, p = after(np.concatenate([HISTORY[:3], [[1, slot, place, behaviour]]]))
    ends, second = 0.0, np.zeros(24)
    for b in range(3):
        scores = heads_by_hand("when", state, b).astype(np.float64)
        scores[:slot] = -np.inf
        when = p[b] * np.exp(scores) / np.exp(scores).sum()
        ends, second = ends + when[24:].sum(), second + when[:24]
    close(np.where(inside[rows, 1], events[rows, 1, 0], 24), np.append(second, ends), rows.sum())


def test_losses_are_those_of_the_heads() -> None:
    """Of the second event the same day's slot, of the third a later one's: the clock went back."""
    fields = np.asarray([[[0, 9, 1, 0], [0, 12, 2, 1], [0, 4, 1, 2], [0, 0, 0, 0]]])
    losses = jax.jit(lambda *given: head_losses(NETWORK, *given))
    nll, mask = losses(VARIABLES, fields, np.asarray([[1, 1, 1, 0]]))
    assert mask.tolist() == [[1, 1, 0]]
    for at, column in ((1, 12), (2, 24 + 4)):
        state, _ = after(fields[0, :at])
        _, slot, place, behaviour = fields[0, at]
        scores = heads_by_hand("when", state, behaviour).astype(np.float64)
        scores[: fields[0, at - 1, 1]] = -np.inf
        where = heads_by_hand("where", state, behaviour, slot).astype(np.float64)
        expected = np.log(np.exp(scores).sum()) - scores[column]
        expected += np.log(np.exp(where).sum()) - where[place]
        assert nll[0, at - 1] == pytest.approx(expected, abs=1e-4)  # float32


def test_a_full_history_loses_its_oldest_event() -> None:
    """Behaviours are then drawn as from the last events alone."""
    rng = np.random.default_rng(2)
    fields = rng.integers(0, 3, (1, LENGTH + 2, 4))
    keys, few = jax.random.split(jax.random.key(0), 2000), np.full((2000, 3), 5)
    full = Seen(jnp.asarray(np.repeat(fields[:, :LENGTH], 2000, 0)), jnp.full(2000, LENGTH))
    drawn = draw_behaviours(NETWORK, VARIABLES, full, np.full(2000, 1), few, few, keys)
    firsts = np.asarray(drawn[:, 0])
    close(firsts, after(fields[0, :LENGTH])[1], 2000)
    common = np.bincount(firsts).argmax()
    kept = np.concatenate([fields[0, 1:LENGTH], [[1, 5, 5, common]]])
    close(np.asarray(drawn[firsts == common, 1]), after(kept)[1], (firsts == common).sum())


# ----------------------------------------------------------------------------------- as a method


def test_places_of_a_shortened_history_are_counted_anew() -> None:
    """As those of the history that begins there; a place beyond ten stays one."""
    for store in (routine_store(), simulated_store(8, 6, 0)):
        windows = generation_windows(store, "test", history_length=20, min_history=10)
        start = np.maximum(windows.start, windows.end - 7)
        short = cases_of(store, dataclasses.replace(windows, start=start), 7).arrays
        found = shortened(cases_of(store, windows, 20), 7).arrays
        assert (found.n_events == 7).all()
        known = found.fields[:, :, 2] > 0
        np.testing.assert_array_equal(
            found.fields[:, :, 2], np.where(known, short.fields[:, :, 2], 0)
        )
        assert known.mean() > 0.9
        np.testing.assert_array_equal(found.fields[:, :, [0, 1, 3]], short.fields[:, :, [0, 1, 3]])
        np.testing.assert_array_equal(found.day, short.day)


def routine_store(people: int = 12, days: int = 24) -> EventStore:
    """Everybody's day: 0 at 8 at home, 1 at 12 elsewhere, 2 at 20 at home."""
    day = [(8, 5, 0), (12, 6, 1), (20, 5, 2)]
    life = [(d, *e) for d in range(days) for e in day]
    split = [0] * (people - 3) + [1, 2, 2]
    return store_of([life] * people, slots=24, split=split)


STORE = routine_store()


def cases(store: EventStore) -> Cases:
    windows = generation_windows(store, "test", history_length=20, min_history=4)
    return cases_of(store, windows, 20, told="weekday")


def test_rollouts_take_the_last_days_clock() -> None:
    asked = cases(STORE)
    method = Rolled(NETWORK, VARIABLES, {}, seed=3, length=LENGTH)
    days = method.generate(asked).days
    for case, day in zip(asked, days, strict=True):
        last = last_day(case.history)
        kept = slice(-LENGTH, None)  # all of it here: a day has three events
        assert day.weekday == case.weekday
        assert (day.slot, day.place) == (last.slot[kept], last.place[kept])
    found = [day.behaviour for day in days]
    again = dataclasses.replace(method, seed=4).generate(asked).days
    assert [day.behaviour for day in again] != found
    renamed = dataclasses.replace(asked, sample_id=tuple(f"x{i}" for i in range(len(asked))))
    assert [day.behaviour for day in method.generate(renamed).days] != found


@pytest.mark.long
def test_heads_learn_when_where_and_the_end_of_a_day() -> None:
    """An own routine is drawn nearly always; the encoder is not changed."""
    settings = EncoderSettings(
        history_length=12, min_history=4, epochs=10, batch=8, peak_lr=2e-2, patience=0
    )
    config = dataclasses.replace(CONFIG, dim=8, max_events=12)
    encoder, _ = train_encoder(config, STORE, settings)
    network = Rollouts(config, hidden=16)
    problem = Heads(network, STORE, dataclasses.replace(settings, epochs=25, peak_lr=1e-2))
    variables = {"encoder": encoder, "heads": network.init(0)}
    best = train(problem, variables, {"heads": 1.0}, None, {})
    assert set(best) == {"heads"}
    method = Rolled(network, {**variables, **best}, {}, 0, 12, most=longest_day(STORE))
    windows = generation_windows(STORE, "test", history_length=20, min_history=4)
    days = method.generate(cases(STORE)).days
    truth = [target_day(STORE, windows, row) for row in range(len(windows))]
    assert method.most == 3
    assert np.mean([one == other for one, other in zip(days, truth, strict=True)]) > 0.8
