"""The day grammar: whatever is drawn under its guards parses; canonical texts are accepted."""

import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.decoding import grammar
from bua_jax.decoding.grammar import DayState, Tables, compile_day
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


def day_state(weekday: int, places: list[int]) -> DayState:
    return DayState(*(jnp.asarray([value]) for value in grammar.start_of(weekday, places)))


def step(tables: Tables, day: DayState, token: int, full: bool) -> DayState | None:
    """After a token; None if it is not among the row's edges."""
    legal = np.asarray(grammar.allowed(tables, day, jnp.asarray([full])))[0]
    tokens = np.asarray(tables.tokens[day.state[0]])
    (edges,) = np.nonzero(legal & (tokens == token))
    return grammar.advance(tables, day, jnp.asarray(edges[:1])) if len(edges) else None


@pytest.mark.parametrize(("slots", "places"), [(48, True), (24, True), (48, False)])
def test_every_draw_parses(slots, places):
    catalogue = Catalogue(LABELS, slots, has_places=places)
    words = vocabulary(0)
    tables = compile_day(catalogue, words, len(words), STOP)
    rng, rows = np.random.default_rng(1), 200
    one = day_state(1, [0, 1, 10])
    day = DayState(*(jnp.repeat(value, rows) for value in one))
    texts, done = [b""] * rows, np.zeros(rows, bool)
    while not done.all():
        legal = np.asarray(grammar.allowed(tables, day, day.events >= 4))
        assert legal[~done].any(1).all(), "a row has nowhere to go"
        choice = np.asarray([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in legal])
        tokens = np.asarray(tables.tokens)[np.asarray(day.state), choice]
        done |= tokens == STOP
        for i in np.flatnonzero(~done):
            texts[i] += words[tokens[i]] or b""
        day = grammar.advance(tables, day, jnp.asarray(choice))
    for text in texts:
        parsed = parse_day(text.decode(), catalogue)
        assert parsed is not None, text
        assert parsed.weekday == 1
        assert len(parsed) <= 4
        assert not places or set(parsed.place) <= {0, 1, 10}
    assert len(set(texts)) > 150
    assert max(len(parse_day(text.decode(), catalogue) or ()) for text in texts) == 4


def test_canonical_lines_are_accepted_and_bad_ones_are_not():
    catalogue = Catalogue(LABELS, 48, has_places=True)
    tables = compile_day(catalogue, [bytes([i]) for i in range(256)], 256, STOP)

    def accepted(text: str) -> bool:
        day: DayState | None = day_state(3, [0, 1, 2])
        for token in [*text.encode(), STOP]:
            if day is None:
                return False
            day = step(tables, day, token, bool(day.events[0] >= 5))
        return day is not None

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
        "Thu 09:00 L1 eat; nothing",
        "Thu ",
        "Thu 07:30 L1 eat; " * 5 + "07:30 L1 eat",  # six events
    ):
        assert not accepted(text.replace("; Thu", ";")), text


def test_all_texts_are_reachable_through_merged_tokens():
    """A token over a label's end is an edge; one that reaches into a second event is left out."""
    catalogue = Catalogue(LABELS, 24, has_places=False)
    words: list[bytes | None] = [bytes([i]) for i in range(256)]
    words += [b"01:00 eat", b" eat; ", b"eat; 02", b"1:00 eat; 02", None]
    tables = compile_day(catalogue, words, len(words), STOP)
    day = day_state(0, [])
    for token in b"Mon ":
        after = step(tables, day, token, False)
        assert after is not None
        day = after
    whole = step(tables, day, 256, False)
    assert whole is not None
    assert int(whole.events[0]) == 1
    assert step(tables, whole, ord(";"), False) is not None
    assert step(tables, whole, ord(";"), True) is None  # full: no further event
    assert step(tables, whole, STOP, True) is not None
    zero = step(tables, day, ord("0"), False)
    assert zero is not None
    assert step(tables, zero, 259, False) is None
