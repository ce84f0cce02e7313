"""Logit adjustment (Menon et al., 2021): recall of rare classes bought with recall of frequent ones.

A gain on the tail counts only against a baseline that was adjusted to the same rec_w. The strength is
found on validation people about whom BUA was asked too (the set `match`), then it is frozen.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Real, Whole
from bua_jax.evaluation import results
from bua_jax.events.groups import training_mask, training_shares
from bua_jax.methods import neural
from bua_jax.methods.protocol import About, Counted, Data, Histories, Method, Site

_BUA = "predict/bua/match"


def adjust(probabilities: np.ndarray, shares: np.ndarray, tau: float) -> np.ndarray:
    """p_c / share_c^tau, normalised: float64[n, C], training shares float64[C]."""
    scaled = probabilities / np.maximum(shares, 1e-6) ** tau
    return scaled / scaled.sum(1, keepdims=True)


def match_tau(
    probabilities: np.ndarray,
    targets: np.ndarray,
    shares: np.ndarray,
    rec_w: float,
    settings: Settings,
) -> float:
    """The largest tau whose accuracy on these (validation) windows is at least `rec_w`; 0 if there is none.

    settings: `config.methods.encoder_adjusted`.
    """
    found = 0.0
    for tau in np.linspace(0, settings.largest_tau, settings.taus):
        predicted = adjust(probabilities, shares, tau).argmax(1)
        if np.mean(predicted == targets) >= rec_w:
            found = float(tau)
    return found


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    said = results.read(site.inputs[_BUA].folder / results.FILE)
    cases, targets = data.validation.named(said.sample_id)
    shares, settings = training_shares(data.store), site.config.methods.encoder_adjusted
    rec_w = float(np.mean(said.label == targets))
    encoder = neural.of_folder(site.inputs["encoder"].folder, {})
    probabilities = encoder.probabilities(cases.arrays)
    tau = match_tau(probabilities, targets, shares, rec_w, settings)
    values = {"tau": tau, "matched_rec_w": rec_w, "matched_windows": len(targets)}
    files.write_json(site.folder / "adjustment.json", {**values, "shares": shares.tolist()})
    return {**values, "training_windows": int(training_mask(data.store).sum())}


def _load(site: Site) -> Counted:
    values = files.read_json(site.folder / "adjustment.json")
    encoder = neural.of_folder(site.inputs["encoder"].folder, site.inputs[f"fit/{NAME}"].result)
    shares, tau = np.asarray(values["shares"]), values["tau"]

    def probabilities(histories: Histories) -> np.ndarray:
        return adjust(encoder.probabilities(histories), shares, tau)

    return Counted(probabilities, encoder.facts)


NAME = "encoder_adjusted"
METHOD = Method(
    NAME,
    About(
        "Encoder, adjusted",
        "Menon et al. (2021), to BUA's accuracy on validation people",
        ("weekday", "slot", "place", "behaviour"),
        "events",
    ),
    load=_load,
    fit=_fit,
    fit_sets=("fit_validation",),
    files=("adjustment.json",),
    needs=lambda config: ("encoder", _BUA),
    legal={
        "largest_tau": Real(0),
        "taus": Whole(1),
    },
)
