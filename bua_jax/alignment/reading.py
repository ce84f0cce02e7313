"""Whether a base has seen the words of a label set, asked before anything is trained on them.

A base whose tokenizer can spell a label may never have met the pieces. What tells is how likely it finds
the label in a question or as an answer: in both less likely, token by token, than tokens drawn at random by
more than a nat, and it has not. (nano's own 37 labels cost 7.7 nats a token at most, where chance is 7.6;
their German names 11 and more.)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.alignment.bases import Base
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.models.qwen2 import Qwen2

_BEFORE = ("user\nWhat came after", "assistant\n")
_ROWS = 16  # labels read at once
_MARGIN = 1.0  # nats a token above chance
_SHOWN = 5


def label_losses(base: Base, labels: Sequence[str], before: str) -> np.ndarray:
    """Mean negative log-likelihood of each label's tokens, nats per token: float64[C].

    before: the turn up to the label.
    """
    head = [base.tokenizer.im_start, *base.tokenizer.encode(before)]
    texts = [[*head, *label_tokens(base.tokenizer, label)] for label in labels]
    count, length = -(-len(texts) // _ROWS) * _ROWS, -(-max(map(len, texts)) // 16) * 16
    tokens = np.zeros((count, length), np.int32)
    inside = np.zeros((count, length), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], inside[row, : len(text)] = text, 1
    answer = (inside[:, 1:] > 0) & (np.arange(1, length) >= len(head))
    model = Qwen2(base.config)

    @jax.jit
    def log_likelihood(params: Any, tokens: jax.Array, inside: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        x: Any = model.apply({"params": params}, tokens, method="embed")
        x = model.apply({"params": params}, x, positions, inside, method="hidden")
        logits: Any = model.apply({"params": params}, x[:, len(head) - 1 : -1], method="unembed")
        found = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(found, tokens[:, len(head) :, None], axis=-1)[..., 0]

    parts = [
        np.asarray(log_likelihood(base.params, tokens[i : i + _ROWS], inside[i : i + _ROWS]))
        for i in range(0, count, _ROWS)
    ]
    of_answers = answer[:, len(head) - 1 :]
    total = np.where(of_answers, np.concatenate(parts), 0.0).sum(1, dtype=np.float64)
    return (-total / np.maximum(of_answers.sum(1), 1))[: len(labels)]


def unread_labels(base: Base, labels: Sequence[str]) -> str:
    """What to say of labels that the base has hardly seen, and what helps; empty where it knows all."""
    found = np.min([label_losses(base, labels, before) for before in _BEFORE], axis=0)
    chance = float(np.log(base.config.vocab_size))
    unread = [label for label, loss in zip(labels, found, strict=True) if loss > chance + _MARGIN]
    if not unread:
        return ""
    shown = ", ".join(map(repr, unread[:_SHOWN])) + (", ..." if len(unread) > _SHOWN else "")
    return (
        f"{len(unread)} of {len(labels)} labels are less likely to the language model than tokens drawn at "
        f"random (up to {found.max():.1f} nats a token; chance is {chance:.1f}): {shown}. It has hardly "
        "seen these words and may predict badly whatever its encoder knows. Give the labels in words that it "
        "knows (--config.data.words=FILE.json), train their tokens' embeddings too "
        "(--config.model.train_label_tokens=True), or use another base (--config.model.path)."
    )
