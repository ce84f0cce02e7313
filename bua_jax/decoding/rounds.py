"""Multi-round decoding: understanding rounds, then a prediction or a generated day.

Every history is a job of the engine (decoding/engine.py); its rounds continue on its own cache.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.special import log_softmax

from bua_jax.basics.console import progress
from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.decoding import engine, grammar
from bua_jax.decoding.cache import Weights, prepare
from bua_jax.decoding.engine import DayTurn, Drawing, Engine, Job, Reply, Turn
from bua_jax.decoding.labels import LabelTree, build_tree
from bua_jax.dialogue.prompts import (
    Tokenizer,
    first_instruction,
    label_tokens,
    next_turn,
    num_placeholders,
    opening,
    recalled,
)
from bua_jax.dialogue.text import parse_day, parse_day_lenient, parse_label
from bua_jax.events.schema import Catalogue, History
from bua_jax.events.windows import Day
from bua_jax.models.aligned import Aligned

DECODE = ("labels", "trie", "free")
"""Predictions by exact scores of all labels, greedily along their tree, or as free text."""
_BUCKET = 64
_TOKENS_PER_EVENT = 8  # of a generated day; beyond them the event at hand is finished
_FEEDBACK = 192  # tokens that an instruction may have besides an earlier answer that it quotes


@dataclass(frozen=True)
class Decoder:
    """A model with what is needed to talk to it; `batch` histories are decoded together.

    `vocabulary`: bytes of each token id (None for ids that are no text), for generated days.
    """

    model: Aligned
    variables: Any
    tokenizer: Tokenizer
    catalogue: Catalogue
    vocabulary: Sequence[bytes | None]
    batch: int = 32
    max_new_tokens: int = 96  # of an understanding round
    cache_dtype: str = "float32"  # float32, bfloat16 or int8
    mesh: Mesh | None = None  # over which the variables are spread

    @cached_property
    def weights(self) -> Weights:
        return prepare(self.model, self.variables)

    @cached_property
    def day_tables(self) -> grammar.Tables:
        tokenizer = self.tokenizer
        return grammar.compile_day(
            self.catalogue, self.vocabulary, tokenizer.vocab_size, tokenizer.im_end
        )


@dataclass(frozen=True)
class Understanding:
    """Texts of a history's understanding rounds, by kind; `truncated` counts rounds cut at the limit."""

    texts: dict[str, str]
    truncated: int


# An instruction may depend on what was answered before (the refinement's draft).
Instruction = str | Callable[[dict[str, str], int], str]
Rounds = Sequence[tuple[str, Instruction]]


def check_room(decoder: Decoder, history: History) -> None:
    """Raises `ConfigError` for a history longer than the encoder was trained on."""
    encoder: Any = decoder.model.encoder
    if len(history) > (room := encoder.config.max_events):
        raise ConfigError(
            f"A history has {len(history)} events, but the encoder was trained on {room} at most. Give it "
            "the last ones only, as read_history does."
        )


def _first_turn(
    decoder: Decoder, history: History, instruction: str, *, final: bool = False
) -> Turn:
    kind = decoder.model.soft_tokens
    n_soft = num_placeholders(len(history), kind)
    if n_soft:
        check_room(decoder, history)
    text = first_instruction(instruction, decoder.catalogue, history, kind)
    events = history.encoder_fields() if n_soft else None
    shown = [*range(n_soft), *(recalled(n_soft, decoder.model.recall) if final else ())]
    return Turn(opening(decoder.tokenizer, len(shown), text), shown=shown, events=events)


def _final_turn(decoder: Decoder, history: History, instruction: str, *, first: bool) -> Turn:
    """The final user turn, which has second soft tokens of the last events."""
    if first:
        return _first_turn(decoder, history, instruction, final=True)
    n_soft = num_placeholders(len(history), decoder.model.soft_tokens)
    shown = recalled(n_soft, decoder.model.recall)
    events = history.encoder_fields() if shown else None
    return Turn(next_turn(decoder.tokenizer, instruction, len(shown)), shown=shown, events=events)


def _joined(unread: Turn | None, turn: Turn) -> Turn:
    """One turn out of what a row has not read yet and the turn that follows it."""
    if unread is None:
        return turn
    return dataclasses.replace(
        turn,
        tokens=[*unread.tokens, *turn.tokens],
        shown=[*unread.shown, *turn.shown],
        events=unread.events if turn.events is None else turn.events,
    )


def _understanding(
    decoder: Decoder, history: History, rounds: Rounds, index: int, given: Mapping[str, str]
) -> Generator[Turn, Reply, tuple[Understanding, Turn | None]]:
    """The understanding rounds as turns of a job; the answers of those in `given` are not decoded.

    Returns what was said, and what the row has yet to read where the last answer was a given one.
    """
    texts: dict[str, str] = {}
    truncated, unread = 0, None
    for number, (kind, instruction) in enumerate(rounds):
        text = instruction(texts, index) if callable(instruction) else instruction
        first = number == 0
        turn = (
            _first_turn(decoder, history, text)
            if first
            else Turn(next_turn(decoder.tokenizer, text))
        )
        turn = _joined(unread, turn)
        if kind in given:
            texts[kind] = given[kind]
            said = [*decoder.tokenizer.encode(given[kind]), decoder.tokenizer.im_end]
            unread = dataclasses.replace(turn, tokens=[*turn.tokens, *said])
            continue
        unread = None
        answer = yield turn
        texts[kind] = decoder.tokenizer.decode(answer.tokens)
        truncated += answer.cut
    return Understanding(texts, truncated), unread


def _slots(
    decoder: Decoder, histories: Sequence[History], rounds: Rounds, final: Sequence[str], room: int
) -> int:
    """Cache slots that the longest dialogue may take, with `room` after its final turn."""
    total = room
    firsts = [""] * len(histories)
    for number, (_, instruction) in enumerate(rounds):
        total += decoder.max_new_tokens + 1
        if callable(instruction):
            total += decoder.max_new_tokens + _FEEDBACK
        elif number == 0:
            firsts = [instruction] * len(histories)
        else:
            total += len(next_turn(decoder.tokenizer, instruction))
    if not rounds:
        firsts = list(final)
    elif final:
        pairs = zip(histories, final, strict=True)
        total += max(len(_final_turn(decoder, h, text, first=False).tokens) for h, text in pairs)
    pairs = zip(histories, firsts, strict=True)
    total += max(len(_first_turn(decoder, h, text, final=not rounds).tokens) for h, text in pairs)
    return total


def run_jobs(
    decoder: Decoder, slots: int, jobs: Sequence[Callable[[], Job]], description: str, **parts: Any
) -> list[Any]:
    """Results of all jobs in order; slots: tokens that the longest may take."""
    ready = Engine(
        decoder.model,
        decoder.weights,
        decoder.tokenizer.im_end,
        batch=min(decoder.batch, 1 << (len(jobs) - 1).bit_length()),
        slots=-(-slots // _BUCKET) * _BUCKET,
        max_new=decoder.max_new_tokens,
        cache_dtype=decoder.cache_dtype,
        **parts,
    )
    with jax.set_mesh(decoder.mesh) if decoder.mesh else contextlib.nullcontext():
        found = dict(progress(engine.run(ready, jobs), description, total=len(jobs)))
    return [found[number] for number in range(len(jobs))]


def understand(
    decoder: Decoder, histories: Sequence[History], rounds: Rounds
) -> list[Understanding]:
    """The texts of the rounds (kind, instruction) for every history."""
    if not histories:
        return []

    def job(i: int) -> Job:
        said, _ = yield from _understanding(decoder, histories[i], rounds, i, {})
        return said

    jobs = [functools.partial(job, i) for i in range(len(histories))]
    return run_jobs(decoder, _slots(decoder, histories, rounds, [], 0), jobs, "understanding")


def label_tree(decoder: Decoder) -> LabelTree:
    """The prefix tree of all labels as final answers."""
    labels = decoder.catalogue.behaviours
    return build_tree([label_tokens(decoder.tokenizer, label) for label in labels])


def check_finite(log_p: np.ndarray, i: int) -> None:
    """Raises `CheckpointError` for log-probabilities of which no prediction can be made."""
    if not np.isfinite(log_p).all():
        raise CheckpointError(
            f"The log-probabilities of history {i + 1} are not finite. The weights of base, adapter or "
            "projector are too large for the model's type: choose another checkpoint, or "
            "--config.model.dtype=float32."
        )


def predict(
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Rounds,
    final: Sequence[str],
    *,
    decode: str = "labels",
    given: Sequence[Mapping[str, str]] | None = None,
) -> tuple[np.ndarray, list[Understanding]]:
    """The next behaviour of every history, after the understanding rounds.

    final: the prediction instruction of each history. given: answers of some rounds of each history by
    kind, which the model reads as its own (oracle substitution, Appendix J). Returns log-probabilities
    float32[n, C] over all labels (exact, normalised over them) and the texts; with `decode` "trie" or
    "free" 0 for the label that was written and -inf elsewhere (a row of -inf only = an invalid answer,
    which free text alone can be).
    """
    free = decode == "free"
    labels = decoder.catalogue.behaviours
    if not histories:
        return np.zeros((0, len(labels)), np.float32), []

    def job(i: int) -> Job:
        answers = given[i] if given else {}
        said, unread = yield from _understanding(decoder, histories[i], rounds, i, answers)
        turn = _final_turn(decoder, histories[i], final[i], first=not rounds)
        turn = _joined(unread, turn)
        if not free:
            log_p, label = yield dataclasses.replace(turn, wants="labels")
            check_finite(log_p, i)
            if decode == "labels":
                return log_softmax(log_p), said
        else:
            answer = yield turn
            label = parse_label(decoder.tokenizer.decode(answer.tokens), decoder.catalogue)
        scores = np.full(len(labels), -np.inf, np.float32)
        if label >= 0:
            scores[label] = 0.0
        return scores, said

    room = decoder.max_new_tokens + 1 if free else 0
    for answers in given or ():
        room = max(room, sum(len(decoder.tokenizer.encode(text)) for text in answers.values()))
    slots = _slots(decoder, histories, rounds, final, room)
    jobs = [functools.partial(job, i) for i in range(len(histories))]
    results = run_jobs(decoder, slots, jobs, "predicting", tree=label_tree(decoder))
    return np.stack([scores for scores, _ in results]), [said for _, said in results]


@dataclass(frozen=True)
class GeneratedDay:
    """A generated day, its text, and how many pieces of a free answer did not parse.

    `truncated`: the text was cut at its limit of tokens (only free ones can be).
    """

    day: Day
    text: str
    invalid: int
    truncated: bool = False


def generate(  # noqa: PLR0913 (how a day is drawn is said by name)
    decoder: Decoder,
    histories: Sequence[History],
    rounds: Rounds,
    final: Sequence[str],
    weekdays: Sequence[int],
    *,
    constrained: bool = True,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 42,
    rows: Sequence[int] = (),
    max_events: int = 24,
    predict_first: Sequence[str] = (),
) -> tuple[list[GeneratedDay], list[Understanding], np.ndarray]:
    """The next day of every history, after the understanding rounds.

    final: the generation instruction of each history; weekdays: of the day to write. Constrained days
    obey the grammar and always parse; free ones are parsed leniently. History i draws from
    (seed, rows[i]), by default (seed, i), so that neither the batch nor how a file is divided matters.

    predict_first: a prediction instruction of each history, which is asked after the same rounds and
    then forgotten (design, decision 11). Returns days, texts, and what `predict` would:
    log-probabilities float32[n, C], or [0, C] without such instructions.
    """
    labels = decoder.catalogue.behaviours
    if not histories:
        return [], [], np.zeros((0, len(labels)), np.float32)
    drawing = Drawing(
        decoder.day_tables if constrained else None,
        temperature,
        top_p,
        seed,
        max_events,
        max_tokens=_TOKENS_PER_EVENT * max_events,
        reserve=grammar.longest_event(decoder.catalogue),
    )

    def job(i: int) -> Job:
        said, _ = yield from _understanding(decoder, histories[i], rounds, i, {})
        log_p = None
        if predict_first:
            turn = _final_turn(decoder, histories[i], predict_first[i], first=not rounds)
            log_p, _ = yield dataclasses.replace(turn, wants="labels")
            check_finite(log_p, i)
        turn = _final_turn(decoder, histories[i], final[i], first=not rounds)
        places = tuple(histories[i].place.tolist())
        day = DayTurn(weekdays[i], places, rows[i] if rows else i)
        answer = yield dataclasses.replace(turn, wants="day", day=day)
        return _day(decoder, answer, weekdays[i], constrained=constrained), said, log_p

    slots = _slots(decoder, histories, rounds, final, drawing.limit + 1)
    if predict_first:
        slots = max(slots, _slots(decoder, histories, rounds, predict_first, 0))
    jobs = [functools.partial(job, i) for i in range(len(histories))]
    tree = label_tree(decoder) if predict_first else None
    results = run_jobs(decoder, slots, jobs, "generating", drawing=drawing, tree=tree)
    days, texts, log_p = zip(*results, strict=True)
    scores = np.stack(log_p) if predict_first else np.zeros((0, len(labels)), np.float32)
    return list(days), list(texts), log_softmax(scores, axis=1)


def _day(decoder: Decoder, answer: Reply, weekday: int, *, constrained: bool) -> GeneratedDay:
    line = decoder.tokenizer.decode(answer.tokens)
    parsed = parse_day(line, decoder.catalogue) if constrained else None
    if parsed is not None:
        return GeneratedDay(parsed, line, 0)
    day, invalid = parse_day_lenient(line, decoder.catalogue, weekday)
    return GeneratedDay(day, line, invalid, answer.cut)
