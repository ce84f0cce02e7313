"""Sets of windows that are frozen: drawn once, kept in a file, and told apart by a fingerprint."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.basics.files import atomic_write, sha256_arrays, sha256_text
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex

_SCHEMA = pa.schema(
    [
        ("user", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("target_end", pa.int64()),
        ("donor", pa.int64()),
    ]
)


@dataclass(frozen=True)
class WindowSet:
    """Windows of one store; `donor` is the row of another person's window, -1 where there is nobody else."""

    windows: WindowIndex
    donor: np.ndarray  # int64[n]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.windows)


def freeze(store: EventStore, windows: WindowIndex, seed: int) -> WindowSet:
    """The set of `windows`, which are ordered by user; donors are drawn by `seed`."""
    donor = draw_donors(windows.user, seed)
    return WindowSet(windows, donor, _fingerprint(store, windows, donor))


def draw_donors(user: np.ndarray, seed: int) -> np.ndarray:
    """For each of the rows of users int[n], ascending, a row of another user int64[n], or -1.

    All rows of others are equally likely.
    """
    first = np.searchsorted(user, user, side="left")
    own = np.searchsorted(user, user, side="right") - first
    others = len(user) - own
    drawn = np.random.default_rng(seed).integers(0, np.maximum(others, 1))
    return np.where(others > 0, np.where(drawn < first, drawn, drawn + own), -1)


def _fingerprint(store: EventStore, windows: WindowIndex, donor: np.ndarray) -> str:
    """Hash of the events, of the windows' positions among them, and of the donors."""
    arrays = {"start": windows.start, "end": windows.end, "target_end": windows.target_end}
    return sha256_text(store.fingerprint + sha256_arrays({**arrays, "donor": donor}))


def write_set(path: str | Path, store: EventStore, frozen: WindowSet) -> None:
    """Writes a row per window, atomically."""
    metadata = {"data": store.fingerprint, "fingerprint": frozen.fingerprint}
    columns = {**vars(frozen.windows), "donor": frozen.donor}
    table = pa.table(columns, schema=_SCHEMA.with_metadata(metadata))
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_set(path: str | Path, store: EventStore) -> WindowSet:
    """Reads what `write_set` wrote.

    Raises `DataError` for a missing, damaged or altered file, `MismatchError` if it is about other events.
    """
    try:
        table = pq.read_table(path)
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        columns = {name: table[name].to_numpy() for name in _SCHEMA.names}
        data, fingerprint = metadata["data"], metadata["fingerprint"]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(
            f"{path} is missing or no set of windows ({error}). Remove its folder and run the same "
            "command again."
        ) from error
    if data != store.fingerprint:
        raise MismatchError(
            f"{path} was drawn from data {data}, but here it is {store.fingerprint}. Remove "
            f"{Path(path).parent} and run the same command again."
        )
    donor = columns.pop("donor")
    frozen = WindowSet(WindowIndex(**columns), donor, fingerprint)
    if _fingerprint(store, frozen.windows, donor) != fingerprint:
        raise DataError(f"{path} was altered after it was written: its fingerprint differs.")
    return frozen
