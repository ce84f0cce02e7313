"""Histories that are not a person's own any more: does a method use their order, length and owner at all?

Times stay where they are, so that only what was done, and where, is moved; nothing of the target is touched.
Only what is asked about is altered: methods are fitted on histories as they were.
"""

import dataclasses
from collections.abc import Callable, Mapping
from zlib import crc32

import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex, WindowSet, by_appearance
from bua_jax.methods.protocol import Cases, cases_of

LAST = 10
"""Events that are left of a history that is cut."""

Order = Callable[[str, int], np.ndarray]
"""(name of a case, number of its events) -> which event takes each place, int[n]."""


def _shuffled(name: str, count: int) -> np.ndarray:
    """Drawn by the case's name: any slice of the cases, and any method, sees the same."""
    return np.random.default_rng(crc32(name.encode())).permutation(count)


def _reversed(name: str, count: int) -> np.ndarray:
    return np.arange(count)[::-1]


ORDERS: Mapping[str, Order] = {"shuffled": _shuffled, "reversed": _reversed}
ALTERED = ("own", "shuffled", "reversed", "last10", "another")
"""What a history may be: as it was, in another order, its last events alone, or that of the set's donor."""


def altered_cases(
    store: EventStore, frozen: WindowSet, length: int, how: str, *, told: str = "nothing"
) -> Cases:
    """`cases_of` a set with histories as `how` says. Raises `DataError` where there is nobody else."""
    windows = frozen.windows
    plain = cases_of(store, windows, length, told=told)
    if how == "last10":
        start = np.maximum(windows.start, windows.end - LAST)
        return cases_of(store, dataclasses.replace(windows, start=start), length, told=told)
    if how == "another":
        return _anothers(store, windows, frozen.donor, length, plain)
    return plain if how == "own" else _ordered(plain, ORDERS[how])


def _anothers(
    store: EventStore, windows: WindowIndex, donor: np.ndarray, length: int, own: Cases
) -> Cases:
    """The cases with the histories of their donors; name, person and what is told stay."""
    if (donor < 0).any():
        raise DataError(
            "The set of windows is about one person, so that there is no other's history; give the data "
            "more people."
        )
    others = cases_of(store, windows.take(donor), length)
    return dataclasses.replace(own, arrays=others.arrays, gap=others.gap)


def _ordered(cases: Cases, order: Order) -> Cases:
    """What was done, and where, in another order; when stays."""
    seen = cases.arrays
    fields, rank = seen.fields.copy(), seen.place_rank.copy()
    for row, (name, count) in enumerate(zip(cases.sample_id, seen.n_events, strict=True)):
        at = order(name, int(count))
        fields[row, :count, 3] = fields[row, at, 3]
        rank[row, :count] = rank[row, at]
        fields[row, :count, 2] = by_appearance(fields[row, at, 2][None])[0]
    arrays = dataclasses.replace(seen, fields=fields, place_rank=rank)
    return dataclasses.replace(cases, arrays=arrays)
