"""Losses over multi-round dialogues: the round-balanced one (Eq. 5) and the token mean (Eq. 4).

Every loss is a pair (numerator, denominator) until after the sum over microbatches and devices, so
that value and gradient do not depend on packing, padding, accumulation or the mesh.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class DialogueLosses(NamedTuple):
    """Loss of every dialogue in a batch, [B, T]; a row with k of them fills k slots."""

    value: jax.Array  # float: mean over rounds of the mean nll; 0 in empty slots
    present: jax.Array  # bool: whether the slot holds a supervised dialogue
    task: jax.Array  # int32: of `tasks` if given, else 0


def _total(values: jax.Array) -> jax.Array:
    """Sum of [B, T] by rows, then over rows: float32 loses less than in one long chain."""
    return jnp.sum(jnp.sum(values, axis=1))


def _sum_by(values: jax.Array, slots: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(values, slots, num_segments=len(slots))


def _row_losses(
    nll: jax.Array, round_ids: jax.Array, dialogue_ids: jax.Array, tasks: jax.Array
) -> DialogueLosses:
    """`dialogue_losses` of one row, all [T]. Rows stay apart, so nothing crosses devices."""
    valid = (round_ids > 0) & (dialogue_ids > 0)
    dialogue, turn = jnp.where(valid, dialogue_ids, 0), jnp.where(valid, round_ids, 0)
    order = jnp.lexsort((turn, dialogue))  # ids may be any numbers: give each key a slot below T
    dialogue, turn, valid = dialogue[order], turn[order], valid[order]
    new_dialogue = jnp.diff(dialogue, prepend=-1) != 0
    dialogue_slot = jnp.cumsum(new_dialogue) - 1
    round_slot = jnp.cumsum(new_dialogue | (jnp.diff(turn, prepend=-1) != 0)) - 1

    tokens = _sum_by(valid.astype(nll.dtype), round_slot)
    means = _sum_by(nll[order], round_slot) / jnp.maximum(tokens, 1)
    owner = jnp.zeros_like(round_slot).at[round_slot].set(dialogue_slot)
    rounds = _sum_by((tokens > 0).astype(nll.dtype), owner)
    value = _sum_by(means, owner) / jnp.maximum(rounds, 1)
    task = jnp.zeros_like(tasks).at[dialogue_slot].max(jnp.where(valid, tasks[order], 0))
    return DialogueLosses(value, rounds > 0, task)


def dialogue_losses(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    tasks: jax.Array | None = None,
) -> DialogueLosses:
    """Eq. 5 for each dialogue: 1/N sum over rounds of 1/T_i sum over tokens of nll.

    nll: float[B, T]; round_ids, dialogue_ids, tasks: int32[B, T], aligned by target token. A
    round's key is (row, dialogue_id, round_id). T_i counts supervised tokens, the stop token
    included; N counts rounds with at least one. Tokens need not be contiguous.
    """
    nll, round_ids, dialogue_ids = map(jnp.asarray, (nll, round_ids, dialogue_ids))
    tasks = jnp.zeros_like(round_ids) if tasks is None else jnp.asarray(tasks)
    nll = jnp.where((round_ids > 0) & (dialogue_ids > 0), nll, 0)  # may be NaN or inf elsewhere
    return jax.vmap(_row_losses)(nll, round_ids, dialogue_ids, tasks)


def _weighted(nll: jax.Array, valid: jax.Array, weights: jax.Array | None) -> jax.Array:
    nll = jnp.where(valid, nll, 0)
    return nll if weights is None else nll * jnp.where(valid, weights, 0).astype(nll.dtype)


def round_balanced_loss(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Eq. 5: (sum over dialogues of the mean over rounds of the mean nll, number of dialogues).

    nll: float32[B, T]; round_ids (0 = not supervised) and dialogue_ids (0 = padding): int32[B, T],
    aligned by target token; a dialogue lies within one row. A dialogue without a supervised token
    adds to neither; a batch without any gives (0, 0). `weights`: float[B, T], the same on all
    tokens of a dialogue or of a round (Appendix K); they multiply its part of the numerator alone.
    """
    nll, round_ids, dialogue_ids = map(jnp.asarray, (nll, round_ids, dialogue_ids))
    valid = (round_ids > 0) & (dialogue_ids > 0)
    losses = dialogue_losses(_weighted(nll, valid, weights), round_ids, dialogue_ids)
    return _total(losses.value), _total(losses.present.astype(nll.dtype))


def token_mean_loss(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The ablation of Eq. 4: (sum of nll, number of supervised tokens), over the whole batch.

    The paper's Eq. 4 is the token mean of one dialogue; here long dialogues also outweigh short
    ones.
    Arguments as in `round_balanced_loss`.
    """
    nll, round_ids, dialogue_ids = map(jnp.asarray, (nll, round_ids, dialogue_ids))
    valid = (round_ids > 0) & (dialogue_ids > 0)
    return _total(_weighted(nll, valid, weights)), _total(valid.astype(nll.dtype))


LOSSES = {"round_balanced": round_balanced_loss, "token_mean": token_mean_loss}


def _add_up(values: jax.Array, present: jax.Array, groups: jax.Array, count: int) -> jax.Array:
    """float[2, count + 1]: sum of values and number of them, per group id 0..count."""
    pairs = jnp.stack([jnp.where(present, values, 0), present.astype(values.dtype)])
    flat = pairs.reshape(2, -1)
    return jnp.zeros((2, count + 1), flat.dtype).at[:, groups.reshape(-1)].add(flat, mode="drop")


def by_group(nll: jax.Array, groups: jax.Array, count: int) -> jax.Array:
    """float[2, count + 1]: (sum of nll, tokens) per group; groups int32[B, T], 0 = none."""
    return _add_up(nll, groups > 0, groups, count)


def by_task(losses: DialogueLosses, count: int) -> jax.Array:
    """float[2, count + 1]: (sum of dialogue losses, dialogues) per task id 0..count."""
    return _add_up(losses.value, losses.present, losses.task, count)
