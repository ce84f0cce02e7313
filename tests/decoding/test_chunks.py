"""Turns are read in chunks: what rows share a call with, and where a turn is cut, changes nothing."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from bua_jax.decoding import engine, rounds
from bua_jax.decoding.engine import Engine, Turn
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.models import aligned
from bua_jax.models.kernels import cpu
from tests.decoding.fakes import LABELS, decoder, history_of
from tests.support.helpers import require_kernels

CHUNK = 32  # so that short turns are cut, and few shapes are compiled
PLAIN, SOFT = False, True
WORDS = [65 + i % 25 for i in range(256)]

# A turn as runs of plain and soft tokens.
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 70)), min_size=1, max_size=4)


def turn_of(layout: list[tuple[bool, int]], seed: int) -> Turn:
    """At most 200 tokens, of which at most 30 soft ones, one for each event of a history."""
    tokens: list[int] = []
    soft = 0
    for is_soft, length in layout:
        count = min(length, 30 - soft if is_soft else length, 200 - len(tokens))
        soft += count if is_soft else 0
        tokens += [259] * count if is_soft else WORDS[:count]
    tokens = tokens or [65]
    events = history_of(soft, seed).encoder_fields() if soft else None
    return Turn(tokens, "labels", range(soft), events)


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly() -> Iterator[None]:
    """Most of the time is spent compiling."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def made() -> rounds.Decoder:
    return decoder(8)


@functools.cache
def reader(kernels: bool) -> rounds.Decoder:
    with pytest.MonkeyPatch.context() as patch:
        if not kernels:
            patch.setattr(cpu, "available", lambda: False)
        one = dataclasses.replace(made())  # another one, with weights of its own
        assert isinstance(one.weights["head"], cpu.Panels) == kernels
    return one


def scores(one: rounds.Decoder, turns: list[Turn]) -> np.ndarray:
    """log p of all labels after each turn, all in one engine, float32[n, C]."""

    def job(turn: Turn) -> Any:
        log_p, _ = yield turn
        return log_softmax(log_p)

    ready = Engine(
        one.model, one.weights, 257, one.batch, 256, one.max_new_tokens, tree=rounds.label_tree(one)
    )
    found = dict(engine.run(ready, [functools.partial(job, turn) for turn in turns]))
    return np.stack([found[i] for i in range(len(turns))])


@functools.partial(jax.jit, static_argnames="model")
def log_probabilities(model, variables, batch, positions):
    embeddings = aligned.input_embeddings(model, variables, batch)
    states = aligned.hidden(model, variables, embeddings, positions, jnp.ones_like(positions))
    return jax.nn.log_softmax(aligned.unembed(model, variables, states))


def whole(one: rounds.Decoder, prompt: Sequence[int], events: np.ndarray) -> np.ndarray:
    """log p of every label, normalised over them: a row each of one forward over the whole text."""
    texts = [[*label_tokens(one.tokenizer, label), one.tokenizer.im_end] for label in LABELS]
    tokens, fields = np.zeros((len(texts), 256), np.int32), np.zeros((len(texts), 32, 4), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(prompt) + len(text)] = [*prompt, *text]
    fields[:, : len(events)] = events
    index = np.cumsum(tokens == one.tokenizer.soft, axis=1) - 1  # soft tokens stand in their order
    event = np.broadcast_to(np.arange(32), fields.shape[:2])
    batch = {
        "tokens": tokens,
        "soft_index": np.maximum(index, 0),
        "events": fields,
        "event_segments": (event < len(events)).astype(np.int32),
        "event_positions": np.where(event < len(events), event, 0),
    }
    positions = np.broadcast_to(np.arange(256), tokens.shape)
    log_p = np.asarray(log_probabilities(one.model, one.variables, batch, positions))
    begin = len(prompt) - 1
    said = [
        sum(log_p[row, begin + i, token] for i, token in enumerate(text))
        for row, text in enumerate(texts)
    ]
    return log_softmax(said)


@pytest.mark.parametrize("kernels", [False, True])
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(
    layouts=[[(PLAIN, 40), (SOFT, 20)], [(SOFT, 20), (PLAIN, 40)]]
)  # soft tokens in one first chunk
@example(layouts=[[(SOFT, 20), (PLAIN, 40)], [(PLAIN, 40), (SOFT, 20)]])
@example(
    layouts=[[(PLAIN, 60)], [(PLAIN, 20), (SOFT, 30), (PLAIN, 20)], [(SOFT, 30)], [(PLAIN, 1)]]
)
@given(layouts=st.lists(runs, min_size=2, max_size=5))
def test_any_mixture_of_turns_is_read_as_each_whole(kernels: bool, layouts, monkeypatch) -> None:
    """As one forward over the turn and each label: 2e-4, float32 sums of values down to -60."""
    if kernels:
        require_kernels()
    monkeypatch.setattr(engine, "_CHUNK", CHUNK)
    one = reader(kernels)
    turns = [turn_of(layout, seed) for seed, layout in enumerate(layouts)]
    found = scores(one, turns)
    for turn, row in zip(turns, found, strict=True):
        events = turn.events if turn.events is not None else np.zeros((0, 4))
        np.testing.assert_allclose(row, whole(one, turn.tokens, events), 1e-5, 2e-4)
