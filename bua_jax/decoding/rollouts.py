"""Days drawn from BehaveGPT event by event (`models.rollouts`), each from a key of its own."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bua_jax.models.rollouts import Rollouts


class Seen(NamedTuple):
    """Histories as they grow: fields int32[B, L, 4], left-aligned; events int32[B]: how many, at least 1."""

    fields: jax.Array
    events: jax.Array

    @property
    def last(self) -> jax.Array:
        """int32[B, 4]: the last event."""
        return jnp.take_along_axis(self.fields, (self.events - 1)[:, None, None], axis=1)[:, 0]

    def with_event(self, event: jax.Array) -> "Seen":
        """After one more, int32[B, 4]; where there is no room the oldest goes."""
        length = self.fields.shape[1]
        full = self.events == length
        kept = jnp.where(full[:, None, None], jnp.roll(self.fields, -1, axis=1), self.fields)
        at = self.events - full
        fields = kept.at[jnp.arange(len(kept)), at].set(event)
        return Seen(fields, at + 1)


def _after(
    network: Rollouts, variables: Mapping[str, Any], seen: Seen
) -> tuple[jax.Array, jax.Array]:
    """(states float32[B, 2 D], log p of the next behaviour float32[B, C]) after the last event."""
    segments = (jnp.arange(seen.fields.shape[1]) < seen.events[:, None]).astype(jnp.int32)
    found = network.encoded(variables, seen.fields, segments)
    at = (seen.events - 1)[:, None, None]
    states, logits = (jnp.take_along_axis(x, at, axis=1)[:, 0] for x in found)
    return states, jax.nn.log_softmax(logits)


def _drawn(keys: jax.Array, step: jax.Array, log_p: jax.Array) -> jax.Array:
    """int32[B] of log p float32[B, K], by the step's key of each row."""
    own = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
    return jax.vmap(jax.random.categorical)(own, log_p).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("network",))
def draw_behaviours(
    network: Rollouts,
    variables: Mapping[str, Any],
    seen: Seen,
    weekday: jax.Array,
    slots: jax.Array,
    places: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    """int32[B, E]: behaviours of a day whose clock and places are given, int32[B, E] each."""

    def step(seen: Seen, at: tuple[jax.Array, ...]) -> tuple[Seen, jax.Array]:
        number, slot, place = at
        _, log_p = _after(network, variables, seen)
        behaviour = _drawn(keys, number, log_p)
        event = jnp.stack([weekday, slot, place, behaviour], axis=1)
        return seen.with_event(event), behaviour

    numbers = jnp.arange(slots.shape[1])
    return jax.lax.scan(step, seen, (numbers, slots.T, places.T))[1].T


@functools.partial(jax.jit, static_argnames=("network", "most"))
def draw_days(
    network: Rollouts,
    variables: Mapping[str, Any],
    seen: Seen,
    weekday: jax.Array,
    keys: jax.Array,
    *,
    most: int,
) -> tuple[jax.Array, jax.Array]:
    """(events int32[B, most, 3] as slot, place, behaviour; whether each is of the day bool[B, most]).

    The first event is drawn given that it is of a later day: from p(b | s) p(slot, later | s, b), over both.
    A later one that is not of the same day ends it.
    """
    classes, slots = network.classes, network.slots

    def first(states: jax.Array, log_p: jax.Array, before: jax.Array) -> tuple[jax.Array, ...]:
        ids = jnp.broadcast_to(jnp.arange(classes), log_p.shape)
        spread = jnp.broadcast_to(states[:, None], (*ids.shape, states.shape[-1]))
        when = network.when(variables, spread, ids, jnp.broadcast_to(before[:, None], ids.shape))
        both = (log_p[..., None] + when[..., slots:]).reshape(len(log_p), -1)
        pair = _drawn(keys, jnp.int32(0), both)
        return pair // slots, pair % slots, jnp.ones(len(pair), bool)

    def later(
        number: jax.Array, states: jax.Array, log_p: jax.Array, before: jax.Array
    ) -> tuple[jax.Array, ...]:
        behaviour = _drawn(keys, 3 * number, log_p)
        when = _drawn(keys, 3 * number + 1, network.when(variables, states, behaviour, before))
        return behaviour, when % slots, when < slots

    def event(seen: Seen, number: jax.Array, *, begins: bool) -> tuple[Seen, tuple[jax.Array, ...]]:
        states, log_p = _after(network, variables, seen)
        before = seen.last[:, 1]
        behaviour, slot, goes_on = (
            first(states, log_p, before) if begins else later(number, states, log_p, before)
        )
        where = network.where(variables, states, behaviour, slot)
        place = _drawn(keys, 3 * number + 2, where)
        after = seen.with_event(jnp.stack([weekday, slot, place, behaviour], axis=1))
        return after, (jnp.stack([slot, place, behaviour], axis=1), goes_on)

    after, (one, _) = event(seen, jnp.int32(0), begins=True)
    numbers = jnp.arange(1, most)
    _, (more, goes_on) = jax.lax.scan(functools.partial(event, begins=False), after, numbers)
    events = jnp.concatenate([one[:, None], jnp.swapaxes(more, 0, 1)], axis=1)
    inside = jnp.cumprod(goes_on.T.astype(jnp.int32), axis=1) > 0
    return events, jnp.concatenate([jnp.ones((len(one), 1), bool), inside], axis=1)
