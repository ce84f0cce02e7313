"""The hybrid prompt: a history in words, in soft tokens, or in both; a question; one answer.

With BUA's source a prompt is token for token that of BUA's final round (but for its second soft tokens),
and without soft tokens that of its history in words. What differs otherwise is in `alignment.hybrid`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from zlib import crc32

import numpy as np

from bua_jax.dialogue.notes import background
from bua_jax.dialogue.prompts import (
    Tokenizer,
    TokenRecord,
    bracketed,
    label_tokens,
    turn_end,
    turn_start,
)
from bua_jax.dialogue.rounds import kind_id, task_id
from bua_jax.dialogue.tasks import prediction_instruction
from bua_jax.dialogue.text import history_pieces
from bua_jax.events.schema import Catalogue, History

# ------------------------------------------------------------------------------------- two switches


@dataclass(frozen=True)
class Source:
    """What a prompt shows of a history; without words its soft tokens stand for the events."""

    words: bool = True
    items: bool = False  # a soft token behind each event
    user: bool = False  # one before them all
    encoder: str = ""  # whose vectors they are: SASRec's, the run's encoder's, or nobody's


SOURCES: dict[str, Source] = {
    "none": Source(),
    "item": Source(items=True, encoder="sasrec"),  # its table of behaviours
    "last": Source(user=True, encoder="sasrec"),  # its state at the last event
    "states": Source(words=False, encoder="encoder"),  # a state per event (Eq. 1)
    "item+user": Source(items=True, user=True, encoder="sasrec"),
}
"""Where soft tokens come from."""

TARGETS: dict[str, tuple[str, ...]] = {"label": (), "yes_no": ("Yes", "No")}
"""What is answered: the label, or one of these about each candidate."""


# ---------------------------------------------------------------------------------------- the prompt


class Known(NamedTuple):
    """A history, what came next, and a note about the person, which stands before the history."""

    history: History
    label: int
    note: str = ""


Piece = str | int | tuple[int, ...]
"""Text, a soft token, or soft tokens in brackets; numbers are what the token stands for (`soft_index`)."""


@dataclass(frozen=True)
class Asked:
    """A part of a user turn: its tokens, what its placeholders stand for, and the events that is among."""

    tokens: list[int]
    shown: list[int]
    events: np.ndarray  # int32[L, 4], [0, 4] without placeholders

    def __add__(self, other: "Asked") -> "Asked":
        """Both; the other's events are its own alone, and stand behind these."""
        moved = [i + len(self.events) for i in other.shown]
        events = np.concatenate([self.events, other.events])
        return Asked(self.tokens + other.tokens, self.shown + moved, events)


@dataclass(frozen=True)
class Prompts:
    """How histories are asked about. drill: a question that the instruction for a label begins with."""

    tokenizer: Tokenizer
    catalogue: Catalogue
    source: Source
    drill: str = ""

    def label(self, history: History, note: str = "") -> Asked:
        """A whole user turn that asks for the next behaviour."""
        question = prediction_instruction(self.catalogue, drill=self.drill)
        pieces = [*self._history(history, note), question]
        asked = self._part(pieces, history.encoder_fields())
        return self._with(asked, turn_start(self.tokenizer), turn_end(self.tokenizer))

    def head(self, history: History, note: str = "") -> Asked:
        """A user turn as far as it is the same for all candidates."""
        asked = self._part(self._history(history, note), history.encoder_fields())
        return self._with(asked, turn_start(self.tokenizer), [])

    def candidate(self, label: int) -> Asked:
        """The rest of that turn, up to where the answers yes and no part."""
        slot: list[Piece] = [0] if self.source.items else []
        name = self.catalogue.behaviours[label]
        asked = self._part([f"Does {name}", *slot, " come next?"], self._candidates[[label]])
        after = [*turn_end(self.tokenizer), *self.answers[2]]
        return self._with(asked, [], after)

    @cached_property
    def answers(self) -> tuple[int, int, list[int]]:
        """The tokens that tell yes from no, and what both begin with."""
        yes, no = (label_tokens(self.tokenizer, word) for word in TARGETS["yes_no"])
        shared = [
            a for a, b in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(yes, no, strict=False))
        ]
        return yes[len(shared)], no[len(shared)], shared

    @cached_property
    def _candidates(self) -> np.ndarray:
        """int32[C, 4]: events whose item is a behaviour's."""
        fields = np.zeros((len(self.catalogue.behaviours), 4), np.int32)
        fields[:, 3] = np.arange(len(fields))
        return fields

    def _history(self, history: History, note: str) -> list[Piece]:
        count, source = len(history), self.source
        pieces: list[Piece] = [background(note)] if note else []
        if not source.words:
            return [*pieces, tuple(range(count))]
        pieces += [(-count,)] if source.user and count else []  # the last event's state
        for i, text in enumerate(history_pieces(self.catalogue, history)):
            pieces += [text, i] if source.items else [text]
        return [*pieces, "\n"]

    def _part(self, pieces: Sequence[Piece], events: np.ndarray) -> Asked:
        tokens: list[int] = []
        shown: list[int] = []
        for is_text, some in itertools.groupby(pieces, lambda piece: isinstance(piece, str)):
            if is_text:
                tokens += self.tokenizer.encode("".join(map(str, some)))
                continue
            for piece in some:
                if isinstance(piece, tuple):
                    tokens += bracketed(self.tokenizer, len(piece))
                    shown += piece
                elif isinstance(piece, int):
                    tokens.append(self.tokenizer.soft)
                    shown.append(piece)
        return Asked(tokens, shown, events[: len(events) if shown else 0].astype(np.int32))

    @staticmethod
    def _with(asked: Asked, before: list[int], after: list[int]) -> Asked:
        return Asked([*before, *asked.tokens, *after], asked.shown, asked.events)


# ------------------------------------------------------------------------------- what is trained on


def record(prompts: Prompts, asked: Asked, answer: Sequence[int]) -> TokenRecord:
    """A user turn and the tokens that answer it, which are supervised."""
    tokens = np.asarray([*asked.tokens, *answer], np.int32)
    supervised = (np.arange(len(tokens)) >= len(asked.tokens)).astype(np.int32)
    soft_index = np.zeros_like(tokens)
    soft_index[tokens == prompts.tokenizer.soft] = asked.shown
    kind, task = kind_id("prediction"), task_id("prediction")
    return TokenRecord(tokens, supervised, kind * supervised, soft_index, asked.events, task)


def records(
    prompts: Prompts,
    target: str,
    cases: Mapping[str, Known],
    negatives: int,
    seed: int,
) -> Iterator[tuple[str, TokenRecord]]:
    """The records of cases, by name.

    Of the target `yes_no` a case has one for its next behaviour and one for each of `negatives` others, all
    that differ if there are fewer; they depend on (seed, name) alone.
    """
    classes = len(prompts.catalogue.behaviours)
    for name, (history, label, note) in cases.items():
        if target == "label":
            said = label_tokens(prompts.tokenizer, prompts.catalogue.behaviours[label])
            answer = [*said, prompts.tokenizer.im_end]
            yield name, record(prompts, prompts.label(history, note), answer)
            continue
        yes, no, _ = prompts.answers
        head, rng = prompts.head(history, note), np.random.default_rng([seed, crc32(name.encode())])
        others = rng.permutation(np.delete(np.arange(classes), label))[:negatives]
        for one in (label, *others.tolist()):
            asked = head + prompts.candidate(one)
            yield name, record(prompts, asked, [yes if one == label else no])


# ------------------------------------------------------------------------------------ distributions


def distribution(logits: np.ndarray, negatives: int) -> np.ndarray:
    """float64[n, C], rows sum to 1, of the logits of yes float[n, C] for each of C candidates.

    A candidate c is shown as the next one with probability p_c, and as another with (1 - p_c) k / (C - 1),
    where k `negatives` are drawn of C - 1. So the logit is log(p_c / (1 - p_c)) - log(k / (C - 1)), and
    p_c the sigmoid of the logit plus log(k / (C - 1)); candidates are judged one by one, so these are divided
    by their sum.
    """
    classes = logits.shape[1]
    if classes == 1:
        return np.ones(logits.shape)
    shift = np.log(min(negatives, classes - 1) / (classes - 1))
    log_p = -np.logaddexp(0, -(logits.astype(np.float64) + shift))
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)
