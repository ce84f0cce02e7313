"""Logit adjustment (Menon et al., 2021): recall of rare classes bought with recall of frequent ones.

A gain on the tail counts only against a baseline that was adjusted to the same rec_w: `match_tau`
finds the strength on validation users, then it is frozen.
"""

import numpy as np

from bua_jax.basics.config import Settings


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
    """The largest tau whose accuracy on these (validation) windows is at least `rec_w`.

    settings: `config.methods.encoder_adjusted`.
    """
    found = 0.0
    for tau in np.linspace(0, settings.largest_tau, settings.taus):
        predicted = adjust(probabilities, shares, tau).argmax(1)
        if np.mean(predicted == targets) >= rec_w:
            found = float(tau)
    return found
