"""What answers state is read off them and held against the events."""

import numpy as np
import pytest

from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rules import key_behaviours
from bua_jax.evaluation.truth import Statement, stated, truth
from bua_jax.events.schema import Catalogue
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history

CATALOGUE = Catalogue(("gym", "gym 2", "news: read", "eat", "now"), 48, True)


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    store = simulated_store(12, 40, 3)
    shares = np.full(len(store.catalogue.behaviours), 0.1)
    spans = [(store.offsets[i], store.offsets[i] + 40) for i in range(12)]
    return [
        Window(history(store, int(a), int(b)), store.catalogue, shares, str(a)) for a, b in spans
    ]


def test_the_rules_answers_are_true(windows: list[Window]) -> None:
    said = truth(windows, [key_behaviours(window) for window in windows])
    assert said == {"answers": 12, "last": 1.0, "top": 1.0, "counts": 1.0, "repeated": 0.0}


def test_anothers_answers_are_not(windows: list[Window]) -> None:
    texts = [key_behaviours(window) for window in windows]
    said = truth(windows, texts[1:] + texts[:1])
    assert said["counts"] < 0.5
    assert said["last"] < 0.8
    nothing = truth(windows, [""] * len(windows))
    assert nothing == {"answers": 12, "last": 0.0, "top": 0.0, "counts": 0.0, "repeated": 0.0}
    assert truth([], []) == {"answers": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Key: gym 12 of 40 around 08:00; gym 2 5 in the night. Now Tue 08:30: eat, then gym 2.",
            Statement(((0, 12), (1, 5)), 1),
        ),
        (
            "Frequent: news: read 3 of 8; eat 3 around 12:00. Days open with eat (1 of 2). "
            "Now Mon 07:00: news: read.",
            Statement(((2, 3), (3, 3)), 2),
        ),
        ("Frequent: eat 3; eat 2. Now Mon 07:00: eat, then gy.", Statement(((3, 3), (3, 2)), None)),
        ("Frequent: swim 4; eat often. Now Mon 07:00: now.", Statement((), 4)),
        ("Frequent: eat 3", Statement((), None)),  # cut at the limit of tokens
        ("", Statement((), None)),
    ],
)
def test_statements_are_read(text: str, expected: Statement) -> None:
    assert stated(CATALOGUE, text) == expected


def test_what_is_stated_is_counted() -> None:
    seen = history(simulated_store(12, 40, 3), 0, 4)
    fields = {"behaviour": np.array([3, 3, 0, 4]), "gap": np.zeros(4, bool)}
    window = Window(
        type(seen)(**{**vars(seen), **fields}), CATALOGUE, np.full(5, 0.2), "x"
    )  # eat 2, gym 1, now 1
    text = "Key: eat 2 of 4; gym 2; gym 2. Now Mon 07:00: gym, then now."
    assert truth([window], [text]) == {
        "answers": 1,
        "last": 1.0,
        "top": 1.0,
        "counts": 1 / 3,  # eat; gym's is wrong, now is left out
        "repeated": 1.0,
    }
