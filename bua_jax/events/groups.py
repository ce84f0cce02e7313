"""Head, medium and tail behaviours (Appendix D.1)."""

import numpy as np

from bua_jax.events.schema import EventStore

HEAD_SHARE = 0.05
MEDIUM_SHARE = 0.01


def training_mask(store: EventStore) -> np.ndarray:
    """bool[N]: events of training users."""
    return np.repeat(store.split == 0, np.diff(store.offsets))


def training_shares(store: EventStore) -> np.ndarray:
    """float64[C]: share of each behaviour among the training users' events."""
    counts = np.bincount(
        store.behaviour[training_mask(store)], minlength=len(store.catalogue.behaviours)
    )
    return counts / max(1, int(np.sum(counts)))


def behaviour_groups(store: EventStore) -> dict[str, list[int]]:
    """Class ids by training frequency: head > 5 %, medium 1 to 5 % (inclusive), tail the rest."""
    share = training_shares(store)
    head = share > HEAD_SHARE
    medium = ~head & (share >= MEDIUM_SHARE)
    masks = {"head": head, "medium": medium, "tail": ~head & ~medium}
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
