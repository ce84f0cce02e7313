"""Texts that follow the log, and such as do not, when the log is edited."""

import dataclasses

import numpy as np
import pytest

from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.evaluation.understanding import score
from bua_jax.evaluation.understanding.checks import Ground
from bua_jax.evaluation.understanding.counterfactual import EDITS, edited, followed
from bua_jax.events.schema import History
from bua_jax.events.windows import history, with_places
from bua_jax.methods.protocol import Cases, Description, cases_of
from tests.evaluation.understanding.described import Described, described


def rules(window: Window) -> str:
    return score.whole({kind: ANNOTATORS[kind](window) for kind in UNDERSTANDING}, UNDERSTANDING)


@pytest.fixture(scope="module")
def some() -> Described:
    return described()


def of(some: Described, row: int) -> tuple[Window, Window]:
    """A window and what its edit makes of it."""
    window = some.about[row].ground.window
    changed = edited(window.history, window.catalogue, row)
    return window, dataclasses.replace(window, history=changed)


@pytest.mark.parametrize("number", range(len(EDITS)), ids=[one.name for one in EDITS])
def test_rules_follow_the_log_and_the_deaf_do_not(some: Described, number: int) -> None:
    rows = range(number, len(some.about), len(EDITS))
    told, deaf = np.zeros(4), np.zeros(4)
    for row in rows:
        window, changed = of(some, row)
        before, after = rules(window), rules(changed)
        told += followed(Ground(window), row, before, after)
        deaf += followed(Ground(window), row, before, before)
    assert told[0] > len(rows) / 2  # there is something to flip
    assert told[1] == told[0]  # what the rules say is true of the edited log
    assert told[3] > 0.6 * told[2]
    assert deaf[1] == 0
    assert deaf[3] == deaf[2] > 0


def test_who_guesses_anew_follows_nothing(some: Described) -> None:
    """The text about somebody else, once more: most claims are gone, whether they are false now or not."""
    table = np.zeros(4)
    for row, (text, other) in enumerate(zip(some.texts, some.others, strict=True)):
        table += followed(some.about[row].ground, row, text, other)
    flips, stays = table[1] / table[0], table[3] / table[2]
    assert flips > 0.7
    assert abs(flips + stays - 1) < 0.2


def changed_columns(before: History, after: History) -> set[str]:
    return {
        name
        for name, column in vars(before).items()
        if not np.array_equal(column, getattr(after, name))
    }


def test_an_edit_changes_what_it_says(some: Described) -> None:
    expected: list[set[str]] = [
        {"behaviour"},
        {"slot"},
        set(),
        {"place", "place_seen"},
        {"behaviour"},
    ]
    for row in range(len(some.about)):
        window, changed = of(some, row)
        before, after, number = window.history, changed.history, row % len(EDITS)
        assert np.all(np.diff(after.day * 48 + after.slot) >= 0)
        if EDITS[number].name == "half as often":
            counts = np.bincount(before.behaviour)
            most = int(counts.argmax())
            now = np.bincount(after.behaviour, minlength=len(counts))
            assert counts[most] // 2 <= now[most] <= counts[most] // 2 + 1
            assert np.array_equal(np.delete(now, most), np.delete(counts, most))
            assert (after.day[-1], after.slot[-1]) == (before.day[-1], before.slot[-1])
        else:
            assert changed_columns(before, after) <= expected[number]
        if EDITS[number].name == "last two exchanged":
            assert after.behaviour[-2:].tolist() == before.behaviour[-2:].tolist()[::-1]


def test_a_gap_before_what_is_left_out_stays(some: Described) -> None:
    seen = some.about[0].ground.window.history
    few = History(**{name: column[:5] for name, column in vars(seen).items()})
    few = dataclasses.replace(
        few,
        behaviour=np.array([1, 0, 1, 2, 1]),
        gap=np.array([False, False, True, False, False]),
    )
    left = edited(few, some.store.catalogue, 2)
    assert left.behaviour.tolist() == [1, 0, 2, 1]
    assert left.gap.tolist() == [False, False, True, False]


def test_places_are_told_apart_again(some: Described) -> None:
    """As the history of other locations gives them."""
    start, end = int(some.frozen.windows.start[0]), int(some.frozen.windows.end[0])
    location = some.store.location.copy()
    moved = np.arange(start, end)[::3]
    location[moved] = location[start]
    expected = history(dataclasses.replace(some.store, location=location), start, end)
    seen = history(some.store, start, end)
    codes = seen.place_seen.copy()
    codes[::3] = codes[0]
    assert 0 not in seen.place_seen
    found = with_places(seen, codes)
    assert found.place.tolist() == expected.place.tolist()
    assert found.place_seen.tolist() == expected.place_seen.tolist()


def test_any_method_can_be_asked_about_edited_logs(some: Described) -> None:
    """Through the protocol: cases carry edited histories as they would any others."""
    cases = cases_of(some.store, some.frozen.windows, 40)
    same = cases.with_histories(cases.histories())
    for name in ("fields", "place_rank", "day", "n_events"):
        np.testing.assert_array_equal(getattr(same.arrays, name), getattr(cases.arrays, name))
    np.testing.assert_array_equal(same.gap, cases.gap)

    class Rules:
        def describe(self, cases: Cases) -> Description:
            about = some.about[0].ground.window
            windows = (dataclasses.replace(about, history=case.history) for case in cases)
            return Description([{"summary": ANNOTATORS["summary"](one)} for one in windows])

    catalogue = some.store.catalogue
    changed = cases.with_histories(
        [edited(one, catalogue, row) for row, one in enumerate(cases.histories())]
    )
    before, after = (Rules().describe(one).text for one in (cases, changed))
    edits = [
        followed(one.ground, row, before[row]["summary"], after[row]["summary"])
        for row, one in enumerate(some.about)
    ]
    counts = score.count_texts(some.people, some.about, some.texts)
    counts = score.with_edits(counts, some.people, np.arange(len(edits)), edits)
    found = score.text_metrics(counts.total())
    assert found["flips"] == 1.0
    assert 0.5 < found["stays"] < 1.0
    assert found["follows"] == found["flips"] + found["stays"] - 1
    assert score.scored(counts, np.ones((3, len(counts))))["metrics"]["flips"]["value"] == 1.0
