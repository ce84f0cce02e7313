"""The day grammar: whatever is drawn under its masks parses; canonical texts are accepted."""

import numpy as np
import pytest

from bua_jax.decoding.grammar import DayGrammar, State, byte_trie
from bua_jax.dialogue.text import day_text, parse_day
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day

LABELS = ("eat", "eat out", "eaten", "go & run", "schläft", "步行")
STOP = 300


def vocabulary(seed: int) -> list[bytes | None]:
    """Bytes, and random pieces of lines as a BPE would merge them, across all boundaries."""
    rng = np.random.default_rng(seed)
    line = "Tue 07:30 L1 eat out; 08:00 L10 步行; 23:30 other schläft; nothing eaten".encode()
    pieces: list[bytes | None] = [bytes([i]) for i in range(256)]
    for _ in range(44):
        start = int(rng.integers(0, len(line) - 6))
        pieces.append(line[start : start + int(rng.integers(2, 7))])
    return [*pieces, None]


@pytest.mark.parametrize(("slots", "places"), [(48, True), (24, True), (48, False)])
def test_every_draw_parses(slots, places):
    catalogue = Catalogue(LABELS, slots, has_places=places)
    words = vocabulary(0)
    grammar = DayGrammar(catalogue, byte_trie(words), len(words), STOP, 1, [0, 1, 10], 4)
    rng, drawn = np.random.default_rng(1), set()
    for _ in range(200):
        state, text = grammar.initial(), b""
        while True:
            token = int(rng.choice(np.flatnonzero(grammar.mask(state))))
            if token == STOP:
                break
            text += words[token] or b""
            after = grammar.advance(state, words[token] or b"")
            assert after is not None
            state = after
        day = parse_day(text.decode(), catalogue)
        assert day is not None, text
        assert day.weekday == 1
        assert len(day) <= 4
        assert not places or set(day.place) <= {0, 1, 10}
        drawn.add(text)
    assert len(drawn) > 150


def test_canonical_lines_are_accepted_and_bad_ones_are_not():
    catalogue = Catalogue(LABELS, 48, has_places=True)
    grammar = DayGrammar(catalogue, {}, 1, 0, 3, [0, 1, 2], 5)

    def accepted(text: str) -> bool:
        state: State | None = grammar.advance(grammar.initial(), text.encode())
        return state is not None and grammar.advance(state, b"\x00") is not None

    day = Day(3, (14, 14, 30), (1, 0, 2), (0, 4, 5))
    assert accepted(day_text(catalogue, day))
    assert accepted(day_text(catalogue, Day(3, (), (), ())))
    for text in (
        "Wed 07:30 L1 eat",  # another weekday
        "Thu 07:30 L3 eat",  # a place that the history lacks
        "Thu 07:15 L1 eat",  # no slot
        "Thu 07:30 L1 fly",  # no label
        "Thu 09:00 L1 eat; 08:00 L1 eat",  # back in time
        "Thu 09:00 L1 eat;",  # cut
        "Thu ",
    ):
        assert not accepted(text), text


def test_no_more_events_than_allowed():
    catalogue = Catalogue(LABELS, 24, has_places=False)
    grammar = DayGrammar(catalogue, {}, 1, 0, 0, [], 2)
    line = b"Mon 01:00 eat; 02:00 eat"
    state = grammar.advance(grammar.initial(), line)
    assert state is not None
    assert grammar.advance(state, b"; ") is None
    assert grammar.advance(state, b"\x00") is not None
