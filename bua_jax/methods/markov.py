"""A floor: the next behaviour by the last one alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Real
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import About, Counted, Data, Histories, Method, Site


@dataclass(frozen=True)
class Markov:
    """p(next | last behaviour) with additive smoothing; `transitions`: float64[C, C], rows sum to 1."""

    transitions: np.ndarray
    num_pairs: int  # of consecutive events that were counted

    def __call__(self, histories: Histories) -> np.ndarray:
        return self.transitions[histories.last(3)]


def fit_markov(store: EventStore, settings: Settings) -> Markov:
    """Transitions between consecutive events of the same training user; settings: `config.methods.markov`."""
    classes = len(store.catalogue.behaviours)
    owner = np.repeat(np.arange(len(store.users)), np.diff(store.offsets))
    pairs = training_mask(store)[1:] & (owner[1:] == owner[:-1])
    counts = np.full((classes, classes), settings.smoothing)
    np.add.at(counts, (store.behaviour[:-1][pairs], store.behaviour[1:][pairs]), 1)
    return Markov(counts / counts.sum(1, keepdims=True), int(pairs.sum()))


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    made = fit_markov(data.store, site.config.methods.markov)
    files.write_json(site.folder / "transitions.json", made.transitions.tolist())
    return {"training_windows": made.num_pairs}


def _load(site: Site) -> Counted:
    facts = site.inputs["fit/markov"].result
    transitions = np.asarray(files.read_json(site.folder / "transitions.json"))
    return Counted(Markov(transitions, facts["training_windows"]), facts)


METHOD = Method(
    "markov",
    About("Markov chain", "the last behaviour's successors", ("behaviour",), "events"),
    load=_load,
    fit=_fit,
    files=("transitions.json",),
    legal={
        "smoothing": Real(0, above=True),
    },
)
