"""Token records in an Arrow file that is mapped into memory: any of them is read at once, none is loaded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from bua_jax.basics import files
from bua_jax.basics.errors import DataError
from bua_jax.dialogue.prompts import TokenRecord

_COLUMNS = ("tokens", "round_ids", "kinds", "soft_index", "events")


class TokenFile(Sequence[TokenRecord]):
    """The records of a file, and what it says it was made of. Raises `DataError` if it is damaged.

    Pickled it is a path: another process maps the file anew, and no record is sent.
    """

    def __init__(self, path: Path, *, check: bool = True) -> None:
        """check: whether the hash of the file is; not where another process has just done it."""
        self._path = path.absolute()
        try:
            if check and not files.is_whole(path):
                raise DataError(f"{path} is damaged (the hash beside it is of other content).")
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            self.metadata = {
                k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()
            }
            lists = {name: table[name].chunk(0) for name in _COLUMNS}
            self._tasks = table["task"].chunk(0).to_numpy()
        except (pa.ArrowInvalid, KeyError, IndexError, OSError) as error:
            raise DataError(f"{path} is damaged ({str(error).partition(chr(10))[0]}).") from error
        self._offsets = {name: column.offsets.to_numpy() for name, column in lists.items()}
        self._values = {name: column.values.to_numpy() for name, column in lists.items()}

    def __reduce__(self) -> tuple[Callable[[Path], "TokenFile"], tuple[Path]]:
        return _mapped_anew, (self._path,)

    def __len__(self) -> int:
        return len(self._tasks)

    def longest(self) -> int:
        """Tokens of the longest record."""
        return int(np.diff(self._offsets["tokens"]).max(initial=0))

    @overload
    def __getitem__(self, index: int) -> TokenRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRecord]: ...
    def __getitem__(self, index: int | slice) -> TokenRecord | list[TokenRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        parts = {
            name: values[self._offsets[name][index] : self._offsets[name][index + 1]]
            for name, values in self._values.items()
        }
        parts["events"] = parts["events"].reshape(-1, 4)
        return TokenRecord(**parts, task=int(self._tasks[index]))


def _mapped_anew(path: Path) -> TokenFile:
    return TokenFile(path, check=False)


def write(path: Path, records: Sequence[TokenRecord], metadata: Mapping[str, str]) -> None:
    """Writes all records as one batch, atomically, and their hash beside them.

    Raises `DataError` for a full disk.
    """

    def column(name: str) -> pa.Array:
        values = [np.asarray(getattr(record, name), np.int32).reshape(-1) for record in records]
        offsets = np.cumsum([0, *map(len, values)])
        return pa.LargeListArray.from_arrays(offsets, np.concatenate(values))

    columns = {name: column(name) for name in _COLUMNS}
    columns["task"] = pa.array([record.task for record in records], pa.int32())
    batch = pa.RecordBatch.from_pydict(columns)
    batch = batch.replace_schema_metadata(dict(metadata))
    with (
        files.atomic_write(path) as temporary,
        pa.ipc.new_file(str(temporary), batch.schema) as file,
    ):
        file.write_batch(batch)
    files.write_hash(path)
