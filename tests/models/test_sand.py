"""SAND's policy: its likelihood by quadrature, drawn events against rates, a Poisson process."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from bua_jax.models.sand import SIZE, Knots, Sand, State, draw_days

NETWORK = Sand((0, 1, 2, 1))
HOURS, DAYS, MOST = 24, 400, 40


def params_of(seed: int) -> dict[str, Any]:
    made = NETWORK.init(jax.random.key(seed), np.asarray([2.0, 1.0, 3.0, 0.5]))
    return jax.tree.map(lambda x: np.asarray(x) * 1.5, made)


PARAMS = params_of(0)


def constant(rates: list[float]) -> dict[str, Any]:
    """Parameters at which nothing but these rates per day matters."""
    made = NETWORK.init(jax.random.key(1), np.asarray(rates))
    out = made["rates"]["out"]
    return {**made, "rates": {**made["rates"], "out": {**out, "kernel": 0 * out["kernel"]}}}


def day_of(times: list[float], events: list[int], weekday: int = 2) -> Knots:
    """A counted day with events at times of day; float64."""
    marks = sorted([*zip(times, events, strict=True), *((h / HOURS, -1) for h in range(1, 25))])
    ends = np.asarray([time for time, _ in marks])
    event = np.asarray([event for _, event in marks])
    hour = np.cumsum(event < 0) - (event < 0)
    return Knots(
        np.diff(ends, prepend=0), hour, np.full(len(hour), weekday), event, np.full(len(hour), True)
    )


# ------------------------------------------------------------------------------- by numpy and scipy


def mlp(p: Any, x: np.ndarray) -> np.ndarray:
    for name in ("one", "two"):
        x = x @ p[name]["kernel"] + p[name]["bias"]
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return x @ p["out"]["kernel"] + p["out"]["bias"]


def bounded(rate: np.ndarray) -> np.ndarray:
    return 48 * np.tanh(rate / 48)


def slope(p: Any, y: np.ndarray, when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d/dt of (c, h) float64[24], rates float64[C])."""
    c, h = y[:12].reshape(3, 4), y[12:].reshape(3, 4)
    dc, dh = np.zeros_like(c), np.zeros_like(h)
    for n in range(3):
        flow, decay = ({k: {q: v[n] for q, v in x.items()} for k, x in p[name].items()}
                       for name in ("flow", "decay"))  # fmt: skip
        free = bounded(mlp(flow, np.concatenate([c[n], h[n], when])))
        dc[n] = free - free @ c[n] / (c[n] @ c[n]) * c[n]
        dh[n] = -bounded(np.logaddexp(0, mlp(decay, c[n]))) * h[n]
    rates = np.logaddexp(0, mlp(p["rates"], np.concatenate([y, when])))
    return np.concatenate([dc.ravel(), dh.ravel()]), rates


def by_quadrature(p: Any, noise: np.ndarray, knots: Knots) -> float:
    """The log-likelihood with scipy's integrator, which chooses its own steps."""
    y, total = np.concatenate([mlp(p["start"], noise), np.zeros(12)]), 0.0
    for dt, hour, weekday, event, _ in zip(*knots, strict=True):
        when = np.concatenate([p["weekday"][weekday], p["hour"][hour]])

        def both(t: float, x: np.ndarray, when: np.ndarray = when) -> np.ndarray:
            moved, rates = slope(p, x[:24], when)
            return np.append(moved, rates.sum())

        done = integrate.solve_ivp(both, (0, dt), np.append(y, 0), rtol=1e-9, atol=1e-11)
        y, total = done.y[:24, -1], total - done.y[24, -1]
        if event >= 0:
            total += np.log(slope(p, y, when)[1][event])
            n = NETWORK.levels[event]
            given = np.concatenate([y[4 * n : 4 * n + 4], p["event"][event]])
            y[12 + 4 * n : 16 + 4 * n] += given @ p["jump"]["kernel"][n] + p["jump"]["bias"][n]
    return total


def test_the_likelihood_is_that_of_quadrature() -> None:
    knots = day_of([0.31, 0.33, 0.5, 0.8125], [2, 0, 3, 1])
    noise = np.asarray([0.3, -1.0, 0.5, 2.0])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
        found = jax.jit(Sand(NETWORK.levels, 8).log_likelihood)(params, noise, knots)
        assert found.dtype == np.float64
        expected = by_quadrature(params, noise, knots)
        assert float(found) == pytest.approx(expected, abs=1e-6)
        assert abs(expected) > 1
        read = knots._replace(counted=knots.counted & (np.cumsum(knots.dt) > 0.4))
        part = jax.jit(Sand(NETWORK.levels, 8).log_likelihood)(params, noise, read)
        assert abs(float(part) - expected) > 0.1  # what is only read is not counted


def test_needs_turn_and_memories_fade_and_jump() -> None:
    rng = np.random.default_rng(0)
    state = State(*rng.normal(size=(2, 3, 4)).astype(np.float32))
    when = rng.normal(size=12).astype(np.float32)
    flow = jax.jit(NETWORK.flow)
    after, _ = flow(PARAMS, state, when, 0.02)
    lengths = np.linalg.norm(after.needs, axis=1)
    # turned, not stretched: RK4's error over a fiftieth of a day
    np.testing.assert_allclose(lengths, np.linalg.norm(state.needs, axis=1), rtol=1e-3)
    assert np.abs(after.needs - state.needs).max() > 1e-3
    assert (np.abs(after.memory) < np.abs(state.memory)).all()
    jump = jax.jit(NETWORK.jump)
    jumped = jump(PARAMS, state, 3)
    changed = np.any(np.asarray(jumped.memory) != state.memory, axis=1)
    assert changed.tolist() == [False, True, False]  # its level is 1
    assert np.array_equal(jump(PARAMS, state, -1).memory, state.memory)


# -------------------------------------------------------------------------------------------- drawn


def drawn(params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(noise, times, events, numbers of events) of days of people of whom nothing is known."""
    count = DAYS
    noise = np.random.default_rng(3).normal(size=(count, SIZE)).astype(np.float32)
    nothing = Knots(*(np.zeros((count, 1), kind) for kind in (np.float32, int, int, int, bool)))
    nothing = nothing._replace(event=np.full((count, 1), -1))
    keys = jax.random.split(jax.random.key(5), count)
    weekday = np.full(count, 2)
    found = draw_days(NETWORK, params, noise, nothing, weekday, keys, steps=48, most=MOST)
    return noise, *map(np.asarray, found)


def test_constant_rates_are_a_poisson_process() -> None:
    """Numbers, shares and times of events within 5 standard errors, or p > 1e-4."""
    rates, count = np.asarray([2.0, 1.0, 3.0, 0.5]), DAYS
    _, times, events, counts = drawn(constant(rates.tolist()))
    inside = np.arange(MOST) < counts[:, None]
    number = counts.astype(float)
    assert abs(number.mean() - rates.sum()) < 5 * np.sqrt(rates.sum() / count)
    assert number.var() == pytest.approx(rates.sum(), rel=5 * np.sqrt(2 / count))
    found = np.bincount(events[inside], minlength=4)
    assert stats.chisquare(found, rates / rates.sum() * found.sum()).pvalue > 1e-4
    assert stats.kstest(times[inside], "uniform").pvalue > 1e-4
    assert (np.diff(np.where(inside, times, 1), axis=1) >= 0).all()
    assert (events[~inside] == -1).all()


def test_events_are_drawn_at_the_rates_that_the_likelihood_knows() -> None:
    """Events less the integral of all rates, and behaviours less their shares at events: sums are near 0.

    Both are martingales, of variances that are known: within 5 standard errors.
    """
    noise, times, events, counts = drawn(PARAMS)
    assert counts.max() < MOST
    assert counts.std() > 1
    days = []
    for time, event, n in zip(times.astype(float), events, counts, strict=True):
        knots = day_of(time[:n].tolist(), event[:n].tolist())
        fill = HOURS + MOST - len(knots.dt)
        parts = zip(
            knots, (0.0, 0, 0, -1, False), Knots(np.float32, int, int, int, bool), strict=True
        )
        days.append([np.append(x, np.full(fill, v)).astype(kind) for x, v, kind in parts])
    knots = Knots(*(np.stack(x) for x in zip(*days, strict=True)))
    _, found = jax.jit(jax.vmap(NETWORK.walk, (None, 0, 0)))(PARAMS, noise, knots)
    expected = float(np.sum(found.expected))
    assert abs(counts.sum() - expected) < 5 * np.sqrt(expected)
    happens = knots.event >= 0
    rates = np.exp(np.asarray(found.log_rates, float))[happens]
    shares = rates / rates.sum(1, keepdims=True)
    assert shares.std(0).min() > 0.01  # they are not the same all the time
    missed = np.eye(4)[knots.event[happens]] - shares
    assert (np.abs(missed.sum(0)) < 5 * np.sqrt((shares * (1 - shares)).sum(0))).all()


def test_a_day_ends_after_the_most_events() -> None:
    _, times, events, counts = drawn(constant([90.0, 90.0, 90.0, 90.0]))
    assert (counts == MOST).all()
    assert (events >= 0).all()
    assert times.max() < 0.3


def test_states_stay_finite_however_fast_they_would_change() -> None:
    """RK4 over hours, of a memory that fades 5,000 times a day and needs that turn as fast."""
    fast = jax.tree.map(jnp.asarray, PARAMS)
    for name, bias in (("flow", 0.0), ("decay", 5000.0)):
        out = fast[name]["out"]
        fast[name] = {
            **fast[name],
            "out": {"kernel": out["kernel"] * 1000, "bias": out["bias"] + bias},
        }
    days = [day_of([0.2, 0.31, 0.32, 0.7], [0, 1, 2, 3], weekday) for weekday in range(7)]
    week = Knots(*(np.concatenate(parts) for parts in zip(*days, strict=True)))
    week = week._replace(dt=week.dt.astype(np.float32))
    noise = np.ones(SIZE, np.float32)
    value, slopes = jax.value_and_grad(NETWORK.log_likelihood)(fast, noise, week)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    _, found = NETWORK.walk(fast, noise, week)
    assert np.abs(found.states).max() < 1000
