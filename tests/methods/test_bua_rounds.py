"""Which answers BUA is given for its rounds: the first ones, another person's, those of the wrong rounds."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.events.simulate import simulated_store
from bua_jax.methods.bua import AskedBua, Given
from bua_jax.methods.table import METHODS
from tests.methods.sites import cases_about

STORE = simulated_store(20, 10, 0)


class Listening:
    """A model that keeps what it is given."""

    catalogue, drill, batch = STORE.catalogue, "", 4
    given: Any = None

    @dataclasses.dataclass
    class decoding:
        decode = "labels"

    def probabilities(self, histories: Any, final: Any, *, decode: str, given: Any) -> Any:
        self.given = given
        return np.log(np.full((len(histories), len(STORE.catalogue.behaviours)), 1 / 37)), []


@pytest.mark.parametrize(
    ("known", "turned", "told"),
    [(0, False, ()), (2, False, (0, 1)), (3, False, (0, 1, 2)), (3, True, (1, 2, 0))],
)
def test_which_notes_are_the_answers(known: int, turned: bool, told: tuple[int, ...]) -> None:
    cases = cases_about(STORE, 3)
    notes = [{kind: f"{kind} of {name}" for kind in UNDERSTANDING} for name in cases.sample_id]
    bua: Any = Listening()
    AskedBua(bua, {}, Given(known, turned=turned)).predict(cases.with_notes(notes))
    assert bua.given == [
        {UNDERSTANDING[i]: one[UNDERSTANDING[other]] for i, other in enumerate(told)}
        for one in notes
    ]


def test_the_controls_are_of_the_reference() -> None:
    by = {name: METHODS[f"bua_given_{name}"].notes for name in ("another", "shuffled")}
    assert {one.by for one in by.values()} == {"reference"}
    assert (by["another"].another, by["shuffled"].another) == (True, False)
