"""Multi-round decoding: understand, then predict or generate, on one cache per history.

The rounds of a dialogue share their prefix: every instruction is appended to the row's own cache, and
answers are carried as token ids, never tokenised again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.console import progress
from bua_jax.decoding import cache
from bua_jax.decoding.cache import DecodingState, empty_state
from bua_jax.decoding.grammar import DayGrammar, byte_trie
from bua_jax.decoding.labels import build_tree, score_labels
from bua_jax.decoding.sampler import sample
from bua_jax.dialogue.prompts import Tokenizer, label_tokens, next_turn, num_placeholders, opening
from bua_jax.dialogue.text import parse_day, parse_day_lenient, parse_label
from bua_jax.events.schema import Catalogue, History
from bua_jax.events.windows import Day
from bua_jax.models.aligned import Aligned

_BUCKET = 32
_TOKENS_PER_EVENT = 8  # of a generated day; beyond them the event at hand is finished
_EVENT_BYTES = 32  # of an event besides its label


@dataclass(frozen=True)
class Decoder:
    """A model with what is needed to talk to it; `batch` histories are decoded together."""

    model: Aligned
    variables: Any
    tokenizer: Tokenizer
    catalogue: Catalogue
    batch: int = 32
    max_new_tokens: int = 96  # of an understanding round


@dataclass(frozen=True)
class Understanding:
    """Texts of a history's understanding rounds, by kind; `truncated` counts rounds cut at the limit."""

    texts: dict[str, str]
    truncated: int


# An instruction may depend on what was answered before (the refinement's draft).
Instruction = str | Callable[[dict[str, str], int], str]


def _bucket(n: int) -> int:
    return -(-n // _BUCKET) * _BUCKET


def _padded(rows: Sequence[Sequence[int]], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded int32[batch, C] (C a multiple of the bucket) and counts int32[batch]."""
    counts = np.zeros(batch, np.int32)
    counts[: len(rows)] = [len(row) for row in rows]
    tokens = np.zeros((batch, _bucket(max(int(counts.max()), 1))), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    return tokens, counts


def _num_soft(decoder: Decoder, histories: Sequence[History]) -> list[int]:
    return [num_placeholders(len(seen), decoder.model.soft_tokens) for seen in histories]


def _begin(decoder: Decoder, histories: Sequence[History], instructions: Sequence[str], room: int):
    """State after the first user turns, with `room` more slots per row."""
    n_soft = _num_soft(decoder, histories)
    prompts = [
        opening(decoder.tokenizer, count, text)
        for count, text in zip(n_soft, instructions, strict=True)
    ]
    length = _bucket(max(map(len, prompts)))
    state = empty_state(decoder.model, decoder.batch, length + room)
    return _append_with_events(decoder, state, histories, prompts, [range(n) for n in n_soft])


def _append_with_events(
    decoder: Decoder,
    state: DecodingState,
    histories: Sequence[History],
    prompts: Sequence[Sequence[int]],
    shown: Sequence[range],
) -> DecodingState:
    """Appends user turns whose placeholders stand for the events `shown` of each history."""
    tokens, counts = _padded(prompts, decoder.batch)
    longest = _bucket(max(len(h) for h in histories))
    soft_index = np.zeros_like(tokens)
    events = np.zeros((decoder.batch, longest, 4), np.int32)
    segments = np.zeros((decoder.batch, longest), np.int32)
    for i, seen in enumerate(histories):
        soft_index[i, tokens[i] == decoder.tokenizer.soft] = shown[i]
        events[i, : len(seen)] = seen.encoder_fields()
        segments[i, : len(seen)] = 1
    return cache.append_with_events(
        decoder.model, decoder.variables, state, tokens, soft_index, counts, events, segments
    )


def _ask(decoder: Decoder, state: DecodingState, texts: Sequence[str]) -> DecodingState:
    """Appends the next user turn of every row."""
    tokens, counts = _padded([next_turn(decoder.tokenizer, t) for t in texts], decoder.batch)
    return cache.append(decoder.model, decoder.variables, state, tokens, counts)


def _ask_final(
    decoder: Decoder, state: DecodingState, histories: Sequence[History], texts: Sequence[str]
) -> DecodingState:
    """Appends the final user turn of every row, with the soft tokens of its last events."""
    n_soft = _num_soft(decoder, histories)
    again = [min(count, decoder.model.recall) for count in n_soft]
    if not any(again):
        return _ask(decoder, state, texts)
    prompts = [
        next_turn(decoder.tokenizer, text, count) for text, count in zip(texts, again, strict=True)
    ]
    shown = [range(n - count, n) for n, count in zip(n_soft, again, strict=True)]
    return _append_with_events(decoder, state, histories, prompts, shown)


def _answer(
    decoder: Decoder, state: DecodingState
) -> tuple[DecodingState, list[list[int]], np.ndarray]:
    """Greedy answers: (state, token ids per row, whether each was cut)."""
    state, tokens, counts = cache.greedy(
        decoder.model,
        decoder.variables,
        state,
        max_new=decoder.max_new_tokens,
        stop=decoder.tokenizer.im_end,
    )
    tokens, counts = np.asarray(tokens), np.asarray(counts)
    rows = [tokens[i, : counts[i]].tolist() for i in range(decoder.batch)]
    return state, rows, counts >= decoder.max_new_tokens


def _dialogue(
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Sequence[tuple[str, Instruction]],
    final: Sequence[str],
    room: int,
) -> tuple[DecodingState, list[Understanding]]:
    """Runs the understanding rounds of one batch and asks the final instruction."""
    count = len(histories)
    texts: list[dict[str, str]] = [{} for _ in histories]
    truncated = np.zeros(count, int)
    longest = 160 if any(callable(i) for _, i in rounds) else 0  # a draft in an instruction
    per_round = decoder.max_new_tokens + 2 * _BUCKET + longest + 1
    state: DecodingState | None = None
    space = len(rounds) * per_round + 2 * _BUCKET + _bucket(decoder.model.recall) + room
    for kind, instruction in rounds:
        said = [
            instruction(texts[i], i) if callable(instruction) else instruction for i in range(count)
        ]
        state = (
            _begin(decoder, histories, said, space) if state is None else _ask(decoder, state, said)
        )
        state, answers, cut = _answer(decoder, state)
        truncated += cut[:count]
        for i in range(count):
            texts[i][kind] = decoder.tokenizer.decode(answers[i])
    if final:
        state = (
            _begin(decoder, histories, final, space)
            if state is None
            else _ask_final(decoder, state, histories, final)
        )
    assert state is not None
    return state, [Understanding(t, int(n)) for t, n in zip(texts, truncated, strict=True)]


def _slices(count: int, batch: int, description: str) -> Iterator[slice]:
    for start in progress(range(0, count, batch), description, total=-(-count // batch)):
        yield slice(start, min(start + batch, count))


def understand(
    decoder: Decoder, histories: Sequence[History], rounds: Sequence[tuple[str, Instruction]]
) -> list[Understanding]:
    """The texts of the rounds (kind, instruction) for every history."""
    results: list[Understanding] = []
    for part in _slices(len(histories), decoder.batch, "understanding"):
        results += _dialogue(decoder, histories[part], _shifted(rounds, part.start), [], 0)[1]
    return results


def predict(
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Sequence[tuple[str, Instruction]],
    final: Sequence[str],
    *,
    free: bool = False,
) -> tuple[np.ndarray, list[Understanding]]:
    """The next behaviour of every history, after the understanding rounds.

    final: the prediction instruction of each history. Returns log-probabilities float32[n, C] over all
    labels (exact, normalised over them) and the texts; with `free` the decoded answers instead, as
    0 for the label and -inf elsewhere (a row of -inf only = an invalid answer).
    """
    labels = decoder.catalogue.behaviours
    tree = build_tree([label_tokens(decoder.tokenizer, label) for label in labels])
    room = _bucket(max(len(tree.tokens), decoder.max_new_tokens + 1))
    parts, understandings = [], []
    for part in _slices(len(histories), decoder.batch, "predicting"):
        shifted = _shifted(rounds, part.start)
        state, texts = _dialogue(decoder, histories[part], shifted, final[part], room)
        count = part.stop - part.start
        if free:
            _, answers, _ = _answer(decoder, state)
            scores = np.full((count, len(labels)), -np.inf, np.float32)
            for i in range(count):
                label = parse_label(decoder.tokenizer.decode(answers[i]), decoder.catalogue)
                if label >= 0:
                    scores[i, label] = 0.0
        else:
            stop = decoder.tokenizer.im_end
            scored = score_labels(decoder.model, decoder.variables, state, tree, stop=stop)
            scores = np.asarray(jax.nn.log_softmax(scored, axis=-1))[:count]
        parts.append(scores)
        understandings += texts
    return np.concatenate(parts), understandings


def _shifted(
    rounds: Sequence[tuple[str, Instruction]], offset: int
) -> list[tuple[str, Instruction]]:
    """Instructions that depend on the history get its index in the whole list."""

    def shift(function: Callable[[dict[str, str], int], str]) -> Instruction:
        return lambda texts, i: function(texts, offset + i)

    return [(kind, shift(f) if callable(f) else f) for kind, f in rounds]


@dataclass(frozen=True)
class GeneratedDay:
    """A generated day, its text, and how many pieces of a free answer did not parse."""

    day: Day
    text: str
    invalid: int


def generate(
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Sequence[tuple[str, Instruction]],
    final: Sequence[str],
    weekdays: Sequence[int],
    *,
    vocabulary: Sequence[bytes | None],
    constrained: bool = True,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 42,
    max_events: int = 24,
) -> tuple[list[GeneratedDay], list[Understanding]]:
    """The next day of every history, after the understanding rounds.

    final: the generation instruction of each history; weekdays: of the day to write. Constrained days
    obey the grammar and always parse; free ones are parsed leniently. Row i draws from (seed, i), so
    the result does not depend on the batch size.
    """
    trie = byte_trie(vocabulary)
    longest = _TOKENS_PER_EVENT * max_events
    label = max(len(text.encode()) for text in decoder.catalogue.behaviours)
    room = _bucket(longest + label + _EVENT_BYTES)
    days: list[GeneratedDay] = []
    understandings: list[Understanding] = []
    for part in _slices(len(histories), decoder.batch, "generating"):
        shifted = _shifted(rounds, part.start)
        state, texts = _dialogue(decoder, histories[part], shifted, final[part], room)
        rows = range(part.start, part.stop)
        grammars = [
            DayGrammar(
                decoder.catalogue,
                trie,
                decoder.tokenizer.vocab_size,
                decoder.tokenizer.im_end,
                weekdays[i],
                histories[i].place.tolist(),
                max_events,
            )
            for i in rows
        ]
        lines = _write(
            decoder,
            state,
            grammars if constrained else None,
            list(rows),
            vocabulary,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            longest=longest,
        )
        for i, line in zip(rows, lines, strict=True):
            parsed = parse_day(line, decoder.catalogue) if constrained else None
            if parsed is not None:
                days.append(GeneratedDay(parsed, line, 0))
            else:
                day, invalid = parse_day_lenient(line, decoder.catalogue, weekdays[i])
                days.append(GeneratedDay(day, line, invalid))
        understandings += texts
    return days, understandings


def _write(
    decoder: Decoder,
    state: DecodingState,
    grammars: list[DayGrammar] | None,
    rows: list[int],
    vocabulary: Sequence[bytes | None],
    *,
    temperature: float,
    top_p: float,
    seed: int,
    longest: int,
) -> list[str]:
    """Decodes the final answers token by token; the grammar's masks are made on the host."""
    stop, size, count = decoder.tokenizer.im_end, decoder.tokenizer.vocab_size, len(rows)
    ids: list[list[int]] = [[] for _ in rows]
    states = [g.initial() for g in grammars] if grammars else []
    done = np.zeros(decoder.batch, bool)
    done[count:] = True
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(
        jnp.asarray(rows + [0] * (decoder.batch - count))
    )
    reserve = max((g.event_bytes() for g in grammars), default=0) if grammars else 0
    for step in range(longest + reserve):
        mask = np.ones((decoder.batch, size), bool)
        if grammars:
            for i in np.flatnonzero(~done):
                mask[i] = grammars[i].mask(states[i], closing=step >= longest)
        step_keys = jax.vmap(lambda key, n=step: jax.random.fold_in(key, n))(keys)
        picked = sample(
            cache.logits(decoder.model, decoder.variables, state),
            mask,
            step_keys,
            max(temperature, 1e-6),
            top_p,
            greedy=temperature == 0,
        )
        tokens = np.asarray(picked)
        for i in np.flatnonzero(~done):
            if tokens[i] == stop:
                done[i] = True
                continue
            ids[i].append(int(tokens[i]))
            if grammars:
                after = grammars[i].advance(states[i], vocabulary[tokens[i]] or b"")
                assert after is not None, "the mask admitted an illegal token"
                states[i] = after
        if done.all():
            break
        live = (~done).astype(np.int32)
        state = cache.append(decoder.model, decoder.variables, state, tokens[:, None], live)
    return [decoder.tokenizer.decode(row) for row in ids]
