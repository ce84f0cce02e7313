"""SAND's policy (Yuan et al., KDD 2023): three needs that flow between events and jump at them.

Each need level n has an internal state c_n and a memory of its events h_n, four numbers each. Between events
dc_n/dt = F_n(c_n, h_n, weekday, hour) without its part along c_n, and dh_n/dt = -softplus(G_n(c_n)) h_n,
F_n and softplus(G_n) bounded (ours: without it training diverged); an event k of level n adds W_n(c_n, e_k)
to h_n. Behaviours come at the rates softplus(MLP(all states, weekday, hour)). Time is in days, and hours
change what flows, so that no step of an integral goes over a full hour.

Nothing here is of a batch: `jax.vmap` makes it so.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEVELS, SIZE = 3, 4  # needs, numbers of each state
_EVENT, _WEEKDAY, _HOUR, _HIDDEN = 8, 4, 8, 32  # widths, as published
_FASTEST = 48.0  # change of a need or memory, per day: what fades as fast is halved in 21 minutes
_LEAST = 1e-9  # of a rate, per day: below it a logarithm says nothing
_MARGIN = 1.25  # of a rate over a step's ends: what thinning takes as its bound within it

Params = Mapping[str, Any]


class State(NamedTuple):
    """float[3, 4] each: needs' internal states and memories of events."""

    needs: jax.Array
    memory: jax.Array


class Knots(NamedTuple):
    """Stretches of time of one person, arrays [K] each (of numpy or jax); padding takes no time."""

    dt: Any  # float, days
    hour: Any  # int, of all of the stretch
    weekday: Any  # int
    event: Any  # int: the behaviour at its end, or -1
    counted: Any  # bool: of the day that is learnt, not read


class Walked(NamedTuple):
    """What `walk` finds of each stretch, before its event."""

    log_rates: jax.Array  # float[K, C], at its end
    expected: jax.Array  # float[K]: the integral of all rates over it
    states: jax.Array  # float[K, 24], at its end


@dataclass(frozen=True)
class Sand:
    """Sizes: `levels` says of each behaviour whose need it is; `substeps` of RK4 per stretch of a walk."""

    levels: tuple[int, ...]
    substeps: int = 2

    @property
    def classes(self) -> int:
        return len(self.levels)

    def init(self, key: jax.Array, rates: np.ndarray) -> dict[str, Any]:
        """Parameters at which every behaviour comes about at its rate float[C], per day."""
        keys, each = iter(jax.random.split(key, 9)), SIZE + SIZE + _WEEKDAY + _HOUR
        found: dict[str, Any] = {
            "event": _table(next(keys), self.classes, _EVENT),
            "weekday": _table(next(keys), 7, _WEEKDAY),
            "hour": _table(next(keys), 24, _HOUR),
            "start": mlp_init(next(keys), SIZE, LEVELS * SIZE),
            "flow": _by_level(next(keys), each, SIZE),
            "decay": _by_level(next(keys), SIZE, SIZE),
            "jump": jax.vmap(lambda k: _dense(k, SIZE + _EVENT, SIZE))(
                jax.random.split(next(keys), LEVELS)
            ),
            "rates": mlp_init(next(keys), 2 * LEVELS * SIZE + _WEEKDAY + _HOUR, self.classes),
        }
        least = jnp.maximum(jnp.asarray(rates, jnp.float32), 1e-3)
        found["rates"]["out"]["bias"] = least + jnp.log(
            -jnp.expm1(-least)
        )  # its softplus is the rate
        return found

    def start(self, params: Params, noise: jax.Array) -> State:
        """The state of a person of whom nothing is known; noise float[4], standard normal."""
        needs = mlp(params["start"], noise).reshape(LEVELS, SIZE)
        return State(needs, jnp.zeros_like(needs))

    def log_rates(self, params: Params, state: State, when: jax.Array) -> jax.Array:
        """float[C]: of every behaviour, per day; when float[12] of `when`."""
        rates = jax.nn.softplus(mlp(params["rates"], jnp.concatenate([vector_of(state), when])))
        return jnp.log(rates + _LEAST)

    def flow(
        self, params: Params, state: State, when: jax.Array, dt: jax.Array
    ) -> tuple[State, jax.Array]:
        """One step of RK4 over dt days: (the state after it, the integral of all rates over it)."""

        start = state, jnp.zeros((), when.dtype)

        def stage(
            carry: tuple[Any, Any], at: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[Any, Any], None]:
            last, total = carry
            share, weight = at
            here: State = jax.tree.map(lambda x, k: x + share * dt * k, state, last[0])
            rates = jnp.exp(self.log_rates(params, here, when)).sum()
            slope = _slope(params, here, when), rates
            return (slope, jax.tree.map(lambda x, k: x + weight * dt * k, total, slope)), None

        zero = jax.tree.map(jnp.zeros_like, start)
        shares, weights = jnp.asarray([0, 0.5, 0.5, 1]), jnp.asarray([1, 2, 2, 1]) / 6
        stages = shares.astype(when.dtype), weights.astype(when.dtype)
        (_, after), _ = jax.lax.scan(
            stage, (zero, start), stages
        )  # a loop compiles four times as soon
        return after

    def jump(self, params: Params, state: State, event: jax.Array) -> State:
        """After an event int[] of its level; -1: nothing happened."""
        level = jnp.asarray(self.levels)[event]
        given = jnp.concatenate([state.needs[level], params["event"][event]])
        own = jax.tree.map(lambda x: x[level], params["jump"])
        added = jnp.where(event >= 0, given @ own["kernel"] + own["bias"], 0)
        return state._replace(memory=state.memory.at[level].add(added))

    def walk(self, params: Params, noise: jax.Array, knots: Knots) -> tuple[State, Walked]:
        """The state after all of a person's stretches, and what is found on the way."""

        def stretch(state: State, at: Knots) -> tuple[State, Walked]:
            when, dt = when_of(params, at.weekday, at.hour), at.dt / self.substeps

            def step(state: State, _: None) -> tuple[State, jax.Array]:
                return self.flow(params, state, when, dt)

            state, expected = jax.lax.scan(step, state, None, length=self.substeps)
            log_rates = self.log_rates(params, state, when)
            said = Walked(log_rates, expected.sum(), vector_of(state))
            return self.jump(params, state, at.event), said

        return jax.lax.scan(stretch, self.start(params, noise), knots)

    def log_likelihood(self, params: Params, noise: jax.Array, knots: Knots) -> jax.Array:
        """float[]: of the counted day, given the days before it: events' log rates less what is expected."""
        _, found = self.walk(params, noise, knots)
        own = jnp.take_along_axis(found.log_rates, jnp.maximum(knots.event, 0)[:, None], 1)[:, 0]
        return jnp.sum(knots.counted * (jnp.where(knots.event >= 0, own, 0) - found.expected))

    def simulate(
        self,
        params: Params,
        state: State,
        weekday: jax.Array,
        key: jax.Array,
        *,
        steps: int,
        most: int,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(times float[most], behaviours int[most], number of events) of the day that begins in `state`.

        Ogata's thinning. The day goes in `steps` of RK4, a multiple of 24; within one the rates are bounded
        by their larger end and a margin. The next candidate comes within the step, and is an event with
        the share of the bound that the rates have there; or it does not, and the next step begins. After
        `most` events the day ends.
        """

        def total(at: State, when: jax.Array) -> jax.Array:
            return jnp.exp(self.log_rates(params, at, when)).sum()

        def go_on(day: _Day) -> jax.Array:
            return (day.step < steps) & (day.number < most)

        def move(day: _Day) -> _Day:
            own = jax.random.fold_in(key, day.turn)
            waits, accepts, picks = jax.random.split(own, 3)
            when = when_of(params, weekday, day.step * 24 // steps)
            left = (day.step + 1) / steps - day.time
            end, _ = self.flow(params, day.state, when, left)
            bound = _MARGIN * jnp.maximum(total(day.state, when), total(end, when))
            wait = jax.random.exponential(waits) / bound
            over = ~(wait < left)  # also where it is no number, or the day would never end
            at, _ = self.flow(params, day.state, when, jnp.where(over, left, wait))
            log_rates = self.log_rates(params, at, when)
            happens = ~over & (jax.random.uniform(accepts) * bound < jnp.exp(log_rates).sum())
            event = jnp.where(happens, jax.random.categorical(picks, log_rates), -1)
            time = jnp.where(over, (day.step + 1) / steps, day.time + wait)
            put = jnp.where(happens, day.number, most)  # beyond the end it is dropped
            return _Day(
                self.jump(params, at, event),
                time,
                day.step + over,
                day.turn + 1,
                day.number + happens,
                day.times.at[put].set(time, mode="drop"),
                day.events.at[put].set(event, mode="drop"),
            )

        zero = jnp.zeros((), jnp.int32)
        events = jnp.full(most, -1, jnp.int32)
        day = _Day(state, jnp.zeros(()), zero, zero, zero, jnp.zeros(most), events)
        day = jax.lax.while_loop(go_on, move, day)
        return day.times, day.events, day.number


@functools.partial(jax.jit, static_argnames=("network", "steps", "most"))
def draw_days(  # noqa: PLR0913 (a batch of what `walk` and `simulate` take)
    network: Sand,
    params: Params,
    noise: jax.Array,
    past: Knots,
    weekday: jax.Array,
    keys: jax.Array,
    *,
    steps: int,
    most: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`Sand.simulate` of days [B] behind stretches [B, K], each by its own noise float[B, 4] and key."""

    def one(
        noise: jax.Array, past: Knots, weekday: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        state, _ = network.walk(params, noise, past)
        return network.simulate(params, state, weekday, key, steps=steps, most=most)

    return jax.vmap(one)(noise, past, weekday, keys)


class _Day(NamedTuple):
    """A day as far as it is drawn."""

    state: State
    time: jax.Array  # since midnight, days
    step: jax.Array  # of the grid
    turn: jax.Array  # of random numbers
    number: jax.Array  # of events so far
    times: jax.Array
    events: jax.Array


def when_of(params: Params, weekday: jax.Array, hour: jax.Array) -> jax.Array:
    """float[12]: what is told of the time."""
    return jnp.concatenate([params["weekday"][weekday], params["hour"][hour]])


def vector_of(state: State) -> jax.Array:
    """float[24]."""
    return jnp.concatenate([state.needs.ravel(), state.memory.ravel()])


def _slope(params: Params, state: State, when: jax.Array) -> State:
    spread = jnp.broadcast_to(when, (LEVELS, len(when)))
    given = jnp.concatenate([state.needs, state.memory, spread], axis=1)
    free = _bounded(jax.vmap(mlp)(params["flow"], given))
    length = jnp.sum(state.needs**2, axis=1, keepdims=True) + 1e-12
    along = jnp.sum(free * state.needs, axis=1, keepdims=True) / length * state.needs
    fade = _bounded(jax.nn.softplus(jax.vmap(mlp)(params["decay"], state.needs)))
    return State(free - along, -fade * state.memory)


def _bounded(rate: jax.Array) -> jax.Array:
    """The rate, per day, smoothly kept below `_FASTEST`: above 66 a step of RK4 over an hour diverges."""
    return _FASTEST * jnp.tanh(rate / _FASTEST)


# ------------------------------------------------------------------------------------------- layers


def mlp(params: Params, x: jax.Array) -> jax.Array:
    """Two hidden layers of 32, CELU: float[..., in] to float[..., out]."""
    for name in ("one", "two"):
        x = jax.nn.celu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def mlp_init(key: jax.Array, inputs: int, outputs: int) -> dict[str, Any]:
    """Parameters of `mlp`."""
    one, two, out = jax.random.split(key, 3)
    return {
        "one": _dense(one, inputs, _HIDDEN),
        "two": _dense(two, _HIDDEN, _HIDDEN),
        "out": _dense(out, _HIDDEN, outputs),
    }


def _dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, (inputs, outputs)) / np.sqrt(inputs)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def _by_level(key: jax.Array, inputs: int, outputs: int) -> dict[str, Any]:
    made: dict[str, Any] = jax.vmap(lambda k: mlp_init(k, inputs, outputs))(
        jax.random.split(key, LEVELS)
    )
    return made


def _table(key: jax.Array, rows: int, width: int) -> jax.Array:
    return jax.random.normal(key, (rows, width)) * 0.5
