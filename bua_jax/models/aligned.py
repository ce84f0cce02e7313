"""Encoder, projector, language model and adapter as one model: the only file that knows all four.

Variables are one dict of parts: "encoder", "projector", "base" (the language model's own weights)
and "adapter" (LoRA). What is trained is the caller's choice of parts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.dialogue.prompts import WITHOUT_ENCODER
from bua_jax.models import lora
from bua_jax.models.encoders.base import encode_events
from bua_jax.models.qwen2 import Qwen2

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
TokenLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits float32[..., V], supervised tokens int32[...]) -> their losses float32[...]."""


@dataclass(frozen=True)
class Aligned:
    """Static description of the composed model.

    `soft_tokens`: "sequence" = one per event from the encoder's penultimate states (Eq. 1), "item" =
    from its non-contextual embeddings (Table 4), "pooled" = one per history (its last state), "none" and
    "text" (the history in words) have none, and may have no encoder; "both" = an item and a state of each
    event, that index i and -1 - i stand for (`alignment.hybrid`). `soft_id` is the token id whose
    positions they fill; `recall` says of how many of the last events the final user turn has a second
    one, by a projection of its own. `merge_adapter`: training multiplies the adapter into the base's
    kernels once per step instead of beside each of them; same maths, fewer skinny products.
    """

    llm: Qwen2
    encoder: nn.Module | None
    projector: nn.Module
    soft_tokens: str
    soft_id: int
    merge_adapter: bool = False
    recall: int = 0


def merged(model: Aligned, variables: Variables) -> dict[str, Any]:
    """Variables without an adapter, whose base has it in its kernels."""
    assert model.llm.lora is not None
    rest = {name: value for name, value in variables.items() if name != "adapter"}
    return {**rest, "base": lora.merge(variables["base"], variables["adapter"], model.llm.lora)}


def _llm(model: Aligned, variables: Variables, method: str, *args: Any) -> Any:
    """Applies a method of the language model with base and adapter."""
    both = {"params": variables["base"], "lora": variables.get("adapter", {})}
    return model.llm.apply(both, *args, method=method)


def soft_token_vectors(
    model: Aligned,
    variables: Variables,
    events: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    """Projected events float32[B, S, H]; in "pooled" mode all of a segment are its last one's.

    With `recall` their second projections follow: [B, 2 S, H]. In "both" mode these are all items, and then
    all states, by parameters of their own where there are some.
    """
    assert model.encoder is not None
    params, project = variables["projector"], model.projector.apply
    if model.soft_tokens == "both":
        room: Any = model.encoder
        within = jnp.minimum(positions, room.config.max_events - 1)  # a candidate follows the last
        found = encode_events(model.encoder, variables["encoder"], events, segments, within)
        parts = {"item": found.items, "user": found.states}
        both: Any = [project({"params": params.get(n, params)}, x) for n, x in parts.items()]
        return jnp.concatenate(both, axis=1)
    output = encode_events(model.encoder, variables["encoder"], events, segments, positions)
    states = output.items if model.soft_tokens == "item" else output.states
    if model.soft_tokens == "pooled":
        following = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)))
        size = segments.shape[1]
        ends = jnp.where(segments != following, jnp.arange(size), size - 1)
        last = jax.lax.cummin(ends, axis=1, reverse=True)
        states = jnp.take_along_axis(states, last[:, :, None], axis=1)
    projected: Any = project({"params": params}, states)
    if not model.recall:
        return projected
    second: Any = project({"params": params["recalled"]}, states)
    return jnp.concatenate([projected, second], axis=1)


def insert_soft_tokens(
    model: Aligned, batch: Batch, embeddings: jax.Array, soft: jax.Array
) -> jax.Array:
    """Puts the soft token of event soft_index[b, t] in the place of placeholder t: [B, T, H].

    soft: of `soft_token_vectors`; an index -1 - event means that event's second one.
    """
    is_soft = batch["tokens"] == model.soft_id
    index = jnp.where(is_soft, batch["soft_index"], 0)
    index = jnp.where(index < 0, soft.shape[1] // 2 - 1 - index, index)
    vectors = jnp.take_along_axis(soft, index[:, :, None], axis=1).astype(embeddings.dtype)
    return jnp.where(is_soft[:, :, None], vectors, embeddings)


def input_embeddings(model: Aligned, variables: Variables, batch: Batch) -> jax.Array:
    """Token embeddings [B, T, H] with soft tokens in their places."""
    embeddings = _llm(model, variables, "embed", batch["tokens"])
    if model.soft_tokens in WITHOUT_ENCODER:
        return embeddings
    soft = soft_token_vectors(
        model, variables, batch["events"], batch["event_segments"], batch["event_positions"]
    )
    return insert_soft_tokens(model, batch, embeddings, soft)


def embed(model: Aligned, variables: Variables, tokens: jax.Array) -> jax.Array:
    """Embeddings of plain tokens int32[B, T] -> [B, T, H]."""
    return _llm(model, variables, "embed", tokens)


def hidden(
    model: Aligned,
    variables: Variables,
    embeddings: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    """`Qwen2.hidden` with base and adapter."""
    return _llm(model, variables, "hidden", embeddings, positions, segments)


def unembed(model: Aligned, variables: Variables, states: jax.Array) -> jax.Array:
    """[..., H] -> logits float32[..., V]."""
    return _llm(model, variables, "unembed", states)


def supervised_nll(
    model: Aligned,
    variables: Variables,
    batch: Batch,
    *,
    room: int,
    chunk: int,
    loss: TokenLoss | None = None,
) -> jax.Array:
    """Negative log-likelihood of every supervised token, float32[B, T], aligned by target token.

    loss: another one of each of them.

    Supervised positions (round_ids > 0) are gathered before the vocabulary projection, which runs
    under remat on `chunk` positions of every row at a time (design, decision 4). Rows are gathered
    each for itself, so that on a mesh no hidden state leaves its device. A row has at most `room`
    of them; if one has more, every value is NaN, so that the loss cannot silently leave tokens out.
    """
    if model.merge_adapter:
        variables = merged(model, variables)
    tokens = batch["tokens"]
    embeddings = input_embeddings(model, variables, batch)
    states = hidden(model, variables, embeddings, batch["positions"], batch["segments"])
    before = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))  # state that predicts token t
    wanted = batch["round_ids"] > 0
    rows, length = wanted.shape
    chunks = -(-min(room, length) // chunk)
    index = jnp.argsort(~wanted, axis=1, stable=True)[:, : chunks * chunk]  # wanted ones first
    index = jnp.pad(index, ((0, 0), (0, chunks * chunk - index.shape[1])), constant_values=length)

    def gathered(values: jax.Array) -> jax.Array:
        """[B, T, ...] at index, by chunk: [chunks, B, chunk, ...]."""
        at = index.reshape(*index.shape, *[1] * (values.ndim - 2))
        some = jnp.take_along_axis(values, at, axis=1, mode="fill", fill_value=0)
        return some.reshape(rows, chunks, chunk, *values.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def nll_of(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (loss or cross_entropy)(unembed(model, variables, part[0]), part[1])

    values = jax.lax.map(nll_of, (gathered(before), gathered(tokens)))
    values = values.swapaxes(0, 1).reshape(rows, -1)
    nll = jnp.zeros(wanted.shape, values.dtype)
    nll = nll.at[jnp.arange(rows)[:, None], index].set(values, mode="drop")
    overflow = jnp.where(jnp.any(wanted.sum(1) > index.shape[1]), jnp.nan, 0.0)
    return jnp.where(wanted, nll, 0.0) + overflow


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: float32[..., V], int32[...] -> float32[...]."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked
