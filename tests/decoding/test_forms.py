"""JSON under a grammar: whatever is drawn is an object of the choices, or a plan that the row may have."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.decoding import grammar
from bua_jax.decoding.forms import choices, plans
from bua_jax.decoding.grammar import DayState, Segments, compile_segments
from bua_jax.events.schema import Catalogue

LABELS = ("eat", "eat out", 'say "hi"', "schläft")
STOP, DRAWS, MOST = 300, 200, 3


def vocabulary() -> list[bytes | None]:
    """Bytes, and pieces across all boundaries as a BPE would merge them."""
    line = b'{"plan": [{"minute": 30, "place": "L1", "activity": "eat out"}, {"minute": 0'
    rng, pieces = np.random.default_rng(0), [bytes([i]) for i in range(256)]
    for _ in range(44):
        start = int(rng.integers(0, len(line) - 6))
        pieces.append(line[start : start + int(rng.integers(2, 7))])
    return [*pieces, None]


def drawn(segments: Segments, begin: str, places: list[int]) -> list[str]:
    """Texts by uniform choices among the edges that a row may take."""
    words = vocabulary()
    tables = compile_segments(segments, begin, words, len(words), STOP)
    one = [np.full(DRAWS, value) for value in grammar.start_of(0, places)]
    day, rng = DayState(*map(jnp.asarray, one)), np.random.default_rng(1)
    texts, done, tokens_of = [b""] * DRAWS, np.zeros(DRAWS, bool), np.asarray(tables.tokens)
    while not done.all():
        legal = np.asarray(grammar.allowed(tables, day, day.events >= MOST))
        assert legal[~done].any(1).all(), "a row has nowhere to go"
        choice = np.asarray([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in legal])
        tokens = tokens_of[np.asarray(day.state), choice]
        done |= tokens == STOP
        for i in np.flatnonzero(~done):
            texts[i] += words[tokens[i]] or b""
        day = grammar.advance(tables, day, jnp.asarray(choice))
    return [text.decode() for text in texts]


def test_objects_have_each_key_and_one_of_its_values() -> None:
    found = [
        json.loads(t)
        for t in drawn(choices({"a": ["0", "1", "10"], "b c": ['"x"', '"xy"']}), "key 0", [])
    ]
    assert all(list(one) == ["a", "b c"] for one in found)
    assert {one["a"] for one in found} == {0, 1, 10}
    assert {one["b c"] for one in found} == {"x", "xy"}


@pytest.mark.parametrize("has_places", [True, False])
def test_plans_are_of_the_rows_places_and_in_time(has_places: bool) -> None:
    catalogue = Catalogue(LABELS, 48, has_places=has_places)
    texts = drawn(plans(catalogue, (0, 30)), "first", [1, 10])
    found = [json.loads(text)["plan"] for text in texts]
    assert {len(plan) for plan in found} == {0, 1, 2, MOST}
    for plan in found:
        minutes = [event["minute"] for event in plan]
        assert minutes == sorted(minutes)
        assert {*minutes} <= {0, 30}
        assert {event["activity"] for event in plan} <= {*LABELS}
        assert {event.get("place", "L1") for event in plan} <= {"L1", "L10"}
        assert all(("place" in event) == has_places for event in plan)
