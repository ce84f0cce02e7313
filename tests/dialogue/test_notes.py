"""Summaries as notes: which are refused because they say what comes next."""

import pytest

from bua_jax.dialogue.critic import mentioned
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.notes import states_next, summary_of
from bua_jax.dialogue.rules import refined_summary, summary
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import Catalogue
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history

CATALOGUE = Catalogue(("pay", "read news", "next episode", "watch video"), 48, has_places=True)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("Traits: sociable. Habits: pay around 08:00 (4 times). Anchors: home L1.", False),
        ("The next behaviour is pay.", True),
        ("This person WILL probably Read News at night", True),
        ("Fond of next episode and of pay.", False),  # the word is the label's own
        ("After next episode, pay is likely to follow.", True),
        ("They will be fine. They pay often.", False),  # of two sentences
        ("What happens next is unknown.", False),  # no behaviour is named
        ("Payments come next.", False),  # nor here: labels are whole words
        ("", False),
    ],
)
def test_what_looks_ahead_to_a_behaviour_is_refused(text: str, refused: bool) -> None:
    assert states_next(CATALOGUE, text) is refused


def test_what_the_rules_write_looks_back() -> None:
    """Or else nothing would be left of what a model that was taught by them writes."""
    store = simulated_store(12, 6, 0)
    shares = training_shares(store)
    for person in range(len(store.users)):
        seen = history(store, int(store.offsets[person]), int(store.offsets[person]) + 40)
        window = Window(seen, store.catalogue, shares, str(person), 0)
        for text in (summary(window), refined_summary(window)):
            assert mentioned(window, text)
            assert not states_next(store.catalogue, text)


def test_the_refined_summary_is_the_note_in_one_line() -> None:
    assert summary_of({"patterns": "x", "summary": "a\n b "}) == "a b"
    assert summary_of({"summary": "a", "refinement": "b"}) == "b"
    assert summary_of({"summary": "a", "refinement": ""}) == "a"
    assert summary_of({}) == ""
