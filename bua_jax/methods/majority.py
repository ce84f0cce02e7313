"""The floor: what the training users do most, whatever the history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.events.groups import training_mask, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import About, Counted, Data, Histories, Method, Site


@dataclass(frozen=True)
class Majority:
    """The training users' shares float64[C], whatever the history."""

    shares: np.ndarray

    def __call__(self, histories: Histories) -> np.ndarray:
        return np.tile(self.shares, (len(histories), 1))


def fit_majority(store: EventStore) -> Majority:
    share = training_shares(store) + 1e-6
    return Majority(share / share.sum())


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    files.write_json(site.folder / "shares.json", fit_majority(data.store).shares.tolist())
    return {"training_windows": int(training_mask(data.store).sum())}


def _load(site: Site) -> Counted:
    shares = files.read_json(site.folder / "shares.json")
    return Counted(Majority(np.asarray(shares)), site.inputs["fit/majority"].result)


METHOD = Method(
    "majority",
    About("Majority", "what the training users do most", (), "events"),
    load=_load,
    fit=_fit,
    files=("shares.json",),
)
