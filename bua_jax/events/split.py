"""The 8:1:1 split by person."""

import dataclasses
import re

import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.events.schema import SPLITS, EventStore

RENEWED_ID = re.compile(r"renewed-[0-9a-f]{16}")
"""Ids that the anonymiser renews from period to period: one person has several."""


def sorted_ids(ids: list[str]) -> list[str]:
    """Ids in numerical order if all are integers, else in text order."""
    try:
        return sorted(ids, key=int)
    except ValueError:
        return sorted(ids)


def split_users(ids: list[str], seed: int = 42) -> dict[str, int]:
    """Person -> index into SPLITS: `p = default_rng(seed).permutation(sorted ids)`, then 8:1:1.

    Raises `DataError` with fewer than 3 people, which leaves a split empty, and for renewed ids.
    """
    if any(RENEWED_ID.fullmatch(user) for user in ids):
        raise DataError(
            "These ids were renewed by the anonymise verb: one person has several, so a new split "
            "could put them on both sides. Use the split column that the anonymised file carries: "
            "--config.data.columns.split=split."
        )
    if len(ids) < 3:
        raise DataError(
            f"The data has {len(ids)} people; a split by person needs at least 3, and of fewer than 6 it "
            "leaves one part empty, so give at least 6."
        )
    n = len(ids)
    permuted = np.random.default_rng(seed).permutation(np.asarray(sorted_ids(ids)))
    cuts = (int(0.8 * n), int(0.9 * n))
    return {
        str(user): (0 if i < cuts[0] else 1 if i < cuts[1] else 2)
        for i, user in enumerate(permuted)
    }


def without_test_people(store: EventStore) -> EventStore:
    """The events of training and validation people alone."""
    kept, counts = store.split != SPLITS.index("test"), np.diff(store.offsets)
    events = np.repeat(kept, counts)
    smaller = dataclasses.replace(
        store,
        users=store.users[kept],
        split=store.split[kept],
        offsets=np.append(0, np.cumsum(counts[kept])),
        **{name: values[events] for name, values in store.columns().items()},
    )
    return smaller.with_fingerprint()
