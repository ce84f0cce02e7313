"""Texts of events and days, and their parsers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import DataError
from bua_jax.dialogue.text import (
    GAP_LINE,
    day_text,
    history_text,
    normalise,
    parse_day,
    parse_day_lenient,
    parse_label,
)
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day, history
from tests.dialogue.stores import make_store

LABELS = (
    "Professional & Other Places",
    "Travel & Transport",
    "check weather",
    "nothing",
    "other",
    "L1",
    "07:30",
    "type 7, rare: yes!",
    "Café (à emporter)",
)
PLACES = Catalogue(LABELS, 48, has_places=True)
NO_PLACES = Catalogue(LABELS, 24, has_places=False)


@st.composite
def days(draw: st.DrawFn, catalogue: Catalogue) -> Day:
    slots = sorted(draw(st.lists(st.integers(0, catalogue.slots_per_day - 1), max_size=8)))
    place = st.integers(0, 10) if catalogue.has_places else st.just(1)
    return Day(
        draw(st.integers(0, 6)),
        tuple(slots),
        tuple(draw(place) for _ in slots),
        tuple(draw(st.integers(0, len(LABELS) - 1)) for _ in slots),
    )


def test_text_is_the_agreed_one():
    day = Day(1, (15, 16), (1, 0), (2, 1))
    assert day_text(PLACES, day) == "Tue 07:30 L1 check weather; 08:00 other Travel & Transport"
    assert day_text(NO_PLACES, Day(0, (7,), (1,), (2,))) == "Mon 07:00 check weather"
    assert day_text(PLACES, Day(1, (), (), ())) == "Tue nothing"


@pytest.mark.parametrize("catalogue", [PLACES, NO_PLACES], ids=["places", "no places"])
def test_parse_day_inverts_day_text_for_awkward_labels(catalogue):
    @settings(max_examples=200, deadline=None)
    @given(days(catalogue))
    def check(day):
        text = day_text(catalogue, day)
        assert parse_day(text, catalogue) == day
        assert parse_day_lenient(text, catalogue, day.weekday) == (day, 0)

    check()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tue",
        "tue 07:30 L1 check weather",
        "Tue 07:30 check weather",
        "Tue 07:15 L1 check weather",
        "Tue 07:30 L11 check weather",
        "Tue 07:30 L01 check weather",
        "Tue 07:30 L1 check  weather",
        "Tue 08:00 L1 check weather; 07:30 L1 check weather",
        "Tue 07:30 L1 check weather;",
        "Tue 07:30 L1 fly to the moon",
    ],
)
def test_parse_day_refuses_other_texts(text):
    assert parse_day(text, PLACES) is None


def test_lenient_parser_keeps_what_parses_and_counts_the_rest():
    text = "tuesday: 7:45 l2 Check Weather; 08:00 L99 other; junk; 07:00 L1 L1; 09:00 other 07:30;"
    day, invalid = parse_day_lenient(text, PLACES, 1)
    assert day == Day(1, (15, 18), (2, 0), (2, 6))
    assert invalid == 3  # L99, junk, and 07:00 after 07:30
    assert parse_day_lenient("09:00 L1 L1", PLACES, 4) == (Day(4, (18,), (1,), (5,)), 1)
    assert parse_day_lenient("Mon nothing", PLACES, 0) == (Day(0, (), (), ()), 0)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_lenient_parser_accepts_any_text(text):
    day, invalid = parse_day_lenient(text, PLACES, 3)
    assert day.weekday == 3
    assert invalid >= 0
    assert list(day.slot) == sorted(day.slot)


def test_labels_are_normalised_but_never_guessed():
    assert parse_label("Check Weather.", PLACES) == 2
    assert parse_label("  travel &  transport\n", PLACES) == 1
    assert parse_label("type 7, rare: yes!", PLACES) == 7
    assert parse_label("check", PLACES) == -1
    assert parse_label("check weather and chat", PLACES) == -1
    assert parse_label("", PLACES) == -1
    twins = Catalogue(("Food", "food", "pay"), 24, has_places=False)
    assert [parse_label(t, twins) for t in ("Food", "food", "FOOD")] == [0, 1, -1]
    assert normalise("  «Straße» ") == normalise("STRASSE")


@pytest.mark.parametrize("label", ["a; b", "a\nb", " a", "", "<|im_end|>"])
def test_catalogue_refuses_labels_that_the_text_cannot_carry(label):
    with pytest.raises(DataError, match="Rename it"):
        Catalogue(("pay", label), 24, has_places=False)


def test_history_text_reads_back_day_by_day_and_shows_gaps():
    rows = [(0, 3, 5, 0, False), (0, 9, 6, 1, False), (1, 2, 5, 2, False), (4, 1, 7, 0, True)]
    store = make_store([rows])
    seen = history(store, 0, 4)
    lines = history_text(store.catalogue, seen).split("\n")
    assert lines[2] == GAP_LINE
    read = [parse_day(line, store.catalogue) for line in lines if line != GAP_LINE]
    assert all(day is not None for day in read)
    for name in ("slot", "place", "behaviour"):
        flat = [value for day in read for value in getattr(day, name)]
        np.testing.assert_array_equal(flat, getattr(seen, name))
    assert [day.weekday for day in read] == [0, 1, 4]
