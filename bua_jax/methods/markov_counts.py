"""A floor: the history's counts and the last behaviour's successors, mixed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.events.schema import EventStore
from bua_jax.methods.markov import Markov, fit_markov
from bua_jax.methods.protocol import About, Counted, Data, Histories, Method, Site
from bua_jax.methods.window_majority import WindowMajority, fit_window_majority


@dataclass(frozen=True)
class MarkovCounts:
    """weight * window shares + (1 - weight) * Markov; the weight is chosen on validation users."""

    window: WindowMajority
    markov: Markov
    weight: float

    def __call__(self, histories: Histories) -> np.ndarray:
        counted = self.window(histories)
        return self.weight * counted + (1 - self.weight) * self.markov(histories)


def fit_markov_counts(
    store: EventStore, validation: Histories, validation_targets: np.ndarray, methods: Settings
) -> MarkovCounts:
    """Chooses the mixing weight by validation log-loss; methods: `config.methods`, of the two mixed."""
    window = fit_window_majority(store, methods.window_majority)
    markov = fit_markov(store, methods.markov)
    counted, chained = window(validation), markov(validation)
    rows = np.arange(len(validation_targets))

    def log_loss(weight: float) -> float:
        mixed = weight * counted + (1 - weight) * chained
        return -float(np.mean(np.log(mixed[rows, validation_targets])))

    weight = min(np.linspace(0.05, 0.95, 19), key=log_loss)
    return MarkovCounts(window, markov, float(weight))


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    cases, targets = data.validation
    made = fit_markov_counts(data.store, cases.arrays, targets, site.config.methods)
    values = {
        "shares": made.window.shares.tolist(),
        "prior_events": made.window.prior_events,
        "transitions": made.markov.transitions.tolist(),
        "weight": made.weight,
    }
    files.write_json(site.folder / "mixture.json", values)
    return {"training_windows": made.markov.num_pairs}


def _load(site: Site) -> Counted:
    values, facts = files.read_json(site.folder / "mixture.json"), site.inputs["fit/markov_counts"]
    window = WindowMajority(np.asarray(values["shares"]), values["prior_events"])
    markov = Markov(np.asarray(values["transitions"]), facts.result["training_windows"])
    return Counted(MarkovCounts(window, markov, values["weight"]), facts.result)


METHOD = Method(
    "markov_counts",
    About("Markov + counts", "both floors, mixed on validation", ("behaviour",), "events"),
    load=_load,
    fit=_fit,
    fit_sets=("fit_validation",),
    files=("mixture.json",),
    fit_reads=("methods.markov", "methods.window_majority"),
)
