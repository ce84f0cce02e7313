"""The 8:1:1 split by person."""

import numpy as np

from bua_jax.errors import DataError
from bua_jax.events.schema import SPLITS


def sorted_ids(ids: list[str]) -> list[str]:
    """Ids in numerical order if all are integers, else in text order."""
    try:
        return sorted(ids, key=int)
    except ValueError:
        return sorted(ids)


def split_users(ids: list[str], seed: int = 42) -> dict[str, int]:
    """Person -> index into SPLITS: `p = default_rng(seed).permutation(sorted ids)`, then 8:1:1.

    Raises `DataError` with fewer than 3 people, which leaves a split empty.
    """
    if len(ids) < 3:
        raise DataError(f"The data has {len(ids)} people; a split by person needs at least 3.")
    n = len(ids)
    permuted = np.random.default_rng(seed).permutation(np.asarray(sorted_ids(ids)))
    cuts = (int(0.8 * n), int(0.9 * n))
    return {
        str(user): (0 if i < cuts[0] else 1 if i < cuts[1] else 2) for i, user in enumerate(permuted)
    }


def split_from_column(names: list[str]) -> list[int]:
    """Split names of a `split` column as indices. Raises `DataError` for another name."""
    unknown = sorted(set(names) - set(SPLITS))
    if unknown:
        raise DataError(f"Column split holds {unknown[0]!r}, expected one of {', '.join(SPLITS)}.")
    return [SPLITS.index(name) for name in names]
