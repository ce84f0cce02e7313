"""Jobs that join while others are being answered, and jobs that nobody waits for any more."""

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from bua_jax.decoding import engine, rounds
from bua_jax.decoding.dialogue import Asked, dialogue
from tests.decoding.fakes import ROUNDS, decoder, history_of

SEEN = [history_of(10 + i, i) for i in range(6)]
ONE = decoder(2, 12)


class Source:
    """Jobs by number: the first is there, the others come once something was heard of it.

    dropped: those that are gone once something was heard of them.
    """

    def __init__(self, count: int, dropped: tuple[int, ...] = ()) -> None:
        self.waiting, self.later = deque([0]), deque(range(1, count))
        self.dropped, self.told = dropped, dict[int, list[int]]()

    def take(self, idle: bool) -> tuple[int, Any] | None:
        """The next one that is there; idle: then the rest is too, or it is the end."""
        if idle and not self.waiting:
            self.waiting, self.later = self.later, deque()
        if not self.waiting:
            return None
        number = self.waiting.popleft()
        asked = Asked(SEEN[number], ROUNDS, number)
        return number, functools.partial(dialogue, ONE, asked)

    def gone(self, key: int) -> bool:
        """Whether it is to be dropped and has written something."""
        return key in self.dropped and key in self.told

    def heard(self, key: int, tokens: list[int]) -> None:
        """Others join."""
        self.told[key] = tokens
        self.waiting, self.later = self.waiting + self.later, deque()


@pytest.fixture(scope="module")
def alone() -> list[dict[str, str]]:
    return [said.texts for said in rounds.understand(decoder(1, 12), SEEN, ROUNDS)]


def served(source: Source, most: int = 3) -> dict[int, dict[str, str]]:
    """Texts by number, of two rows that look at the source after every three tokens."""
    slots = rounds.room_of(ONE, SEEN, ROUNDS, [], 0)
    ready = rounds.engine_of(ONE, 2, slots)
    return {number: found.said.texts for number, found in engine.serve(ready, source, most)}


def test_what_joins_is_answered_as_if_alone(alone) -> None:
    """Token for token, greedy in float32, as for jobs that are there from the beginning."""
    source = Source(6)
    assert served(source) == dict(enumerate(alone))
    assert set(source.told) == set(range(6))  # all were interrupted at least once


def test_what_is_gone_frees_its_row(alone) -> None:
    """The next job in its row is answered as if alone, and nothing comes of the one that is gone."""
    found = served(Source(6, dropped=(0, 2, 3)))
    assert found == {i: alone[i] for i in (1, 4, 5)}


def test_what_was_heard_begins_the_answer(alone) -> None:
    """What is told are tokens of the answer at hand: here of the last round."""
    source = Source(1)
    found = served(source)
    last = [*found[0].values()][-1]
    assert last.startswith(ONE.tokenizer.decode(source.told[0]).rstrip("\ufffd"))


@dataclass
class Between(Source):
    """Two jobs, of which the first is gone as soon as its first round is over; more join then."""

    more: int
    round_over: bool = False

    def __post_init__(self) -> None:
        super().__init__(2)
        self.waiting, self.later = deque([0, 1]), deque(range(2, 2 + self.more))

    def take(self, idle: bool) -> tuple[int, Any] | None:
        """Those that join have the row of the one that is gone."""
        if self.round_over:
            self.heard(-1, [])
        if (taken := super().take(idle)) is None or taken[0]:
            return taken

        def job() -> engine.Job:
            own = taken[1]()
            turn = next(own)
            while True:
                answer = yield turn
                self.round_over = True
                turn = own.send(answer)

        return 0, job

    def gone(self, key: int) -> bool:
        return key == 0 and self.round_over


@pytest.mark.parametrize("more", [0, 1])
def test_what_goes_between_two_rounds_costs_nobody_an_answer(alone, more: int) -> None:
    """Its next round was to be read: its row is empty, or another's, whose prompt is read once."""
    assert served(Between(more)) == {i: alone[i] for i in range(1, 2 + more)}


def test_all_may_be_gone() -> None:
    assert served(Source(2, dropped=(0, 1))) == {}
