"""A fresh projector that starts near words: regression onto the language model's own embeddings.

The target of an event's soft token is the embedding of its behaviour's words, of its time and place,
and of the words of the behaviours that the frozen encoder expects next; with `model.recall` the latter are
the target of a second soft token. All of it is a function of
the encoder's state, so nothing is revealed that Eq. 1's projector could not learn; it only starts
where the frozen language model can already read. Minutes of stage 1 are saved that way.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.dialogue.prompts import Tokenizer, label_tokens
from bua_jax.dialogue.text import place_text
from bua_jax.events.schema import NUM_PLACES, WEEKDAYS, Catalogue
from bua_jax.models.projector import Projector

CONTEXT = 0.5
"""Weight of each of an event's weekday, time and place words; its behaviour's words weigh 1."""
EXPECTED = 0.6
"""Weight of the words of the behaviours that are expected next: less than 1, so that the event's own can be
told from them however certain the encoder is."""
_FADING = 0.75  # weight of a text's token, relative to the one before it


@lru_cache(maxsize=64)
def word_weights(count: int) -> np.ndarray:
    """Weights of a text's `count` tokens in its vector, float32[count].

    They fall, so that the order can be read, and have the norm 1, so that a text of many tokens is as
    large as a word.
    """
    weights = _FADING ** np.arange(count, dtype=np.float32)
    return weights / np.linalg.norm(weights)


def _vectors(table: np.ndarray, tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Sum of the embeddings of each text's tokens by `word_weights`, float32[n, H]."""
    ids = [label_tokens(tokenizer, text) for text in texts]
    return np.stack([word_weights(len(found)) @ table[found] for found in ids])


def word_targets(
    table: np.ndarray,
    tokenizer: Tokenizer,
    catalogue: Catalogue,
    fields: np.ndarray,
    logits: np.ndarray,
    *,
    recall: bool,
) -> list[np.ndarray]:
    """What soft tokens should resemble, float32[N, H]: fields int32[N, 4], logits float32[N, C].

    recall: what is expected next is for a second soft token (the list's other array), else for the same.
    """
    labels = _vectors(table, tokenizer, catalogue.behaviours)
    days = _vectors(table, tokenizer, [name[:3] for name in WEEKDAYS])
    clocks = [catalogue.clock(slot) for slot in range(catalogue.slots_per_day)]
    times = _vectors(table, tokenizer, clocks)
    places = _vectors(table, tokenizer, [place_text(i) for i in range(NUM_PLACES + 1)])
    expected = np.asarray(jax.nn.softmax(logits, axis=-1)) @ labels
    weekday, slot, place, behaviour = fields.T
    context = CONTEXT * (days[weekday] + times[slot] + places[place])
    event = labels[behaviour] + context
    found = [event, expected] if recall else [event + EXPECTED * expected]
    size = np.linalg.norm(table, axis=1).mean()
    scaled = [size / np.linalg.norm(target, axis=1).mean() * target for target in found]
    return [target.astype(np.float32) for target in scaled]


def warm_start(
    params: Any,
    states: np.ndarray,
    targets: np.ndarray,
    *,
    steps: int,
    batch: int,
    peak_lr: float,
) -> tuple[Any, float]:
    """Fits a projector to `targets` float32[N, H] from states float32[N, D], with Adam.

    Returns the parameters and the share of the targets' variance that they explain.
    """
    projector = Projector(targets.shape[1])
    optimizer = optax.adam(optax.cosine_decay_schedule(peak_lr, steps))

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        out: Any = projector.apply({"params": params}, x)
        return jnp.mean((out - y) ** 2)

    @jax.jit
    def step(carry: Any, rows: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, jnp.asarray(states)[rows], jnp.asarray(targets)[rows])
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    rows = np.random.default_rng(0).integers(0, len(states), (steps, batch))
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.asarray(rows))
    left = float(loss(params, jnp.asarray(states), jnp.asarray(targets)))
    return params, 1 - left / float(np.var(targets, axis=0).mean())
