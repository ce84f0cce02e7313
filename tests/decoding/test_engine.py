"""The engine: what a row writes depends on nothing but its own dialogue."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.decoding import cache, engine, rounds
from bua_jax.decoding.engine import Engine, Turn
from bua_jax.dialogue.prompts import next_turn
from bua_jax.errors import ConfigError
from bua_jax.models import aligned
from bua_jax.models.qwen2 import causal_mask
from tests.decoding.fakes import decoder
from tests.decoding.test_rounds import ROUNDS, history_of, recomputed

# Mixed lengths; 70 are no multiple of any batch below.
MANY = [history_of(int(length), seed) for seed, length in enumerate(np.arange(70) * 7 % 31 + 10)]


extend = jax.jit(cache.extend, static_argnames="model")


@pytest.fixture(scope="module")
def alone() -> list[dict[str, str]]:
    one = decoder(1, 6)
    return [said.texts for said in rounds.understand(one, MANY, ROUNDS)]


@pytest.mark.parametrize(("batch", "order"), [(8, 1), (8, -1), (64, 1)])
def test_batched_equals_single_in_any_order_of_arrival(alone, batch: int, order: int) -> None:
    """Token for token, greedy in float32; a random model has no near ties among these."""
    found = rounds.understand(decoder(batch, 6), MANY[::order], ROUNDS)
    assert [said.texts for said in found] == alone[::order]


def answers(one: rounds.Decoder, cache_dtype: str = "float32") -> list[list[int]]:
    def job(seen):
        first = yield rounds._first_turn(one, seen, "Key?")
        second = yield Turn(next_turn(one.tokenizer, "Which?"))
        return first.tokens + second.tokens

    ready = Engine(one.model, one.weights, 257, 4, 192, one.max_new_tokens, cache_dtype)
    found = engine.run(ready, [lambda seen=seen: job(seen) for seen in MANY[:12]])
    return [tokens for _, tokens in sorted(found)]


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.5), ("int8", 0.5)])
def test_a_narrower_cache_writes_nearly_the_same(dtype: str, least: float) -> None:
    """First tokens of answers: the cache is rounded, so later ones may drift apart."""
    exact, narrow = answers(decoder(4, 4)), answers(decoder(4, 4), dtype)
    same = np.mean([a[0] == b[0] for a, b in zip(exact, narrow, strict=True) if a and b])
    assert same >= least


@pytest.mark.parametrize(
    ("dtype", "limit"), [("float32", 1e-5), ("bfloat16", 2e-2), ("int8", 3e-2)]
)
def test_what_a_cache_type_costs(dtype: str, limit: float) -> None:
    """Hidden states after a cached prompt, against a forward without a cache.

    Relative to their norm: 2^-9 per rounding in bfloat16, 1/254 in int8, over two layers.
    """
    one = decoder(1)
    tokens = jax.random.randint(jax.random.key(0), (2, 24), 0, 200)
    embedded = aligned.embed(one.model, one.variables, tokens)
    positions = jnp.broadcast_to(jnp.arange(24), (2, 24))
    mask = causal_mask(jnp.ones((2, 24), jnp.int32))
    whole = aligned.hidden(one.model, one.variables, embedded, positions, mask)[:, -1]
    rows = cache.empty_rows(one.model, 2, 40, dtype)
    for part in (slice(0, 16), slice(16, 23), slice(23, 24)):
        counts = jnp.full(2, part.stop - part.start)
        rows = extend(one.model, one.weights, rows, embedded[:, part], counts)
    error = jnp.linalg.norm(rows.hidden - whole) / jnp.linalg.norm(whole)
    assert error < limit
    assert dtype == "float32" or error > 1e-5  # it is narrower


def test_rows_take_chunks_of_their_own_lengths() -> None:
    one = decoder(1)
    tokens = jnp.arange(12).reshape(2, 6) + 60
    rows = cache.empty_rows(one.model, 2, 16, "float32")
    both = extend(
        one.model,
        one.weights,
        rows,
        aligned.embed(one.model, one.variables, tokens),
        jnp.asarray([6, 2]),
    )
    assert both.lengths.tolist() == [6, 2]
    single = extend(
        one.model,
        one.weights,
        cache.take(rows, jnp.asarray([1])),
        aligned.embed(one.model, one.variables, tokens[1:, :2]),
        jnp.asarray([2]),
    )
    assert np.abs(both.hidden[1] - single.hidden[0]).max() < 1e-5


def test_nothing_is_compiled_again_for_more_rows() -> None:
    few, one = MANY[:9], decoder(8, 6)
    rounds.understand(one, few, ROUNDS)
    compiled = engine._decode._cache_size()
    rounds.understand(one, MANY, ROUNDS)
    assert engine._decode._cache_size() == compiled


def test_out_of_memory_halves_the_batch(alone, monkeypatch, capsys) -> None:
    real, tried = engine._empty, []

    def empty(ready: Engine):
        tried.append(ready.batch)
        if ready.batch > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return real(ready)

    monkeypatch.setattr(engine, "_empty", empty)
    found = rounds.understand(decoder(8, 6), MANY[:10], ROUNDS)
    assert tried == [8, 4, 2]
    assert [said.texts for said in found] == alone[:10]
    assert "goes on with 2 rows" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch) -> None:
    def broken(ready: Engine):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(engine, "_empty", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        rounds.understand(decoder(8, 6), MANY[:3], ROUNDS)


def test_a_dialogue_that_outgrows_its_row_is_an_error() -> None:
    one = decoder(1)

    def job():
        yield Turn([65] * 30)

    ready = Engine(one.model, one.weights, 257, 1, 32, 12)
    with pytest.raises(ConfigError, match="needs 43 tokens of cache, and a row has 32"):
        list(engine.run(ready, [job]))


def test_results_come_as_they_finish() -> None:
    """Short dialogues overtake a long one, whose row is the only one they cannot have."""
    one = dataclasses.replace(decoder(4), max_new_tokens=3)

    def job(turns: int):
        yield Turn([70, 71])
        for _ in range(turns - 1):
            yield Turn([72])
        return turns

    jobs = [lambda: job(12), *[lambda: job(1)] * 9]
    ready = Engine(one.model, one.weights, 257, 4, 96, 3)
    order = [number for number, _ in engine.run(ready, jobs)]
    assert sorted(order) == list(range(10))
    assert order[-1] == 0


def test_no_jobs_no_results() -> None:
    assert rounds.understand(decoder(4), [], ROUNDS) == []
    scores, said = rounds.predict(decoder(4), [], ROUNDS, [])
    assert scores.shape == (0, 6)
    assert said == []
    assert rounds.generate(decoder(4), [], ROUNDS, [], []) == ([], [])


@pytest.mark.parametrize("begin", [0, 110, 265])
def test_long_turns_are_read_in_chunks(begin: int) -> None:
    """Three chunks, with soft tokens in the first, over the border of two, and in the last.

    As one forward over all of it: the answer's tokens are its argmax, up to one that is by chance a
    placeholder's, which stands for no event here.
    """
    one, seen = decoder(4, 8), MANY[8]
    n_soft, soft = len(seen), one.tokenizer.soft
    words = [65 + i % 25 for i in range(300 - n_soft)]
    tokens = [*words[:begin], *[soft] * n_soft, *words[begin:]]

    def job():
        turn = Turn(tokens, shown=range(n_soft), events=seen.encoder_fields())
        answer = yield turn
        return answer.tokens

    ready = Engine(one.model, one.weights, 257, 4, 320, 8)
    ((_, said),) = engine.run(ready, [job])
    said = said[: [*said, soft].index(soft)]
    logits = recomputed(one.model, one.variables, [*tokens, *said], seen.encoder_fields())
    expected = np.asarray(logits.argmax(-1))[len(tokens) - 1 : len(tokens) - 1 + len(said)]
    assert said
    assert said == expected.tolist()
