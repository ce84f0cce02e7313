"""Exact label scoring: all labels as one prefix tree in one forward (design, decision 10).

A node is a token of a label; it attends to the prompt and to its ancestors. The stop token that ends
a label is read off the label's last node, so it needs no node: log p(label) is the sum of the log
probabilities along the path, the stop token included, which makes the labels prefix-free.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.decoding.cache import DecodingState
from bua_jax.models import aligned
from bua_jax.models.aligned import Aligned


@dataclass(frozen=True)
class LabelTree:
    """Nodes in an order where parents come first; parent -1 is the prompt."""

    tokens: np.ndarray  # int32[M]
    parents: np.ndarray  # int32[M]
    depth: np.ndarray  # int32[M], 0 for children of the prompt
    ancestors: np.ndarray  # bool[M, M]: [i, j] = j is i or above it
    leaves: np.ndarray  # int32[C], the last node of each label


def build_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """The prefix tree of tokenised labels (without the stop token). Raises `ValueError` if one is empty."""
    nodes: dict[tuple[int, ...], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depth: list[int] = []
    leaves: list[int] = []
    for label in labels:
        if not label:
            raise ValueError("A label has no tokens.")
        for end in range(1, len(label) + 1):
            path = tuple(label[:end])
            if path not in nodes:
                nodes[path] = len(tokens)
                tokens.append(path[-1])
                parents.append(nodes.get(path[:-1], -1))
                depth.append(end - 1)
        leaves.append(nodes[tuple(label)])
    count = len(tokens)
    ancestors = np.eye(count, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            ancestors[node] |= ancestors[parent]
    return LabelTree(
        np.asarray(tokens, np.int32),
        np.asarray(parents, np.int32),
        np.asarray(depth, np.int32),
        ancestors,
        np.asarray(leaves, np.int32),
    )


@functools.partial(jax.jit, static_argnames=("model", "stop"))
def _score(model, variables, state: DecodingState, tokens, parents, depth, ancestors, leaves, stop):
    batch, count = state.lengths.shape[0], tokens.shape[0]
    slots = state.cache.k.shape[3]
    index = state.lengths[:, None] + jnp.arange(count)
    node = jnp.arange(slots) - state.lengths[:, None]  # [B, S]: which node a slot holds
    in_tree = (node >= 0) & (node < count)
    above = ancestors[:, jnp.clip(node, 0, count - 1)].transpose(1, 0, 2)  # [B, M, S]
    mask = (node < 0)[:, None, :] | (in_tree[:, None, :] & above)
    embeddings = aligned.embed(model, variables, jnp.broadcast_to(tokens, (batch, count)))
    positions = state.lengths[:, None] + depth
    hidden, _ = aligned.hidden(
        model,
        variables,
        embeddings,
        positions,
        mask,
        state.cache,
        jnp.where(index < slots, index, slots),
    )

    def row(args) -> jax.Array:  # one row at a time bounds the logits to [M + 1, V]
        root, states = args
        all_states = jnp.concatenate([root[None], states])
        log_p = jax.nn.log_softmax(aligned.unembed(model, variables, all_states), axis=-1)
        step = log_p[parents + 1, tokens]  # log p of each node given its parent
        return ancestors.astype(step.dtype) @ step + log_p[1:, stop]

    return jax.lax.map(row, (state.hidden, hidden))[:, leaves]


def score_labels(
    model: Aligned, variables: Any, state: DecodingState, tree: LabelTree, *, stop: int
) -> jax.Array:
    """log p of every label with its stop token: float32[B, C].

    The cache must have room for the tree's nodes behind every row; `state` is not changed.
    """
    return _score(
        model,
        variables,
        state,
        jnp.asarray(tree.tokens),
        jnp.asarray(tree.parents),
        jnp.asarray(tree.depth),
        jnp.asarray(tree.ancestors),
        jnp.asarray(tree.leaves),
        stop,
    )
