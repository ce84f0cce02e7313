"""SAND's adversarial training: GAIL (Ho & Ermon, 2016) with PPO (Schulman et al., 2017).

A round draws days from the policy behind real people's days, a discriminator tells them from the real ones,
and PPO moves the policy to where it cannot: the reward of an event is log D. As published the policy's
likelihood is that of the behaviour, given that something happens at that time: nothing here holds the rate at
which anything happens to what pretraining has taught, and it drifts.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.console import notice
from bua_jax.basics.errors import Interrupted
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.models.sand import LEVELS, SIZE, Knots, Sand, draw_days, mlp, mlp_init, when_of
from bua_jax.training import checkpoint
from bua_jax.training.generators.sand import Reading
from bua_jax.training.generators.sand_days import Known
from bua_jax.training.loop import TrainingStopped

_GAMMA, _LAMBDA, _CLIP, _EPOCHS, _VALUE = 0.99, 0.95, 0.2, 8, 0.5
_EVERY, _TIMES = 5, 4  # rounds between, and steps of, the discriminator's training
_RATE, _DECAY, _NORM, _JUDGES = 3e-4, 1e-7, 2.0, 1e-4  # PPO's rate, decay, clip; D's rate
_KEPT = 10  # rounds between checkpoints
_WIDTH = 4 + 8 + 1 + 4 + 8  # need, behaviour, interval, weekday, hour


@dataclass(frozen=True)
class GailSettings:
    """How long, and how many days in a round; the rest is as published."""

    rounds: int = 60
    batch: int = 64
    steps: int = 240  # of a day that is drawn
    seed: int = 42


class Acts(NamedTuple):
    """Events of days, [B, M] each; where not `there` they are filler."""

    behaviour: np.ndarray
    hour: np.ndarray
    weekday: np.ndarray
    interval: np.ndarray  # since the event before it, or midnight; days
    at: np.ndarray  # stretch of `Knots` that it ends
    there: np.ndarray


def acts_of(knots: Knots, most: int) -> Acts:
    """The events of the counted days of knots [B, K]."""
    counted = np.asarray(knots.counted & (knots.event >= 0))
    order = np.argsort(~counted, axis=1, kind="stable")[:, :most]
    there = np.take_along_axis(counted, order, axis=1)
    clock = np.cumsum(np.where(knots.counted, knots.dt, 0), axis=1)

    def of(x: np.ndarray) -> np.ndarray:
        return np.where(there, np.take_along_axis(np.asarray(x), order, axis=1), 0)

    time = of(clock)
    before = np.pad(time, ((0, 0), (1, 0)))[:, :-1]
    interval = np.where(there, time - before, 0).astype(np.float32)
    return Acts(of(knots.event), of(knots.hour), of(knots.weekday), interval, order, there)


# ------------------------------------------------------------------------------------ discriminator


def discriminator(key: jax.Array, classes: int) -> dict[str, Any]:
    """Parameters of `judged`."""
    keys = iter(jax.random.split(key, 8))

    def table(rows: int, width: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, width)) * 0.5

    return {
        "need": table(LEVELS, 4),
        "event": table(classes, 8),
        "weekday": table(7, 4),
        "hour": table(24, 8),
        "query": table(_WIDTH, 16) / np.sqrt(_WIDTH),
        "key": table(_WIDTH, 16) / np.sqrt(_WIDTH),
        "out": mlp_init(next(keys), 2 * _WIDTH, 1),
    }


def judged(params: Mapping[str, Any], levels: tuple[int, ...], acts: Acts) -> jax.Array:
    """float[B, M]: log-odds that each event, after those before it on its day, is a real person's.

    The past is pooled by attention from the event at hand; of a first event it is nothing.
    """
    need = params["need"][jnp.asarray(levels)[acts.behaviour]]
    parts = (
        need,
        params["event"][acts.behaviour],
        jnp.asarray(acts.interval)[..., None],
        params["weekday"][acts.weekday],
        params["hour"][acts.hour],
    )
    each = jnp.concatenate(parts, axis=-1)
    scores = jnp.einsum("bid,bjd->bij", each @ params["query"], each @ params["key"]) / 4
    size = each.shape[1]
    before = (jnp.arange(size)[:, None] > jnp.arange(size)) & jnp.asarray(acts.there)[:, None]
    weights = jax.nn.softmax(jnp.where(before, scores, -1e9)) * before
    past = jnp.einsum("bij,bjd->bid", weights, each)
    return mlp(params["out"], jnp.concatenate([past, each], axis=-1))[..., 0]


def judging_loss(params: Any, levels: tuple[int, ...], real: Acts, made: Acts) -> jax.Array:
    """Binary cross-entropy over events: those of real days are 1, those of drawn ones 0."""

    def mean(acts: Acts, sign: int) -> jax.Array:
        losses = jax.nn.softplus(-sign * judged(params, levels, acts))
        return jnp.sum(losses * acts.there) / jnp.maximum(jnp.sum(acts.there), 1)

    return mean(real, 1) + mean(made, -1)


# ---------------------------------------------------------------------------------------------- PPO


def advantages(
    rewards: jax.Array, values: jax.Array, there: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(generalised advantages, returns) float[B, M] of events in their order; after the last is nothing."""
    after = jnp.pad(values * there, ((0, 0), (0, 1)))[:, 1:]
    delta = (rewards + _GAMMA * after - values) * there

    def back(later: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = one + _GAMMA * _LAMBDA * later
        return now, now

    _, found = jax.lax.scan(back, jnp.zeros(len(delta)), delta.T, reverse=True)
    return found.T * there, found.T + values


def acted(
    network: Sand, actor: Any, noise: jax.Array, knots: Knots, acts: Acts
) -> tuple[jax.Array, jax.Array]:
    """(log p of each behaviour given its time, value of the state before it), float[B, M] each."""
    walk = functools.partial(network.walk, actor["policy"])
    _, found = jax.vmap(walk)(noise, knots)
    at = jnp.asarray(acts.at)[..., None]
    log_rates, states = (
        jnp.take_along_axis(x, at, axis=1) for x in (found.log_rates, found.states)
    )
    log_p = jax.nn.log_softmax(log_rates)
    own = jnp.take_along_axis(log_p, jnp.asarray(acts.behaviour)[..., None], -1)[..., 0]
    whens = jax.vmap(jax.vmap(functools.partial(when_of, actor["policy"])))
    when = whens(jnp.asarray(acts.weekday), jnp.asarray(acts.hour))
    given = jax.lax.stop_gradient(jnp.concatenate([states, when], axis=-1))
    return own, mlp(actor["value"], given)[..., 0]


def clipped(new: jax.Array, old: jax.Array, gain: jax.Array, there: jax.Array) -> jax.Array:
    """PPO's surrogate as a loss: the mean over events of -min(r A, clip(r) A), r of log p new and old."""
    ratio = jnp.exp(jnp.where(there, new - old, 0))
    low = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - _CLIP, 1 + _CLIP) * gain)
    return -jnp.sum(low * there) / jnp.maximum(jnp.sum(there), 1)


class Adversaries:
    """Policy and discriminator, and a round of theirs as a pure function of their state and its number."""

    def __init__(
        self, network: Sand, known: list[Known], reading: Reading, settings: GailSettings
    ) -> None:
        self.network, self.known, self.reading, self.settings = network, known, reading, settings
        self.actor_tx = optax.chain(
            optax.clip_by_global_norm(_NORM), optax.adamw(_RATE, weight_decay=_DECAY)
        )
        self.judge_tx = optax.adam(_JUDGES)
        self._improve, self._tell = jax.jit(self._improved), jax.jit(self._told_apart)

    def begun(self, policy: Any) -> dict[str, Any]:
        """The state before the first round."""
        value, judge = jax.random.split(jax.random.key(self.settings.seed))
        actor = {"policy": policy, "value": mlp_init(value, 2 * LEVELS * SIZE + 12, 1)}
        judges = discriminator(judge, self.network.classes)
        state = {
            "actor": actor,
            "actor_tx": self.actor_tx.init(actor),
            "judge": judges,
            "judge_tx": self.judge_tx.init(judges),
        }
        return jax.tree.map(jnp.asarray, state)

    def round(self, state: dict[str, Any], number: int) -> dict[str, Any]:
        """After one more round."""
        rng = np.random.default_rng([self.settings.seed, number])
        real = [self.known[i] for i in rng.integers(0, len(self.known), self.settings.batch)]
        noise = rng.normal(size=(len(real), SIZE)).astype(np.float32)
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), len(real))
        past = self.reading.knots(real, whole=False)
        weekday = np.asarray([one.weekday for one in real])
        how = {"steps": self.settings.steps, "most": self.reading.most}
        policy = state["actor"]["policy"]
        drawn = draw_days(self.network, policy, noise, past, weekday, keys, **how)
        times, events, counts = map(np.asarray, drawn)
        made = [
            one._replace(time=t[:n].astype(float), behaviour=e[:n])
            for one, t, e, n in zip(real, times, events, counts, strict=True)
        ]
        knots = self.reading.knots(made, whole=True)
        acts = acts_of(knots, self.reading.most)
        if number % _EVERY == 0:
            shown = acts_of(self.reading.knots(real, whole=True), self.reading.most)
            state = self._tell(state, shown, acts)
        return self._improve(state, noise, knots, acts)

    def _told_apart(self, state: dict[str, Any], real: Acts, made: Acts) -> dict[str, Any]:
        judge, moments = state["judge"], state["judge_tx"]
        for _ in range(_TIMES):
            gradient = jax.grad(judging_loss)(judge, self.network.levels, real, made)
            change, moments = self.judge_tx.update(gradient, moments)
            judge = optax.apply_updates(judge, change)
        return {**state, "judge": judge, "judge_tx": moments}

    def _improved(
        self, state: dict[str, Any], noise: jax.Array, knots: Knots, acts: Acts
    ) -> dict[str, Any]:
        there = jnp.asarray(acts.there)
        odds = judged(state["judge"], self.network.levels, acts)
        old, values = acted(self.network, state["actor"], noise, knots, acts)
        gain, returns = advantages(jax.nn.log_sigmoid(odds), values, there)
        count = jnp.maximum(there.sum(), 1)
        mean = jnp.sum(gain * there) / count
        spread = jnp.sqrt(jnp.sum((gain - mean) ** 2 * there) / count) + 1e-8
        gain = (gain - mean) / spread

        def loss(actor: Any) -> jax.Array:
            new, value = acted(self.network, actor, noise, knots, acts)
            missed = jnp.sum((value - returns) ** 2 * there) / count
            return clipped(new, old, gain, there) + _VALUE * missed

        def epoch(_: int, at: tuple[Any, Any]) -> tuple[Any, Any]:
            actor, moments = at
            change, moments = self.actor_tx.update(jax.grad(loss)(actor), moments, actor)
            return optax.apply_updates(actor, change), moments

        actor, moments = jax.lax.fori_loop(0, _EPOCHS, epoch, (state["actor"], state["actor_tx"]))
        return {**state, "actor": actor, "actor_tx": moments}


class _Nothing:
    """A position in data, of rounds that are functions of their number."""

    def get_state(self) -> dict[str, Any]:
        return {}


def play(adversaries: Adversaries, policy: Any, folder: Path, identity: Mapping[str, Any]) -> Any:
    """The policy after all rounds; what is in `folder` is gone on with.

    identity: of all that they depend on. Raises `Interrupted` after the round at hand on SIGTERM or Ctrl-C,
    `TrainingStopped` for a policy that is not finite, and as `training.checkpoint.restore` does.
    """
    rounds, turn = adversaries.settings.rounds, adversaries.round
    manager = checkpoint.open_manager(folder)
    done, state = checkpoint.restore(manager, adversaries.begun(policy), None, identity)
    with asked_to_stop("the round at hand") as asked:
        for number in range(done, rounds):
            state = turn(state, number)
            last = number + 1 == rounds
            if asked or last or (number + 1) % _KEPT == 0:
                checkpoint.save(manager, number + 1, state, _Nothing(), identity)
                notice(f"sand: round {number + 1} of {rounds} against the discriminator")
            if asked and not last:
                raise Interrupted(
                    asked[0],
                    f"{number + 1} of {rounds} rounds are kept in {folder}. Run the same command again "
                    "to go on after them.",
                )
    trained = jax.device_get(state["actor"]["policy"])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained)):
        raise TrainingStopped(
            f"SAND's policy is not finite after {rounds} rounds against its discriminator. Set "
            "--config.methods.sand.gail=False, or fewer --config.methods.sand.rounds."
        )
    return trained
