"""Claims are read off texts, whatever the labels are, and are true or false of a window."""

import re

import numpy as np
import pytest

from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.evaluation.understanding.checks import Ground, holds, recalled
from bua_jax.evaluation.understanding.claims import ASPECTS, Claim, read
from bua_jax.evaluation.understanding.marks import marked, plain
from bua_jax.events.schema import Catalogue, History
from tests.evaluation.understanding.described import described

# labels that begin alike, that end in numbers, with signs, and that are words of the rules
LABELS = ("gym", "gym 2", "news: read", "Home", "food", "eat (out)", "now", "work")
GYM, GYM2, NEWS, HOME, FOOD, EAT, NOW, WORK = range(8)
CATALOGUE = Catalogue(LABELS, 48, True)


def window_of(rows: list[tuple[int, int, int, int]]) -> Window:
    """Of events (day, slot, place, behaviour); day 0 is a Wednesday."""
    day, slot, place, behaviour = np.asarray(rows, np.int32).T
    gap = np.zeros(len(rows), bool)
    seen = History(day, (day + 2) % 7, slot, behaviour, place, place, gap)
    return Window(seen, CATALOGUE, np.full(len(LABELS), 1 / len(LABELS)), "x")


WINDOW = window_of(
    [
        *((-2, 14, 1, GYM), (-2, 16, 1, NEWS), (-2, 20, 2, WORK)),
        *((-1, 14, 1, GYM), (-1, 17, 1, NEWS), (-1, 21, 2, WORK), (-1, 44, 1, FOOD)),
        *((0, 14, 1, GYM), (0, 16, 2, GYM2)),
    ]
)
GROUND = Ground(WINDOW)


def claims(text: str, *aspects: str) -> set[tuple]:
    found = read(CATALOGUE, text).claims
    return {tuple(claim) for claim in found if claim.aspect in (aspects or ASPECTS)}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gym 2 of 40; gym 2, gym", [GYM, GYM2, GYM]),
        ("Key: gym 2; gym 2 3 in the night. After gym 2 then gym", [GYM, GYM2, GYM2, GYM]),
        ("gym 2 2 times, gym 2 times", [GYM2, GYM]),
        ("food-loving, home L1 and work is L2: Home, food", [HOME, FOOD]),
        ("Now Wed 08:00: now. Seafood, EAT (OUT) and gyms", [NOW, EAT]),
        ("No night event shows a home. No separate work place is seen.", []),
        ("news: read then \ue0001\ue001", [NEWS]),  # nothing in a text passes for a mark
    ],
)
def test_labels_are_told_apart(text: str, named: list[int]) -> None:
    said = [one.claim.about[0] for one in read(CATALOGUE, text).said if one.claim.kind == "named"]
    assert said == named


def test_marks_can_be_undone() -> None:
    text = "Key: gym 2; gym 2 3 in the night. news: read leading to eat (out)"
    assert plain(CATALOGUE, marked(CATALOGUE, text)) == text
    assert "gym" not in marked(CATALOGUE, text)


@pytest.mark.parametrize(
    ("text", "aspect", "expected"),
    [
        ("gym 12 of 40 around 08:30", "counts", {("counts", (GYM,), "", (12, 40))}),
        ("gym 12 of 40 around 08:30", "times", {("times", (GYM,), "around", (17,))}),
        ("gym (5 times around 07:00 and 19:00)", "times", {("times", (GYM,), "around", (14, 38))}),
        (
            "In the evening there is food, twice",
            "times",
            {("times", (FOOD,), "part", ("evening",))},
        ),
        ("In the evening there is food, twice", "counts", {("counts", (FOOD,), "", (2,))}),
        ("an early riser who goes to gym", "traits", {("traits", (), "rhythm", ("early riser",))}),
        ("with varied days", "traits", {("traits", (), "regularity", ("varied",))}),
        ("a varied menu", "traits", set()),
        ("gym leading to food at L2", "order", {("order", (GYM, FOOD), "follows", ())}),
        ("gym, food", "order", set()),
        ("gym at L2", "places", {("places", (GYM,), "at", (2,))}),
        ("Home is L1: 3 of 4 night events.", "places", {("places", (), "home", (1,))}),
        ("Home is L1: 3 of 4 night events.", "counts", {("counts", (), "home", (3, 4))}),
        (
            "After gym then food: Home (2 of 3) and now (1 of 3).",
            "order",
            {("order", (GYM, FOOD, HOME), "after", ()), ("order", (GYM, FOOD, NOW), "after", ())},
        ),
        ("gym opens the day around 07:00", "times", {("times", (GYM,), "opens", (14,))}),
        ("7 apples around 08:30", "counts", set()),
        ("around 08:30", "times", set()),  # of nothing
        ("", "counts", set()),
    ],
)
def test_what_is_said(text: str, aspect: str, expected: set[tuple]) -> None:
    assert claims(text, aspect) == expected


@pytest.mark.parametrize(
    ("text", "aspect", "true"),
    [
        ("gym 3 of 9", "counts", True),
        ("gym 3 of 8", "counts", False),
        ("gym 2 times", "counts", False),
        ("gym then news: read (2 times)", "counts", True),
        ("gym then news: read (3 times)", "counts", False),
        ("gym around 07:30", "times", True),  # within an hour of 07:00
        ("gym around 09:30", "times", False),
        ("food in the night", "times", True),
        ("food in the evening", "times", False),
        ("gym in the morning", "times", True),
        ("Now Wed 08:00: gym, then gym 2", "times", True),
        ("Now Wed 08:00: gym, then gym 2", "order", True),
        ("Now Tue 08:00: gym 2", "times", False),
        ("Now Wed 08:00: gym", "order", False),
        ("work then food", "order", True),
        ("food then gym", "order", True),  # over night
        ("gym then work", "order", False),
        ("gym opens the day", "order", True),
        ("Nothing followed gym 2 before.", "order", True),
        ("Nothing followed gym before.", "order", False),
        ("work at L2", "places", True),
        ("gym at L2", "places", False),
        ("home L1", "places", True),
        ("home L2", "places", False),
        ("Work is L2: 2 of 2 weekday daytime events.", "places", True),
        ("A change of place comes with work (2 of 2).", "counts", True),
        ("now 3 times", "counts", None),  # false as a behaviour, and that only
        ("now", "behaviours", False),
        ("an early riser", "traits", True),
        ("a late starter", "traits", False),
    ],
)
def test_what_is_true(text: str, aspect: str, true: bool | None) -> None:
    checked = [
        holds(GROUND, claim) for claim in read(CATALOGUE, text).claims if claim.aspect == aspect
    ]
    assert checked == [true]


@pytest.mark.parametrize(
    "text",
    [
        *("This person never does gym.", "No food occurs.", "food never occurs", "gym isn't done"),
        *("Not an early riser; not a food-loving person", "gym hardly ever, without food"),
        *("Does not do gym: food, work", "Home is not L1, nights without home L2", "gym 0 times"),
        *("gym rather than food", "Lacks gym in the evening at L2"),
    ],
)
def test_what_is_denied_is_not_said(text: str) -> None:
    assert claims(text) == set()
    assert claims(f"{text}; gym 2") == {*claims("gym 2")}  # no further than the clause


def test_the_rules_may_say_that_there_is_nothing() -> None:
    text = "No hobby stands out; the most frequent leisure is gym, 3 times. Nothing followed food before."
    kinds = {(c.kind, c.about) for c in read(CATALOGUE, text).claims}
    assert kinds == {("named", (GYM,)), ("named", (FOOD,)), ("", (GYM,)), ("never", (FOOD,))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:00 L1 gym occurs 999 times", {(GYM, 999)}),
        ("food is common, and 12:00 L1 gym comes 3 times", {(GYM, 3)}),
        ("At L1 mostly gym (3 of 9), 4 times", {(GYM, 4)}),  # another form, beside "3 of 9"
        ("After gym: food (2 of 3) and work (1 of 3), 5 times", set()),  # of which?
        ("6 times gym, 5 times food", {(GYM, 6), (FOOD, 5)}),
        ("6 events of gym, 5 occurrences of the food", {(GYM, 6), (FOOD, 5)}),
        ("gym, 5 of 9 events are food", {(FOOD, 5, 9)}),
        ("gym 3 times food", set()),  # it may be either's
        ("gym occurs 1,000 times", {(GYM, 1000)}),
        ("10 events in the past two hours, the last 5: 12:00 gym", set()),
        *(
            (f"gym occurs {word} 2 times", set())
            for word in ("at least", "more than", "over", "under")
        ),
        *(
            (f"food {word} times", set())
            for word in ("between 2 and 3", "2-3", "2 to 3", "2 or 3", "about 2")
        ),
        *(
            (f"gym {word}", set())
            for word in ("2 times or more", "2 times a week", "2 days", "2 pm", "2+")
        ),
        ("gym on weekdays, twice", {(GYM, 2)}),
    ],
)
def test_whose_count_it_is(text: str, expected: set[tuple]) -> None:
    found = {(*c.about, *c.value) for c in read(CATALOGUE, text).claims if c.aspect == "counts"}
    assert {one for one in found if len(one) < 4} == expected


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        *(("gym at 8:30 pm", (41,)), ("gym at 12:10 a.m.", (0,)), ("gym at 20:30", (41,))),
        *(("gym at 12:30 pm", (25,)), ("gym around 7:00 am and 7:00 pm", (14, 38))),
        *((f"gym {said}", None) for said in ("between 06:00 and 23:00", "from 06:00 to 23:00")),
        *(
            (f"gym {said}", None)
            for said in ("before 06:00", "after 23:00", "06:00-23:00", "06:00 – 23:00")
        ),
        ("food, 12:00 L1 gym until around 13:00", None),
        ("food; before 12:00 gym", None),
    ],
)
def test_which_time_it_is(text: str, slots: tuple[int, ...] | None) -> None:
    found = [
        c.value for c in read(CATALOGUE, text).claims if c.aspect == "times" and c.kind != "event"
    ]
    assert found == ([slots] if slots else [])


@pytest.mark.parametrize("kind", sorted(set(ANNOTATORS) - {"reconstruction"}))
def test_all_that_the_rules_say_is_read_and_true(kind: str) -> None:
    """Every form of theirs: a claim that is read wrongly is false."""
    some = described()
    for one, text in zip(some.about, some.said(kind), strict=True):
        said = read(some.store.catalogue, text)
        assert plain(some.store.catalogue, said.marked) == text
        assert said.claims or text.startswith("No leisure")
        assert [claim for claim in said.claims if not holds(one.ground, claim)] == []


def test_numbers_of_the_rules_are_all_read() -> None:
    """No figure of theirs escapes: changing any makes a claim false or makes other claims."""
    some = described()
    for one, text in zip(some.about[:8], some.texts[:8], strict=True):
        catalogue = some.store.catalogue
        before = read(catalogue, text).claims
        figures = [
            match.start() for match in re.finditer(r"(?<!:\d)\d", text)
        ]  # :30 to :35 is a slot
        assert figures
        for i in figures:
            other = text[:i] + str((int(text[i]) + 5) % 10) + text[i + 1 :]
            assert read(catalogue, other).claims != before, text[max(0, i - 20) : i + 20]
        assert all(holds(one.ground, claim) for claim in before)


def test_the_strongest_facts() -> None:
    """Three behaviours, of which gym is the first and two of the two that are tied with work will do."""
    nothing = recalled(GROUND, [])
    assert nothing["behaviours"] == nothing["counts"] == (0, 3)
    assert nothing["order"] == (0, 3)  # gym then news, news then work, the last event
    assert {told for told, _ in nothing.values()} == {0}
    text = (
        "gym 3 of 9 around 07:00; work 2. gym then news: read; news: read then work. home L1. "
        "Now Wed 08:00: gym 2. an early riser"
    )
    true = [claim for claim in read(CATALOGUE, text).claims if holds(GROUND, claim)]
    found = recalled(GROUND, true)
    assert found["behaviours"] == (3, 3)
    assert found["counts"] == (2, 3)
    assert found["times"] == (1, 3)
    assert found["places"] == (1, 2)
    assert found["order"] == (3, 3)
    assert found["traits"][0] == 1
    assert isinstance(true[0], Claim)
