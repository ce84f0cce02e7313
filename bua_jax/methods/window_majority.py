"""A floor: what the history holds most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Real
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import EventStore
from bua_jax.methods.majority import fit_majority
from bua_jax.methods.protocol import (
    About,
    Counted,
    Data,
    Histories,
    Method,
    Site,
    window_counts,
)


@dataclass(frozen=True)
class WindowMajority:
    """The history's own shares; the training shares decide nothing but unseen behaviours."""

    shares: np.ndarray
    prior_events: float  # weight of the training shares in a window's distribution

    def __call__(self, histories: Histories) -> np.ndarray:
        counts = window_counts(histories, len(self.shares))
        # The prior is the same for all seen behaviours, so that ties fall to label order.
        unseen = np.where(counts > 0, 0.0, self.shares)
        total = unseen.sum(1, keepdims=True)
        share = np.divide(unseen, total, out=np.zeros_like(unseen), where=total > 0)
        weight = self.prior_events * share
        mixed = counts + np.minimum(weight, 0.999)
        return mixed / mixed.sum(1, keepdims=True)


def fit_window_majority(store: EventStore, settings: Settings) -> WindowMajority:
    """settings: `config.methods.window_majority`."""
    return WindowMajority(fit_majority(store).shares, settings.prior_events)


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    made = fit_window_majority(data.store, site.config.methods.window_majority)
    values = {"shares": made.shares.tolist(), "prior_events": made.prior_events}
    files.write_json(site.folder / "window_majority.json", values)
    return {"training_windows": int(training_mask(data.store).sum())}


def _load(site: Site) -> Counted:
    values = files.read_json(site.folder / "window_majority.json")
    made = WindowMajority(np.asarray(values["shares"]), values["prior_events"])
    return Counted(made, site.inputs["fit/window_majority"].result)


METHOD = Method(
    "window_majority",
    About("Window majority", "what the history holds most", ("behaviour",), "events"),
    load=_load,
    fit=_fit,
    files=("window_majority.json",),
    legal={
        "prior_events": Real(0),
    },
)
