"""Events as vectors over the rows of an embedding table, and distributions that they faintly hold."""

from functools import lru_cache

import numpy as np
from scipy.special import softmax

from bua_jax.alignment.warm_start import CONTEXT, EXPECTED, word_weights
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.dialogue.text import place_text
from bua_jax.events.schema import WEEKDAYS
from bua_jax.interop.tokenizer import HFTokenizer


@lru_cache(maxsize=512)
def _context(tokenizer: HFTokenizer, text: str) -> tuple[list[int], np.ndarray]:
    """Ids of a weekday, time or place, and their weights in an event's vector."""
    ids = label_tokens(tokenizer, text)
    return ids, CONTEXT * word_weights(len(ids))


def event_vectors(
    tokenizer: HFTokenizer, window: Window, faint: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int64[U] of the table's rows that occur, their weights in each event's vector float32[L, U]).

    faint: distribution over labels that is added to each event as what is expected next is, float32[L, C].
    """
    labels = [label_tokens(tokenizer, label) for label in window.catalogue.behaviours]
    days = [WEEKDAYS[day][:3] for day in window.history.weekday.tolist()]
    places = map(place_text, window.history.place_seen.tolist())
    texts = zip(days, map(window.clock, window.slots), places, strict=True)
    around = [[_context(tokenizer, text) for text in event] for event in texts]
    used = {i for ids in labels for i in ids} | {
        i for event in around for ids, _ in event for i in ids
    }
    column = {number: i for i, number in enumerate(sorted(used))}
    table = np.zeros((len(labels), len(column)), np.float32)
    for row, ids in zip(table, labels, strict=True):
        np.add.at(row, [column[i] for i in ids], word_weights(len(ids)))
    vectors = table[window.behaviours]
    for row, event in zip(vectors, around, strict=True):
        for ids, weights in event:
            for number, weight in zip(ids, weights, strict=True):
                row[column[number]] += weight
    if faint is not None:
        vectors += EXPECTED * faint @ table
    return np.asarray(sorted(used)), vectors


def faint_labels(rng: np.random.Generator, count: int, labels: int) -> np.ndarray:
    """A distribution over labels for each event, float32[L, C], from flat to nearly certain."""
    logits = rng.uniform(0.5, 4.0, (count, 1)) * rng.standard_normal((count, labels))
    return softmax(logits, axis=1).astype(np.float32)
