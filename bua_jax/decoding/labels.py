"""Exact label scoring: all labels as one prefix tree in one forward (design, decision 10).

A node is a token of a label; it attends to the prompt and to its ancestors. The stop token that ends
a label is read off the label's last node, so it needs no node: log p(label) is the sum of the log
probabilities along the path, the stop token included, which makes the labels prefix-free.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.decoding.cache import (
    Rows,
    Weights,
    attends_in_place,
    forward,
    logits,
    with_room,
)
from bua_jax.dialogue.prompts import Tokenizer, label_tokens
from bua_jax.events.schema import Catalogue
from bua_jax.models import aligned
from bua_jax.models.aligned import Aligned


def check_labels(tokenizer: Tokenizer, catalogue: Catalogue) -> None:
    """Raises `DataError` for labels that the tokenizer does not tell apart, or that it cannot write."""
    seen: dict[tuple[int, ...], str] = {}
    for label in catalogue.behaviours:
        tokens = tuple(label_tokens(tokenizer, label))
        if not tokens:
            raise DataError(
                f"The label {label!r} has no tokens in the base's tokenizer, so that no answer can be it. "
                "Rename it in the data, or choose another base."
            )
        if tokens in seen:
            raise DataError(
                f"The labels {seen[tokens]!r} and {label!r} are the same {len(tokens)} tokens in the base's "
                "tokenizer, so that no answer tells them apart. Rename one in the data, or choose another "
                "base."
            )
        seen[tokens] = label


class LabelTree(NamedTuple):
    """Nodes in an order where parents come first; parent -1 is the prompt."""

    tokens: np.ndarray  # int32[M]
    parents: np.ndarray  # int32[M]
    depth: np.ndarray  # int32[M], 0 for children of the prompt
    ancestors: np.ndarray  # bool[M, M]: [i, j] = j is i or above it
    leaves: np.ndarray  # int32[C], the last node of each label


def build_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """The prefix tree of tokenised labels (without the stop token).

    Raises `ConfigError` if a label has no tokens, or two have the same.
    """
    nodes: dict[tuple[int, ...], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depth: list[int] = []
    leaves: list[int] = []
    for number, label in enumerate(labels):
        if not label:
            raise ConfigError(f"Label {number} has no tokens in this tokenizer; rename it.")
        for end in range(1, len(label) + 1):
            path = tuple(label[:end])
            if path not in nodes:
                nodes[path] = len(tokens)
                tokens.append(path[-1])
                parents.append(nodes.get(path[:-1], -1))
                depth.append(end - 1)
        if nodes[tuple(label)] in leaves:
            twin = leaves.index(nodes[tuple(label)])
            raise ConfigError(f"Labels {twin} and {number} have the same tokens; rename one.")
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


class CandidateTree(NamedTuple):
    """In the place of labels a question about each as the candidate; they share what stands before."""

    questions: LabelTree  # a leaf is the last token before the answer
    soft_index: np.ndarray  # int32[M]: of which event a placeholder is
    events: np.ndarray  # int32[C, 4]; [0, 4] without placeholders
    answer: np.ndarray  # int32[]: the token whose logit is the score


class LabelScores(NamedTuple):
    """log_p float32[B, C] of every label with its stop token; greedy int32[B], the label that greedy
    decoding along the tree writes."""

    log_p: jax.Array
    greedy: jax.Array


def score_labels(
    model: Aligned, weights: Weights, rows: Rows, tree: LabelTree, *, stop: int
) -> LabelScores:
    """Scores of all labels after each row."""
    count, ancestors = len(tree.tokens), jnp.asarray(tree.ancestors)
    embeddings = aligned.embed(model, weights, jnp.asarray(tree.tokens)[None])
    hidden = _after(model, weights, rows, tree, embeddings)
    leaves, before = jnp.asarray(tree.leaves), jnp.asarray(tree.parents) + 1

    def row(args) -> LabelScores:  # one row at a time bounds the logits to [M + 1, V]
        root, states = args
        all_logits = logits(weights, jnp.concatenate([root[None], states]))
        normaliser = jax.nn.logsumexp(all_logits, axis=-1)
        step = all_logits[before, jnp.asarray(tree.tokens)] - normaliser[before]
        ends = all_logits[1:, stop] - normaliser[1:]
        log_p = (jnp.where(ancestors, step, 0.0).sum(-1) + ends)[leaves]
        # The best way on from the prompt and from every node: a child, or to stop at a leaf.
        best = jnp.full(count + 1, -jnp.inf).at[before].max(step).at[leaves + 1].max(ends[leaves])
        taken = jnp.where(ancestors, step >= best[before], True).all(-1)
        return LabelScores(log_p, jnp.argmax((taken & (ends >= best[1:]))[leaves]))

    return jax.lax.map(row, (rows.hidden, hidden))


def score_candidates(
    model: Aligned, weights: Weights, rows: Rows, tree: CandidateTree
) -> LabelScores:
    """After each row and each question the logit of the answer: float32[B, C], and the likeliest."""
    questions = tree.questions
    given = {"tokens": questions.tokens, "soft_index": tree.soft_index, "events": tree.events}
    batch = {name: jnp.asarray(value)[None] for name, value in given.items()}
    if len(tree.events):
        # Items depend on nothing but their own event: where it stands is all the same.
        zeros = jnp.zeros((1, len(tree.events)), jnp.int32)
        batch |= {"event_segments": zeros + 1, "event_positions": zeros}
        embeddings = aligned.input_embeddings(model, weights, batch)
    else:
        embeddings = aligned.embed(model, weights, batch["tokens"])
    hidden = _after(model, weights, rows, questions, embeddings)
    ends = hidden[:, jnp.asarray(questions.leaves)]
    scores = jax.lax.map(lambda states: logits(weights, states)[:, tree.answer], ends)
    return LabelScores(scores, jnp.argmax(scores, axis=1))


def _after(
    model: Aligned, weights: Weights, rows: Rows, tree: LabelTree, embeddings: jax.Array
) -> jax.Array:
    """Hidden states [B, M, H] of the nodes, embedded as [1, M, H], after each row."""
    batch, count = rows.lengths.shape[0], len(tree.tokens)
    embeddings = jnp.broadcast_to(embeddings, (batch, *embeddings.shape[1:]))
    ancestors = jnp.asarray(tree.ancestors)
    positions = rows.lengths[:, None] + jnp.asarray(tree.depth)
    if attends_in_place(weights, rows):
        room, all_of_it = with_room(rows, count), jnp.full(batch, count)
        return forward(model, weights, room, embeddings, positions, ancestors, all_of_it)[0]
    mask = jnp.broadcast_to(ancestors, (batch, count, count))
    return forward(model, weights, rows, embeddings, positions, mask)[0]
