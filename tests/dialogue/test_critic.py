"""The critic: reference summaries pass, other people's and false claims do not."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bua_jax.dialogue.critic import CRITERIA, build_refinement, critique, mentioned
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rules import refined_summary, summary
from bua_jax.dialogue.tasks import Writer
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history, prediction_windows, sample_windows
from tests.dialogue.stores import LABELS, make_store, stores


@pytest.fixture(scope="module")
def windows():
    store = simulated_store(20, 20, 5)
    index = sample_windows(prediction_windows(store, "train"), 120, 0)
    writer = Writer(store, training_shares(store))
    rows = range(len(index))
    return [writer.window(int(index.start[i]), int(index.end[i]), str(i)) for i in rows]


@pytest.fixture
def window():
    """Ten events of a day: chat at 08:00 thrice, pay after it twice, read news in the evening."""
    rows = [(0, s, 1, b, False) for s, b in ((16, 0), (16, 1), (16, 0), (17, 1), (17, 0))]
    rows += [(0, s, 2, 3, False) for s in (36, 37, 38, 39, 40)]
    store = make_store([rows])
    shares = np.full(len(LABELS), 1 / len(LABELS))
    return Window(history(store, 0, 10), store.catalogue, shares, "w")


def test_reference_answers_pass_and_other_peoples_do_not(windows):
    refined = [critique(w, refined_summary(w)).score for w in windows]
    plain = [critique(w, summary(w)).score for w in windows]
    shifted = windows[60:] + windows[:60]
    other = [critique(w, refined_summary(o)).score for w, o in zip(windows, shifted, strict=True)]
    assert min(refined) > 0.99
    assert np.mean(plain) > 0.95
    assert np.mean(other) < 0.7
    assert np.mean([r > o for r, o in zip(refined, other, strict=True)]) > 0.9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stores(), st.integers(0, 10_000))
def test_claims_of_reference_summaries_are_true_of_any_window(store, pick):
    index = prediction_windows(store, "train")
    row = pick % len(index)
    window = Writer(store, training_shares(store)).window(
        int(index.start[row]), int(index.end[row]), "x"
    )
    for text in (summary(window), refined_summary(window)):
        aspects = critique(window, text).aspects
        for name in ("abstraction", "association", "structure", "hierarchy", "temporal"):
            assert aspects[name] > 0.99, (name, text)


TRUE = (
    "Traits: routine-driven. Habits: chat around 08:00 (3 of 10 events), "
    "chat leading to pay (2 times). Anchors: home L1."
)


@pytest.mark.parametrize(
    ("right", "wrong", "aspect"),
    [
        ("(3 of 10 events)", "(4 of 10 events)", "temporal"),
        ("(3 of 10 events)", "(3 of 12 events)", "temporal"),
        ("around 08:00", "around 18:00", "temporal"),
        ("(2 times)", "(3 times)", "temporal"),
        ("chat leading to pay", "pay leading to read news", "association"),
        ("chat leading to pay", "chat leading to Shop & Service", "association"),
        ("routine-driven", "varied", "abstraction"),
        ("Habits:", "They:", "structure"),
    ],
)
def test_each_false_claim_lowers_its_aspect(window, right, wrong, aspect):
    assert right in TRUE
    before = critique(window, TRUE).aspects[aspect]
    after = critique(window, TRUE.replace(right, wrong)).aspects[aspect]
    assert before == 1
    assert after < before


def test_vague_and_empty_drafts_fail(window):
    assert critique(window, "").score == 0
    assert critique(window, "").issues == tuple(CRITERIA)
    vague = critique(window, "This person does various things.")
    assert "personalisation" in vague.issues
    assert vague.score < 0.3


@given(st.text(max_size=200))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_draft_is_scored(window, draft):
    found = critique(window, draft + " chat around 99:99 (7 of 0) in the morning leading to")
    assert 0 <= found.score <= 1
    assert tuple(found.aspects) == tuple(CRITERIA)


def test_longer_labels_win_and_parts_of_words_are_no_labels():
    store = make_store(
        [[(0, i, 1, i % 3, False) for i in range(10)]], labels=("Food", "Food Shop", "pay")
    )
    window = Window(history(store, 0, 10), store.catalogue, np.full(3, 1 / 3), "w")
    assert mentioned(window, "the food shop, payment") == [1]
    assert mentioned(window, "Pay in a Food Shop for food") == [2, 1, 0]
    assert mentioned(window, "Traits: food-loving. Habits: pay.") == [2]


def test_refinement_shows_draft_issues_and_criteria_and_answers_with_the_reference(window):
    draft = "Traits: sociable. Anchors: chat (9 times)."
    found = critique(window, draft)
    turn = build_refinement(window, draft, found)
    assert turn.kind == "refinement"
    assert draft in turn.instruction
    for issue in found.issues:
        assert issue in turn.instruction
        assert CRITERIA[issue] in turn.instruction
    assert draft not in turn.answer
    assert turn.answer == refined_summary(window)
    assert critique(window, turn.answer).score > found.score
