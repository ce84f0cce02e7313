"""A small population whose windows the rules describe."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.evaluation.understanding import score
from bua_jax.evaluation.understanding.score import Subject
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import read_personas, simulated_store
from bua_jax.events.windows import WindowSet, freeze, prediction_windows, sample_windows


@dataclass(frozen=True)
class Described:
    """Windows of test people, and what the rules say of each in the understanding rounds."""

    store: EventStore
    frozen: WindowSet
    about: list[Subject]
    texts: list[str]

    @property
    def people(self) -> np.ndarray:
        return self.frozen.windows.user

    @property
    def names(self) -> list[str]:
        return [str(row) for row in range(len(self.frozen))]

    @property
    def others(self) -> list[str]:
        """Of each window the text about its donor."""
        return score.placebos(self.texts, self.frozen.donor, self.names)[score.OTHERS]

    def said(self, kind: str) -> list[str]:
        """What the rules answer in one round."""
        return [ANNOTATORS[kind](one.ground.window) for one in self.about]


@functools.cache
def described(windows: int = 25) -> Described:
    """The same for every test of a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "personas.parquet"
        store = simulated_store(70, 28, 3, personas=path)
        personas = read_personas(path)
    drawn = sample_windows(prediction_windows(store, "test"), windows, 0)
    frozen = freeze(store, drawn, 0)
    about = score.subjects(store, frozen, training_shares(store), personas)
    texts = [
        score.whole(
            {kind: ANNOTATORS[kind](one.ground.window) for kind in UNDERSTANDING}, UNDERSTANDING
        )
        for one in about
    ]
    return Described(store, frozen, about, texts)
