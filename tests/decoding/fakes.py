"""A byte-level tokenizer and a tiny random model for decoding tests."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.decoding.dialogue import Decoder
from bua_jax.events.schema import Catalogue, History
from bua_jax.models import aligned, lora, projector
from bua_jax.models.aligned import Aligned
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.models.lora import LoraConfig
from bua_jax.models.projector import Projector
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

LABELS = ("eat", "eat out", "go", "go run", "schläft", "work")
CATALOGUE = Catalogue(LABELS, 24, has_places=True)
ROUNDS = [("key_behaviours", "Key?"), ("patterns", "Which?")]
CONFIG = Qwen2Config(262, 32, 48, 2, 4, 2, 32, rope_theta=1e4, tie_word_embeddings=False)


@dataclass(frozen=True)
class Bytes:
    """Ids are bytes; 256.. are the special tokens."""

    im_start: int = 256
    im_end: int = 257
    soft_start: int = 258
    soft: int = 259
    soft_end: int = 260
    vocab_size: int = 262

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


VOCABULARY = [bytes([i]) for i in range(256)] + [None] * 6


def decoder(
    batch: int, max_new_tokens: int = 12, soft_tokens: str = "sequence", recall: int = 0
) -> Decoder:
    """A random model of two layers whose adapter is not zero."""
    encoder_config = EncoderConfig("behavegpt", len(LABELS), 24, dim=4, num_layers=1, num_heads=2)
    encoder = build(encoder_config)
    example = jnp.zeros((1, 4, 4), jnp.int32), jnp.ones((1, 4), jnp.int32)
    positions = jnp.arange(4)[None]
    llm = Qwen2(CONFIG, LoraConfig(2, 4.0))
    base = jax.jit(llm.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    base = jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, base)
    for name in ("q_proj", "o_proj"):  # scores and outputs that rounding a cache does not tip over
        base["layers"]["self_attn"][name]["kernel"] /= 2
    table = base["embed_tokens"]["embedding"] * 5
    base["embed_tokens"]["embedding"] = table
    adapter = lora.init(jax.random.key(1), LoraConfig(2, 4.0), CONFIG)
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    model = Aligned(
        llm, encoder, Projector(CONFIG.hidden_size), soft_tokens, Bytes().soft, recall=recall
    )
    variables = {
        "base": base,
        "adapter": adapter,
        "encoder": jax.jit(encoder.init)(jax.random.key(2), *example, positions)["params"],
        "projector": projector.init(
            jax.random.key(3), encoder_config.state_dim, table, recall=recall > 0
        ),
    }
    return Decoder(model, variables, Bytes(), CATALOGUE, VOCABULARY, batch, max_new_tokens)


def history_of(length: int, seed: int) -> History:
    rng = np.random.default_rng(seed)
    zeros = np.zeros(length, np.int32)
    return History(
        day=zeros,
        weekday=zeros,
        slot=np.sort(rng.integers(0, 24, length)).astype(np.int32),
        behaviour=rng.integers(0, len(LABELS), length).astype(np.int32),
        place=np.ones(length, np.int32),
        place_seen=np.ones(length, np.int32),
        gap=np.zeros(length, bool),
    )


@functools.partial(jax.jit, static_argnames="model")
def whole_forward(model, variables, batch, positions):
    embeddings = aligned.input_embeddings(model, variables, batch)
    states = aligned.hidden(model, variables, embeddings, positions, jnp.ones_like(positions))
    return aligned.unembed(model, variables, states)[0]


def recomputed(model, variables, tokens, events, shift: int = 0):
    """Logits of the whole token sequence in one forward, positions shifted after the soft tokens.

    Placeholders beyond the number of events are second ones of the last events. Padded at the end, which
    no earlier token attends to, so that it compiles once.
    """
    length, slots = -(-len(tokens) // 256) * 256, 64
    placeholders = np.flatnonzero(np.asarray(tokens) == model.soft_id)
    again = len(placeholders) - len(events)
    soft_index = np.zeros(length, np.int32)
    soft_index[placeholders] = [
        *range(len(events)),
        *(-1 - i for i in range(len(events) - again, len(events))),
    ]
    ids, fields = np.zeros(length, np.int32), np.zeros((slots, 4), np.int32)
    ids[: len(tokens)], fields[: len(events)] = tokens, events
    event = np.arange(slots)
    batch = {
        "tokens": ids,
        "soft_index": soft_index,
        "events": fields,
        "event_segments": (event < len(events)).astype(np.int32),
        "event_positions": np.where(event < len(events), event, 0),
    }
    rows = {key: jnp.asarray(value)[None] for key, value in batch.items()}
    positions = jnp.arange(length)[None] + shift * (jnp.arange(length)[None] > 50)
    return whole_forward(model, variables, rows, positions)[: len(tokens)]
