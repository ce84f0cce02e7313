"""Whether a base can read the words of a label set, asked before anything is trained on them.

A base whose tokenizer can spell a label may never have met the pieces. What tells is how likely it finds
the label right after it was written twice: where that is less likely, token by token, than a token drawn at
random, it cannot even copy it. (For six namings of 37 labels nano needs at most 6 nats a token, where chance
is 8; an earlier nano, which knew one label set, needed 10 to 18 for the others.)
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.alignment.bases import Base, load_base
from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.models.qwen2 import Qwen2
from bua_jax.parallel.sharding import make_mesh

_ROWS = 8  # labels read at once
_SHOWN = 5


def label_losses(base: Base, labels: Sequence[str]) -> np.ndarray:
    """Mean negative log-likelihood of each label's tokens after it stood in two events: float64[C], nats."""
    heads = [
        [
            base.tokenizer.im_start,
            *base.tokenizer.encode(f"user\n07:30 {text}; 08:00 {text}; 08:30"),
        ]
        for text in labels
    ]
    texts = [
        head + label_tokens(base.tokenizer, text) for head, text in zip(heads, labels, strict=True)
    ]
    count, length = -(-len(texts) // _ROWS) * _ROWS, -(-max(map(len, texts)) // 16) * 16
    tokens = np.zeros((count, length), np.int32)
    inside = np.zeros((count, length), np.int32)
    asked = np.zeros((count, length), bool)
    for row, (head, text) in enumerate(zip(heads, texts, strict=True)):
        tokens[row, : len(text)], inside[row, : len(text)] = text, 1
        asked[row, len(head) : len(text)] = True
    model = Qwen2(base.config)

    @jax.jit
    def log_likelihood(params: Any, tokens: jax.Array, inside: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        x: Any = model.apply({"params": params}, tokens, method="embed")
        x = model.apply({"params": params}, x, positions, inside, method="hidden")
        logits: Any = model.apply({"params": params}, x[:, :-1], method="unembed")
        found = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(found, tokens[:, 1:, None], axis=-1)[..., 0]

    parts = [
        np.asarray(log_likelihood(base.params, tokens[i : i + _ROWS], inside[i : i + _ROWS]))
        for i in range(0, count, _ROWS)
    ]
    of_answers = asked[:, 1:]
    total = np.where(of_answers, np.concatenate(parts), 0.0).sum(1, dtype=np.float64)
    return (-total / np.maximum(of_answers.sum(1), 1))[: len(labels)]


def unread_labels(base: Base, labels: Sequence[str]) -> str:
    """What to say of labels that the base has hardly seen, and what helps; empty where it knows all."""
    found = label_losses(base, labels)
    chance = float(np.log(base.config.vocab_size))
    unread = [label for label, loss in zip(labels, found, strict=True) if loss > chance]
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


def read_base(config: Settings, labels: Sequence[str]) -> tuple[Base, str]:
    """The base of a run's config and what `unread_labels` says of it.

    It lies on the run's mesh, so that what is trained and asked next in this process finds it loaded; on a
    machine with fewer devices than that, on one. Raises what `load_base` does.
    """
    try:
        mesh = make_mesh(config.execution.mesh)
    except ConfigError:
        mesh = None
    base = load_base(config.model, mesh)
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        return base, unread_labels(base, labels)
