"""Losses over multi-round dialogues: the round-balanced one (Eq. 5) and the token mean (Eq. 4).

Every loss is a pair (numerator, denominator) until after the sum over microbatches and devices, so
that value and gradient do not depend on packing, padding, accumulation or the mesh.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class DialogueLosses(NamedTuple):
    """Per dialogue slot [B * T]: mean over rounds of the mean nll; whether a dialogue is there."""

    value: jax.Array
    present: jax.Array
    task: jax.Array  # int32, of `tasks` if given, else 0


def _segment_sum(values: jax.Array, ids: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(values, ids, num_segments=ids.shape[0])


def dialogue_losses(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    tasks: jax.Array | None = None,
) -> DialogueLosses:
    """Eq. 5 for each dialogue: 1/N sum over rounds of 1/T_i sum over tokens of nll.

    nll: float[B, T]; round_ids, dialogue_ids, tasks: int32[B, T], aligned by target token. A round's
    key is (row, dialogue_id, round_id). T_i counts supervised tokens, the stop token included; N
    counts rounds with at least one. Tokens need not be contiguous.
    """
    b, t = nll.shape
    valid = (round_ids > 0) & (dialogue_ids > 0)
    dialogue, turn = jnp.where(valid, dialogue_ids, 0), jnp.where(valid, round_ids, 0)
    order = jnp.lexsort((turn, dialogue), axis=-1)

    def arranged(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, order, axis=1)

    dialogue, turn, valid = arranged(dialogue), arranged(turn), arranged(valid)
    nll = jnp.where(valid, arranged(nll), 0)  # unsupervised nll may be NaN or inf
    first = jnp.arange(t) == 0
    new_dialogue = first | (dialogue != jnp.roll(dialogue, 1, axis=1))
    new_round = new_dialogue | (turn != jnp.roll(turn, 1, axis=1))
    base = jnp.arange(b)[:, None] * t
    dialogue_slot = (jnp.cumsum(new_dialogue, axis=1) - 1 + base).reshape(-1)
    round_slot = (jnp.cumsum(new_round, axis=1) - 1 + base).reshape(-1)
    flat = valid.reshape(-1)

    tokens = _segment_sum(flat.astype(nll.dtype), round_slot)
    means = _segment_sum(nll.reshape(-1), round_slot) / jnp.maximum(tokens, 1)
    owner = jax.ops.segment_max(dialogue_slot, round_slot, num_segments=b * t)
    owner = jnp.where(tokens > 0, owner, b * t)  # empty slots belong to no dialogue
    rounds = _segment_sum_into((tokens > 0).astype(nll.dtype), owner, b * t)
    total = _segment_sum_into(means, owner, b * t)
    task = jnp.zeros(b * t, jnp.int32)
    if tasks is not None:
        of_token = jnp.where(flat, arranged(tasks).reshape(-1), 0)
        task = jnp.maximum(jax.ops.segment_max(of_token, dialogue_slot, num_segments=b * t), 0)
    return DialogueLosses(total / jnp.maximum(rounds, 1), rounds > 0, task)


def _segment_sum_into(values: jax.Array, ids: jax.Array, count: int) -> jax.Array:
    return jnp.zeros(count, values.dtype).at[ids].add(values, mode="drop")


def round_balanced_loss(
    nll: jax.Array, round_ids: jax.Array, dialogue_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Eq. 5: (sum over dialogues of the mean over rounds of the mean nll, number of dialogues).

    nll: float32[B, T]; round_ids (0 = not supervised) and dialogue_ids (0 = padding): int32[B, T],
    aligned by target token; a dialogue lies within one row. A dialogue without a supervised token
    adds to neither; a batch without any gives (0, 0).
    """
    losses = dialogue_losses(nll, round_ids, dialogue_ids)
    return jnp.sum(losses.value), jnp.sum(losses.present).astype(nll.dtype)


def token_mean_loss(
    nll: jax.Array, round_ids: jax.Array, dialogue_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The ablation of Eq. 4: (sum of nll, number of supervised tokens), over the whole batch.

    The paper's Eq. 4 is the token mean of one dialogue; here long dialogues also outweigh short ones.
    Arguments as in `round_balanced_loss`.
    """
    valid = (round_ids > 0) & (dialogue_ids > 0)
    return jnp.sum(jnp.where(valid, nll, 0)), jnp.sum(valid).astype(nll.dtype)


LOSSES = {"round_balanced": round_balanced_loss, "token_mean": token_mean_loss}


def by_group(nll: jax.Array, groups: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(sum of nll, tokens) per group id 0..count: groups int32[B, T] (0 = not supervised)."""
    flat = groups.reshape(-1)
    values = jnp.where(flat > 0, nll.reshape(-1), 0)
    ones = (flat > 0).astype(nll.dtype)
    return _segment_sum_into(values, flat, count + 1), _segment_sum_into(ones, flat, count + 1)


def by_task(losses: DialogueLosses, count: int) -> tuple[jax.Array, jax.Array]:
    """(sum of dialogue losses, dialogues) per task id 0..count."""
    ones = losses.present.astype(losses.value.dtype)
    return (
        _segment_sum_into(losses.value, losses.task, count + 1),
        _segment_sum_into(ones, losses.task, count + 1),
    )
