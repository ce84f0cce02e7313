"""The engine: what a row writes depends on nothing but its own dialogue."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.decoding import cache, engine, programs, rounds
from bua_jax.decoding.dialogue import first_turn
from bua_jax.decoding.engine import Engine, Turn
from bua_jax.dialogue.prompts import next_turn, opening
from bua_jax.models import aligned
from bua_jax.models.kernels import cpu
from bua_jax.models.lora import LoraConfig
from bua_jax.models.quantization import quantize
from bua_jax.models.qwen2 import Qwen2
from tests.decoding.fakes import ROUNDS, decoder, history_of, recomputed
from tests.support.helpers import require_kernels

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


def test_xla_writes_what_the_kernels_write(alone, monkeypatch) -> None:
    """Token for token, where there is no compiler; the kernels are what the others here run."""
    require_kernels()
    assert isinstance(decoder(1).weights["head"], cpu.Panels)
    monkeypatch.setattr(cpu, "available", lambda: False)
    one = decoder(8, 6)
    assert isinstance(one.weights["head"], jax.Array)
    assert [said.texts for said in rounds.understand(one, MANY, ROUNDS)] == alone


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_weights_write_alike_with_and_without_kernels(dtype, monkeypatch, capsys) -> None:
    """The same rounded numbers, whoever multiplies; without kernels they take as much room, which is said."""
    require_kernels()
    tokens = jnp.arange(24)[None] + 60
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(cpu, "available", lambda kernels=kernels: kernels)
        one = dataclasses.replace(decoder(1), weight_dtype=dtype)
        head = one.weights["head"]
        assert (head.panels.dtype if kernels else head.dtype) == (dtype if kernels else "float32")
        embedded = aligned.embed(one.model, one.weights, tokens)
        rows = cache.empty_rows(one.model, 1, 32, "float32")
        states = extend(one.model, one.weights, rows, embedded, jnp.full(1, 24)).hidden
        found.append(np.asarray(cache.logits(one.weights, states)))
        assert (f"no kernel here reads weights in {dtype}" in capsys.readouterr().err) != kernels
    size = np.linalg.norm(found[0])
    assert np.linalg.norm(found[0] - found[1]) < 1e-5 * size  # sums in another order
    whole = cache.logits(
        decoder(1).weights,
        extend(one.model, decoder(1).weights, rows, embedded, jnp.full(1, 24)).hidden,
    )
    assert 1e-4 * size < np.linalg.norm(found[0] - whole) < 1e-1 * size  # rounded, and not more


@jax.jit
def greedy_and_lead(variables, batch):
    """Of one forward without a cache: the best token at every position, and its lead over the next.

    Soft tokens stand at positions < batch["opening"]: a random model also writes their id in answers.
    """
    model = decoder(1).model
    events = (batch[name] for name in ("events", "event_segments", "event_positions"))
    soft = aligned.soft_token_vectors(model, variables, *events)
    embeddings = aligned.embed(model, variables, batch["tokens"])
    opened = {
        **batch,
        "tokens": jnp.where(batch["positions"] < batch["opening"], batch["tokens"], 0),
    }
    embeddings = aligned.insert_soft_tokens(model, opened, embeddings, soft)
    states = aligned.hidden(model, variables, embeddings, batch["positions"], batch["segments"])
    best, token = jax.lax.top_k(aligned.unembed(model, variables, states), 2)
    return token[..., 0], best[..., 0] - best[..., 1]


@pytest.fixture(scope="module")
def dialogues() -> list[tuple]:
    """500 histories and the token ids of two rounds of answers about each, decoded on 32 rows."""
    one = decoder(32, 6)
    seen = [history_of(10 + i * 7 % 31, i) for i in range(500)]

    def job(history):
        first = yield first_turn(one, history, "Key?")
        second = yield Turn(next_turn(one.tokenizer, "Which?"))
        return first.tokens, second.tokens

    ready = Engine(one.model, one.weights, 257, 32, 192, 6)
    found = engine.run(ready, [functools.partial(job, history) for history in seen])
    return [(history, *said) for history, (_, said) in zip(seen, sorted(found), strict=True)]


@pytest.mark.parametrize("shift", [0, 1])
def test_cache_reuse_equals_recomputing_from_scratch(dialogues, shift: int) -> None:
    """Every token of 500 dialogues is the argmax of one forward over what stands before it.

    Another is allowed only where the two best logits lie within 1e-4; the forward reads the decoded
    tokens, so what follows is still checked. Positions of the second round off by one (negative control)
    must be noticed.
    """
    one, stop, ties, wrong, checked = decoder(1), 257, 0, 0, 0
    for begin in range(0, 500, 50):
        shape = (50, 160)
        batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "soft_index")}
        batch["positions"] = np.broadcast_to(np.arange(160), shape).copy()
        batch["events"] = np.zeros((50, 40, 4), np.int32)
        batch["event_segments"] = np.zeros((50, 40), np.int32)
        batch["event_positions"] = np.broadcast_to(np.arange(40), (50, 40))
        batch["opening"] = np.zeros((50, 1), np.int32)
        spans = []
        for row, (seen, first, second) in enumerate(dialogues[begin : begin + 50]):
            n = len(seen)
            tokens = opening(one.tokenizer, n, "Key?")
            spans.append((row, len(tokens), [*first, stop][:6]))
            tokens = [*tokens, *first, stop, *next_turn(one.tokenizer, "Which?")]
            spans.append((row, len(tokens), [*second, stop][:6]))
            batch["positions"][row, spans[-2][1] + len(first) :] += shift
            tokens = [*tokens, *second, stop]
            batch["tokens"][row, : len(tokens)] = tokens
            batch["segments"][row, : len(tokens)] = 1
            batch["opening"][row] = spans[-2][1]
            at = np.flatnonzero(batch["tokens"][row] == one.tokenizer.soft)[:n]
            batch["soft_index"][row, at] = np.arange(n)
            batch["events"][row, :n] = seen.encoder_fields()
            batch["event_segments"][row, :n] = 1
        best, lead = map(np.asarray, greedy_and_lead(one.variables, batch))
        for row, at, said in spans:
            where = slice(at - 1, at - 1 + len(said))
            other = best[row, where] != said
            close = lead[row, where] < 1e-4
            ties, wrong = ties + (other & close).sum(), wrong + (other & ~close).sum()
            checked += len(said)
    print(f"{checked} tokens: {ties} ties broken otherwise, {wrong} wrong")
    assert checked > 4000
    assert (wrong == 0) == (shift == 0)
    assert ties <= checked / 1000


def answers(one: rounds.Decoder, cache_dtype: str = "float32") -> list[list[int]]:
    def job(seen):
        first = yield first_turn(one, seen, "Key?")
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
    segments = jnp.ones((2, 24), jnp.int32)
    whole = aligned.hidden(one.model, one.variables, embedded, positions, segments)[:, -1]
    rows = cache.empty_rows(one.model, 2, 40, dtype)
    for part in (slice(0, 16), slice(16, 23), slice(23, 24)):
        counts = jnp.full(2, part.stop - part.start)
        rows = extend(one.model, one.weights, rows, embedded[:, part], counts)
    error = jnp.linalg.norm(rows.hidden - whole) / jnp.linalg.norm(whole)
    assert error < limit
    assert dtype == "float32" or error > 1e-5  # it is narrower


@pytest.mark.parametrize(("mode", "dtype"), [("none", "bfloat16"), ("int8", "float32")])
def test_adapter_stays_apart_where_merging_would_round_it(mode: str, dtype: str) -> None:
    """In float32 it is in the kernels; else decoding computes what the uncached forward does."""
    one = decoder(1)
    assert "lora" not in one.weights["layers"][0]
    config = dataclasses.replace(one.model.llm.config, dtype=dtype)
    shape = LoraConfig(2, 4.0, tokens=(65, 70))
    model = dataclasses.replace(one.model, llm=Qwen2(config, shape))
    base = jax.tree.map(lambda x: x.astype(dtype), one.variables["base"])
    rows = jax.random.normal(jax.random.key(1), (2, config.hidden_size))
    adapter = {**one.variables["adapter"], "rows": rows}
    variables = {**one.variables, "base": quantize(base, mode), "adapter": adapter}
    weights = cache.prepare(model, variables)
    tokens = jax.random.randint(jax.random.key(0), (1, 24), 0, 200).at[0, 3:5].set(shape.tokens)
    embedded = aligned.embed(model, variables, tokens)
    assert np.array_equal(embedded, aligned.embed(model, weights, tokens))
    assert np.array_equal(embedded[0, 3:5], rows.astype(dtype))
    positions, segments = jnp.arange(24)[None], jnp.ones((1, 24), jnp.int32)
    empty = cache.empty_rows(model, 1, 24, dtype)
    counts = jnp.full(1, 24)

    def error(variables, weights) -> float:
        whole = aligned.hidden(model, variables, embedded, positions, segments)[:, -1]
        mine = extend(model, weights, empty, embedded, counts).hidden
        return float(jnp.linalg.norm(mine - whole) / jnp.linalg.norm(whole))

    assert not isinstance(weights["layers"][0]["params"]["mlp"]["up_proj"]["kernel"], cpu.Panels)
    limit = 2e-2 if dtype == "bfloat16" else 1e-5  # 2^-9 per rounding, over two layers
    assert "lora" in weights["layers"][0]
    assert error(variables, weights) < limit
    without = cache.prepare(model, {k: v for k, v in variables.items() if k != "adapter"})
    assert error(variables, without) > 2 * limit


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
    compiled = programs.decode._cache_size()
    rounds.understand(one, MANY, ROUNDS)
    assert programs.decode._cache_size() == compiled


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
    days, said, scores = rounds.generate(decoder(4), [], ROUNDS, [], [])
    assert (days, said, scores.shape) == ([], [], (0, 6))


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
