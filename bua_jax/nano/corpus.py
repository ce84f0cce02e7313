"""nano's corpus: dialogues about worlds, made on the fly as a pure function of seed and step.

A dialogue's history is written in words, given as vectors (an event's words' embeddings, weighted and
summed), or half and half. Its rounds are reading drills, the understanding rounds by the rules, and
questions about earlier answers. No answer is about an event after the window: there is no prediction,
no generated day and no future scene.

A vector may hold, faintly, the labels of a distribution drawn at random; the drill `FAINT` reads one
off the last vector. A fitted projector leaves such mixtures (`training/warm_start.py`).
"""

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache, partial
from random import Random

import numpy as np

from bua_jax.dialogue.annotators import ANNOTATORS, summary
from bua_jax.dialogue.critic import build_refinement, critique
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.prompts import Tokenizer, label_tokens, next_turn, opening
from bua_jax.dialogue.rounds import UNDERSTANDING, Round
from bua_jax.dialogue.tasks import INSTRUCTIONS
from bua_jax.dialogue.text import history_text, place_text
from bua_jax.events.schema import WEEKDAYS, History
from bua_jax.nano.drills import DRILLS, FAINT, echo
from bua_jax.nano.worlds import World, draw_world, window_of
from bua_jax.training.warm_start import CONTEXT

OTHER_KINDS = ("reconstruction", "current_scene", "home_work", "hobbies", "refinement")
LONGEST = 44  # events of a history given as vectors
RECALLED = 8  # vectors that a later turn repeats, at most


_FADING = 0.75  # weight of a text's token, relative to the one before it


@lru_cache(maxsize=64)
def word_weights(count: int) -> np.ndarray:
    """Weights of a text's `count` tokens in its vector, float32[count].

    They fall, so that the order can be read, and have the norm 1, so that a text of many tokens is as
    large as a word.
    """
    weights = _FADING ** np.arange(count, dtype=np.float32)
    return weights / np.linalg.norm(weights)


@dataclass
class Encoded:
    """A dialogue as tokens, aligned int lists of length T; and vectors float32[S, U] over table rows `columns`."""

    tokens: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)  # 1-based round on answers' tokens, else 0
    shown: list[int] = field(default_factory=list)  # which vector a placeholder takes, else 0
    columns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    rounds: list[Round] = field(default_factory=list)


def _kind(name: str, window: Window, world: World) -> Round | None:
    """An understanding round by the rules; a refinement is of a summary of the window's first half."""
    if name == "refinement":
        draft = summary(window_of(world, 0, max(2, len(window.slots) // 2), "draft"))
        return build_refinement(window, draft, critique(window, draft))
    if name == "home_work" and not window.catalogue.has_places:
        return None
    return Round(name, INSTRUCTIONS[name], ANNOTATORS[name](window))


def draw_rounds(rng: Random, window: Window, world: World) -> list[Round]:
    """Understanding rounds and drills in one of three mixtures."""
    plan = rng.random()
    kinds: list[str] = []
    if plan < 0.4:
        kinds, count = list(UNDERSTANDING[: rng.choice((1, 2, 3, 3, 3))]), rng.randint(0, 3)
    elif plan < 0.55:
        kinds, count = [rng.choice(OTHER_KINDS)], rng.randint(1, 3)
    else:
        count = rng.randint(3, 8)
    chosen = [_kind(name, window, world) for name in kinds]
    rounds = [turn for turn in chosen if turn is not None]
    for drill in rng.choices([*DRILLS], [*DRILLS.values()], k=count):
        turn = drill(window, rng)
        if turn is not None:
            named = dataclasses.replace(turn, kind=drill.__name__)
            rounds.insert(rng.randint(0, len(rounds)), named)
    if len(rounds) > 1 and rng.random() < 0.3:
        rounds.append(echo(rounds, rng))
    return rounds or [Round("key_behaviours", INSTRUCTIONS["key_behaviours"], ANNOTATORS["key_behaviours"](window))]


@lru_cache(maxsize=512)
def _context(tokenizer: Tokenizer, text: str) -> tuple[list[int], np.ndarray]:
    """Ids of a weekday, time or place, and their weights in an event's vector."""
    ids = label_tokens(tokenizer, text)
    return ids, CONTEXT * word_weights(len(ids))


def event_vectors(
    tokenizer: Tokenizer, window: Window, faint: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int64[U] of the table's rows that occur, their weights in each event's vector float32[L, U]).

    faint: distribution over labels that is added to each event, float32[L, C].
    """
    labels = [label_tokens(tokenizer, label) for label in window.catalogue.behaviours]
    days = [WEEKDAYS[day][:3] for day in window.history.weekday.tolist()]
    places = map(place_text, window.history.place_seen.tolist())
    texts = zip(days, map(window.clock, window.slots), places, strict=True)
    around = [[_context(tokenizer, text) for text in event] for event in texts]
    used = {i for ids in labels for i in ids} | {i for event in around for ids, _ in event for i in ids}
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
        vectors += faint @ table
    return np.asarray(sorted(used)), vectors


def _faint(rng: np.random.Generator, count: int, labels: int) -> np.ndarray:
    """A distribution over labels for each event, float32[L, C], from flat to nearly certain."""
    logits = rng.uniform(0.5, 4.0, (count, 1)) * rng.standard_normal((count, labels))
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _part(seen: History, part: slice) -> History:
    """Some consecutive events of a history."""
    values = {f.name: getattr(seen, f.name)[part].copy() for f in dataclasses.fields(History)}
    values["gap"][:1] = False
    return History(**values)


def _first_turn(
    tokenizer: Tokenizer, n_soft: int, words: str, instruction: str, *, vectors_first: bool
) -> list[int]:
    """The opening with the history as vectors, in words, or both in one of the two orders."""
    if vectors_first or not words:
        return opening(tokenizer, n_soft, words + instruction)
    whole = opening(tokenizer, n_soft, instruction)
    head = 1 + len(tokenizer.encode("user\n"))
    return [*whole[:head], *tokenizer.encode(words), *whole[head:]]


def draw_dialogue(rng: Random, tokenizer: Tokenizer, pieces: tuple[str, ...], room: int) -> Encoded:
    """A dialogue of at most `room` tokens."""
    form = rng.choices(("vectors", "words", "mixed"), (0.66, 0.17, 0.17))[0]
    longest = {"vectors": LONGEST, "words": 16, "mixed": 28}[form]
    length = 40 if form == "vectors" and rng.random() < 0.4 else rng.randint(2, longest)
    world = draw_world(rng, length, pieces)
    window = window_of(world, 0, length, f"{rng.random():.9f}")
    given = {"vectors": length, "words": 0, "mixed": rng.randint(1, length - 1)}[form]
    vectors_first = form != "mixed" or rng.random() < 0.5
    rounds = draw_rounds(rng, window, world)
    encoded = Encoded()
    if given:
        faint = None
        if rng.random() < 0.6:
            labels = window.catalogue.behaviours
            faint = _faint(np.random.default_rng(rng.getrandbits(32)), length, len(labels))
            if (form == "vectors" or not vectors_first) and rng.random() < 0.8:
                drawn = rng.choices(labels, faint[-1].tolist())[0]
                rounds.insert(rng.randint(0, len(rounds)), Round("faint", FAINT, drawn))
        encoded.columns, encoded.vectors = event_vectors(tokenizer, window, faint)
    shown = range(given) if vectors_first else range(length - given, length)
    words = ""
    if given < length:
        part = slice(given, length) if vectors_first else slice(0, length - given)
        words = history_text(window.catalogue, _part(window.history, part)) + "\n"
    for number, turn in enumerate(rounds, 1):
        if number == 1:
            again = shown
            head = _first_turn(
                tokenizer, len(shown), words, turn.instruction, vectors_first=vectors_first
            )
        else:
            again = shown[-rng.randint(1, RECALLED) :] if shown and rng.random() < 0.3 else shown[:0]
            head = next_turn(tokenizer, turn.instruction, len(again))
        encode = partial(label_tokens, tokenizer) if turn.kind == "faint" else tokenizer.encode
        body = [*encode(turn.answer), tokenizer.im_end]
        if len(encoded.tokens) + len(head) + len(body) > room:
            break
        places = iter(again)
        encoded.shown += [next(places) if t == tokenizer.soft else 0 for t in head] + [0] * len(body)
        encoded.tokens += head + body
        encoded.answer += [0] * len(head) + [number] * len(body)
        encoded.rounds.append(turn)
    return encoded


def draw_batch(
    seed: str, tokenizer: Tokenizer, pieces: tuple[str, ...], shape: tuple[int, int], most_vectors: int
) -> tuple[dict[str, np.ndarray], list[tuple[str, int, slice]]]:
    """Rows of packed dialogues that depend on `seed` alone, and (round kind, row, tokens) of each answer.

    tokens, segments, positions, answer, shown int32[B, T]; vectors float32[most_vectors, V], of which
    placeholder t takes vectors[shown[b, t]]; wanted int32[N], places in the flat tokens that have a loss,
    answers first, then other text, and is_answer bool[N].
    """
    rng = Random(seed)
    rows, length = shape
    names = ("tokens", "segments", "positions", "answer", "shown")
    batch = {name: np.zeros(shape, np.int32) for name in names}
    batch["vectors"] = np.zeros((most_vectors, tokenizer.vocab_size), np.float32)
    answers: list[tuple[str, int, slice]] = []
    taken = 0
    for row in range(rows):
        fill = segment = 0
        while length - fill > 64:
            one = draw_dialogue(rng, tokenizer, pieces, length - fill)
            if not one.rounds or taken + len(one.vectors) > most_vectors:
                break
            segment += 1
            at = slice(fill, fill + len(one.tokens))
            batch["tokens"][row, at] = one.tokens
            batch["segments"][row, at] = segment
            batch["positions"][row, at] = np.arange(len(one.tokens))
            batch["answer"][row, at] = one.answer
            batch["shown"][row, at] = np.asarray(one.shown) + taken
            stop = taken + len(one.vectors)
            batch["vectors"][taken:stop, one.columns] = one.vectors
            marks = np.asarray(one.answer)
            for number, turn in enumerate(one.rounds, 1):
                spots = np.flatnonzero(marks == number)
                answers.append((turn.kind, row, slice(fill + int(spots[0]), fill + int(spots[-1]) + 1)))
            taken, fill = stop, at.stop
    inside = (batch["segments"] > 0) & (batch["positions"] > 0) & (batch["tokens"] != tokenizer.soft)
    rank = np.where(batch["answer"] > 0, 0.0, 1.0 + np.random.default_rng(taken).random(shape))
    order = np.argsort(np.where(inside, rank, 9.0).reshape(-1), kind="stable")
    batch["wanted"] = order[: rows * length * 5 // 8].astype(np.int32)
    batch["is_answer"] = batch["answer"].reshape(-1)[batch["wanted"]] > 0
    return batch, answers
