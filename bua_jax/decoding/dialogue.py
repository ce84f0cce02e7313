"""One history's dialogue as a job of the engine: understanding rounds, then a prediction, then a day."""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.decoding import grammar
from bua_jax.decoding.cache import Weights, prepare
from bua_jax.decoding.engine import DayTurn, Drawing, Reply, Turn
from bua_jax.dialogue.prompts import (
    Tokenizer,
    first_instruction,
    next_turn,
    num_placeholders,
    opening,
    recalled,
)
from bua_jax.dialogue.text import parse_day, parse_day_lenient
from bua_jax.events.schema import Catalogue, History
from bua_jax.events.windows import Day
from bua_jax.models.aligned import Aligned

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
    weight_dtype: str = "float32"  # as its weights are read: float32, bfloat16 or int8
    mesh: Mesh | None = None  # over which the variables are spread

    @cached_property
    def weights(self) -> Weights:
        return prepare(self.model, self.variables, self.weight_dtype)

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


def first_turn(
    decoder: Decoder, history: History, instruction: str, *, final: bool = False
) -> Turn:
    """The user turn that shows a history; a final one has second soft tokens. Raises as `check_room`."""
    kind = decoder.model.soft_tokens
    n_soft = num_placeholders(len(history), kind)
    if n_soft:
        check_room(decoder, history)
    text = first_instruction(instruction, decoder.catalogue, history, kind)
    events = history.encoder_fields() if n_soft else None
    shown = [*range(n_soft), *(recalled(n_soft, decoder.model.recall) if final else ())]
    return Turn(opening(decoder.tokenizer, len(shown), text), shown=shown, events=events)


def final_turn(decoder: Decoder, history: History, instruction: str, *, first: bool) -> Turn:
    """The final user turn, which has second soft tokens of the last events."""
    if first:
        return first_turn(decoder, history, instruction, final=True)
    n_soft = num_placeholders(len(history), decoder.model.soft_tokens)
    shown = recalled(n_soft, decoder.model.recall)
    events = history.encoder_fields() if shown else None
    return Turn(next_turn(decoder.tokenizer, instruction, len(shown)), shown=shown, events=events)


def joined(unread: Turn | None, turn: Turn) -> Turn:
    """One turn out of what a row has not read yet and the turn that follows it."""
    if unread is None:
        return turn
    return dataclasses.replace(
        turn,
        tokens=[*unread.tokens, *turn.tokens],
        shown=[*unread.shown, *turn.shown],
        events=unread.events if turn.events is None else turn.events,
    )


def understanding(
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
            first_turn(decoder, history, text)
            if first
            else Turn(next_turn(decoder.tokenizer, text))
        )
        turn = joined(unread, turn)
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


def room_of(
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
        total += max(len(final_turn(decoder, h, text, first=False).tokens) for h, text in pairs)
    pairs = zip(histories, firsts, strict=True)
    total += max(len(first_turn(decoder, h, text, final=not rounds).tokens) for h, text in pairs)
    return total


@dataclass(frozen=True)
class GeneratedDay:
    """A generated day, its text, and how many pieces of a free answer did not parse.

    `truncated`: the text was cut at its limit of tokens (only free ones can be).
    """

    day: Day
    text: str
    invalid: int
    truncated: bool = False


@dataclass(frozen=True)
class DayAsked:
    """A day to be written; `row` with the seed names its random stream."""

    instruction: str
    weekday: int
    row: int


@dataclass(frozen=True)
class Asked:
    """One dialogue; index: of the history, for instructions. Without `predict` no labels are scored."""

    history: History
    rounds: Rounds
    index: int = 0
    predict: str = ""  # the prediction instruction
    day: DayAsked | None = None


@dataclass(frozen=True)
class Said:
    """What came of it: log-probabilities float32[C], normalised, and the day, where they were asked for."""

    said: Understanding
    log_p: np.ndarray | None
    day: GeneratedDay | None


def dialogue(
    decoder: Decoder, asked: Asked, constrained: bool = True
) -> Generator[Turn, Any, Said]:
    """A job: the understanding rounds, then the prediction, which is forgotten, then the day."""
    history, first, log_p, day = asked.history, not asked.rounds, None, None
    said, _ = yield from understanding(decoder, history, asked.rounds, asked.index, {})
    if asked.predict:
        turn = final_turn(decoder, history, asked.predict, first=first)
        scores, _ = yield dataclasses.replace(turn, wants="labels")
        check_finite(scores, asked.index)
        log_p = log_softmax(scores)
    if asked.day is not None:
        weekday = asked.day.weekday
        turn = final_turn(decoder, history, asked.day.instruction, first=first)
        drawn = DayTurn(weekday, tuple(history.place.tolist()), asked.day.row)
        answer = yield dataclasses.replace(turn, wants="day", day=drawn)
        day = _day(decoder, answer, weekday, constrained=constrained)
    return Said(said, log_p, day)


def slots_of(decoder: Decoder, asked: Asked, drawing: Drawing) -> int:
    """Cache slots that a dialogue may take."""
    one, slots = [asked.history], 0
    if asked.day is not None:
        room = drawing.limit + 1
        slots = room_of(decoder, one, asked.rounds, [asked.day.instruction], room)
    final = [asked.predict] if asked.predict else []
    return max(slots, room_of(decoder, one, asked.rounds, final, 0))


def drawing_of(
    decoder: Decoder,
    constrained: bool,
    temperature: float,
    top_p: float,
    seed: int,
    max_events: int = 24,
) -> Drawing:
    """How days are drawn; constrained: by the grammar."""
    return Drawing(
        decoder.day_tables if constrained else None,
        temperature,
        top_p,
        seed,
        max_events,
        max_tokens=_TOKENS_PER_EVENT * max_events,
        reserve=grammar.longest_event(decoder.catalogue),
    )


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities float[C] of logits or of what does not sum to 1; scipy takes long to load."""
    below = scores - scores.max()
    return below - np.log(np.exp(below).sum())


def check_finite(log_p: np.ndarray, i: int) -> None:
    """Raises `CheckpointError` for log-probabilities of which no prediction can be made."""
    if not np.isfinite(log_p).all():
        raise CheckpointError(
            f"The log-probabilities of history {i + 1} are not finite. The weights of base, adapter or "
            "projector are too large for the model's type: choose another checkpoint, or "
            "--config.model.dtype=float32."
        )


def _day(decoder: Decoder, answer: Reply, weekday: int, *, constrained: bool) -> GeneratedDay:
    line = decoder.tokenizer.decode(answer.tokens)
    parsed = parse_day(line, decoder.catalogue) if constrained else None
    if parsed is not None:
        return GeneratedDay(parsed, line, 0)
    day, invalid = parse_day_lenient(line, decoder.catalogue, weekday)
    return GeneratedDay(day, line, invalid, answer.cut)
