"""The annotator by rules (design, decision 15): reference answers to the understanding rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.tasks import understanding_rounds
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import Catalogue
from bua_jax.methods.protocol import ROWS, About, Cases, Data, Description, Method, Site


@dataclass(frozen=True)
class Reference:
    """Answers over the true history; `shares` float64[C]: of the training people's events."""

    catalogue: Catalogue
    shares: np.ndarray
    seed: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: int = ROWS

    def describe(self, cases: Cases) -> Description:
        windows = (
            Window(case.history, self.catalogue, self.shares, case.sample_id, self.seed)
            for case in cases
        )
        return Description(
            [{turn.kind: turn.answer for turn in understanding_rounds(one)} for one in windows]
        )


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    catalogue, shares = data.store.catalogue.to_json(), training_shares(data.store).tolist()
    files.write_json(site.folder / "reference.json", {"catalogue": catalogue, "shares": shares})
    return {}


def _load(site: Site) -> Reference:
    had, said = site.inputs["fit/reference"].settings, site.folder / "reference.json"
    values = files.read_json(said)
    catalogue = Catalogue.from_json(values["catalogue"])
    return Reference(catalogue, np.asarray(values["shares"]), had.seed)


METHOD = Method(
    "reference",
    About(
        "Reference answers",
        "rules over the true history",
        ("weekday", "slot", "place", "behaviour"),
        "events",
    ),
    load=_load,
    says=("describe",),
    fit=_fit,
    files=("reference.json",),
)
