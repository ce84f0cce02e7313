"""Losses over multi-round dialogues: Eq. 5, Eq. 4, the family between them, and the mean over kinds.

Every loss is a pair (numerator, denominator) until after the sum over microbatches and devices, so
that value and gradient do not depend on packing, padding, accumulation or the mesh. What a token counts
in it follows from ids alone: its share is counted first, for the whole batch, and the numerator is linear.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bua_jax.dialogue.rounds import ROUND_KINDS


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


class _Slots(NamedTuple):
    """The tokens of a row in the order of their dialogues and rounds, all [T]."""

    order: jax.Array  # int: places in the row
    valid: jax.Array  # bool: supervised
    dialogue: jax.Array  # int: slot below T of the token's dialogue
    turn: jax.Array  # int: slot below T of its round
    first: jax.Array  # bool: whether it begins a round


def _slots(round_ids: jax.Array, dialogue_ids: jax.Array) -> _Slots:
    """Ids may be any numbers: each key has a slot below T."""
    valid = (round_ids > 0) & (dialogue_ids > 0)
    dialogue, turn = jnp.where(valid, dialogue_ids, 0), jnp.where(valid, round_ids, 0)
    order = jnp.lexsort((turn, dialogue))
    dialogue, turn = dialogue[order], turn[order]
    new_dialogue = jnp.diff(dialogue, prepend=-1) != 0
    first = new_dialogue | (jnp.diff(turn, prepend=-1) != 0)
    return _Slots(order, valid[order], jnp.cumsum(new_dialogue) - 1, jnp.cumsum(first) - 1, first)


def _row_losses(
    nll: jax.Array, round_ids: jax.Array, dialogue_ids: jax.Array, tasks: jax.Array
) -> DialogueLosses:
    """`dialogue_losses` of one row, all [T]. Rows stay apart, so nothing crosses devices."""
    order, valid, dialogue_slot, round_slot, _ = _slots(round_ids, dialogue_ids)
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


# ------------------------------------------------------------------------------------- reductions


class Reduction(NamedTuple):
    """How the tokens of a batch become its loss.

    `dialogues`: mean over dialogues of sum_i u_i T_i^-beta sum_t nll / sum_i u_i T_i^(1 - beta), with T_i the
    tokens of round i and u_i the static weight of its kind. `batch`: one such fraction of the whole batch.
    `kinds`: mean, weighted by u, over the kinds in the batch of the mean over their tokens.
    """

    over: Literal["dialogues", "batch", "kinds"]
    beta: float | None = 0.0  # None: the config's


LOSSES: dict[str, Reduction] = {
    "round_balanced": Reduction("dialogues", 1.0),  # Eq. 5
    "dialogue_token_mean": Reduction("dialogues", 0.0),  # Eq. 4 of each dialogue
    "dialogue_family": Reduction("dialogues", None),
    "token_mean": Reduction("batch", 0.0),
    "batch_family": Reduction("batch", None),
    "kind_mean": Reduction("kinds"),
}
"""What a stage's `loss` may be."""


class Counted(NamedTuple):
    """What a batch's tokens count: its loss is sum(shares x nll) / sum(denominators)."""

    shares: jax.Array  # float[B, T]; 0 where nothing is supervised
    denominators: jax.Array  # float[B], of rows; 0 in all of them where nothing counts


def _row_counted(
    round_ids: jax.Array, dialogue_ids: jax.Array, static: jax.Array, over: str, beta: float
) -> tuple[jax.Array, jax.Array]:
    """(shares [T], denominator []) of one row for `dialogues` and `batch`."""
    order, valid, dialogue, turn, first = _slots(round_ids, dialogue_ids)
    static = jnp.where(valid, static[order], 0)
    power = int(beta) if beta == int(beta) else beta  # whole powers are exact
    size = jnp.maximum(_sum_by(valid.astype(static.dtype), turn)[turn], 1)
    shares = static / size**power
    rounds = _sum_by(jnp.where(first, static * size / size**power, 0), dialogue)
    if over == "dialogues":
        whole = rounds[dialogue]
        shares = shares / jnp.where(whole > 0, whole, 1)
        rounds = (rounds > 0).astype(static.dtype)
    return jnp.zeros_like(shares).at[order].set(shares), jnp.sum(rounds)


def count(
    name: str,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    kinds: jax.Array | None = None,
    *,
    beta: float = 1.0,
    static: jax.typing.ArrayLike | None = None,
) -> Counted:
    """What each token of a whole batch counts in the loss `name` of `LOSSES`.

    round_ids (0 = not supervised), dialogue_ids (0 = padding), kinds (0 = none): int32[B, T], aligned by
    target token; a dialogue lies within one row, a round is of one kind. A round's key is (row,
    dialogue_id, round_id); T_i counts its supervised tokens, the stop token included. beta: of a family.
    static: float[kinds + 1], weights by kind, in numerator and denominator: they shift shares, and the
    loss stays a mean. What weighs nothing counts in no mean.
    """
    over, own = LOSSES[name]
    round_ids, dialogue_ids = jnp.asarray(round_ids), jnp.asarray(dialogue_ids)
    kinds = jnp.zeros_like(round_ids) if kinds is None else jnp.asarray(kinds)
    table = jnp.ones(1) if static is None else jnp.asarray(static, float)
    weights = jnp.take(table, kinds, mode="clip")
    if over == "kinds":
        return _counted_by_kind((round_ids > 0) & (dialogue_ids > 0), kinds, weights)

    of_row = functools.partial(_row_counted, over=over, beta=beta if own is None else own)
    return Counted(*jax.vmap(of_row)(round_ids, dialogue_ids, weights))


def _counted_by_kind(valid: jax.Array, kinds: jax.Array, weights: jax.Array) -> Counted:
    """A token of kind k counts u_k / n_k, times all tokens that count over the sum of u of the kinds."""
    known = len(ROUND_KINDS) + 1
    counts = valid & (weights > 0)
    number = jnp.zeros(known).at[kinds].add(counts)
    of_kind = jnp.zeros(known).at[kinds].max(jnp.where(counts, weights, 0))
    scale = jnp.sum(number) / jnp.maximum(jnp.sum(of_kind), jnp.finfo(weights.dtype).tiny)
    shares = jnp.where(counts, weights / jnp.maximum(number, 1)[kinds] * scale, 0)
    return Counted(shares, jnp.sum(counts, axis=1).astype(weights.dtype))


def numerator(nll: jax.Array, counted: Counted, weights: jax.Array | None = None) -> jax.Array:
    """Sum of shares x nll, both [B, T]; nll may be NaN where nothing is supervised.

    weights: float[B, T], the same on all tokens of a unit; they multiply its part of the numerator alone.
    """
    nll = jnp.where(counted.shares > 0, nll, 0)
    shares = counted.shares if weights is None else counted.shares * weights
    return _total(nll * jnp.where(counted.shares > 0, shares, 0).astype(nll.dtype))


def round_balanced_loss(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Eq. 5: (sum over dialogues of the mean over rounds of the mean nll, number of dialogues).

    nll: float[B, T]; round_ids (0 = not supervised) and dialogue_ids (0 = padding): int32[B, T], aligned by
    target token; a dialogue lies within one row. A batch without a supervised token gives (0, 0). weights:
    float[B, T], the same on all tokens of a dialogue or of a round; they multiply its part of the numerator
    alone.
    """
    return _pair("round_balanced", nll, round_ids, dialogue_ids, weights)


def token_mean_loss(
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Eq. 4 over the whole batch: (sum of nll, number of supervised tokens); see `round_balanced_loss`."""
    return _pair("token_mean", nll, round_ids, dialogue_ids, weights)


def _pair(
    name: str,
    nll: jax.Array,
    round_ids: jax.Array,
    dialogue_ids: jax.Array,
    weights: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """(numerator, denominator) of a loss of `LOSSES` without static weights."""
    counted, nll = count(name, round_ids, dialogue_ids), jnp.asarray(nll)
    return numerator(nll, counted, weights), jnp.sum(counted.denominators)


# ----------------------------------------------------------------------------------------- sums by id


def _add_up(values: jax.Array, present: jax.Array, ids: jax.Array, count: int) -> jax.Array:
    """float[2, count + 1]: sum of values and number of them, per id 0..count."""
    pairs = jnp.stack([jnp.where(present, values, 0), present.astype(values.dtype)])
    flat = pairs.reshape(2, -1)
    return jnp.zeros((2, count + 1), flat.dtype).at[:, ids.reshape(-1)].add(flat, mode="drop")


def by_id(nll: jax.Array, ids: jax.Array, count: int) -> jax.Array:
    """float[2, count + 1]: (sum of nll, tokens) per id; ids int32[B, T], 0 = none."""
    return _add_up(nll, ids > 0, ids, count)


def by_task(losses: DialogueLosses, count: int) -> jax.Array:
    """float[2, count + 1]: (sum of dialogue losses, dialogues) per task id 0..count."""
    return _add_up(losses.value, losses.present, losses.task, count)


def by_unit(nll: jax.Array, counted: Counted, ids: jax.Array, count: int) -> jax.Array:
    """float[2, count]: (sum of shares x nll, sum of shares) per unit id; ids: int32[B, T].

    Units' losses, the quotients, weighed by the second sum over the loss's denominator, add up to the
    loss: Eq. 5 is sum_k p_k l_k with p_k the mean over dialogues of the share of rounds of kind k.
    """
    shares = counted.shares.astype(nll.dtype)
    pairs = jnp.stack([jnp.where(shares > 0, nll, 0) * shares, shares]).reshape(2, -1)
    return jnp.zeros((2, count), pairs.dtype).at[:, ids.reshape(-1)].add(pairs, mode="drop")
