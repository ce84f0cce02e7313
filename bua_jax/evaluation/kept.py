"""What an evaluation has made of its sets, kept by what it depends on.

One more baseline, another metric or a cut evaluation then make nothing again that still holds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics import files
from bua_jax.basics.errors import DataError

_SCHEMA = pa.schema([("probability", pa.list_(pa.float64())), ("texts", pa.string())])


@dataclass(frozen=True)
class Predicted:
    """A method's predictions for a set of windows.

    `probabilities` float64[n, C], a row of zeros where no label could be read; `texts`: what it wrote
    about each history, by round; `facts`: what is shown beside its row.
    """

    probabilities: np.ndarray
    texts: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """int64[n]: the likeliest label; -1 where none could be read."""
        readable = self.probabilities.max(1) > 0
        return np.where(readable, self.probabilities.argmax(1), -1)


def predictions(path: Path, identity: str, make: Callable[[], Predicted]) -> tuple[Predicted, bool]:
    """(predictions, whether they were made now): those in `path` if they are of the same `identity`."""
    if path.is_file() and _identity_of(path) == identity:
        return read_predictions(path), False
    made = make()
    texts: list[str | None] = [json.dumps(said, ensure_ascii=False) for said in made.texts]
    columns = {
        "probability": pa.array(list(made.probabilities), pa.list_(pa.float64())),
        "texts": pa.array(texts or [None] * len(made.probabilities), pa.string()),
    }
    metadata = {"identity": identity, "facts": json.dumps(made.facts)}
    with files.atomic_write(path) as temporary:
        pq.write_table(pa.table(columns, schema=_SCHEMA.with_metadata(metadata)), temporary)
    return made, True


def read_predictions(path: Path) -> Predicted:
    """Reads what `predictions` kept. Raises `DataError` for a missing or damaged file."""
    try:
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[b"facts"])
        texts = [json.loads(said) for said in table["texts"].to_pylist() if said is not None]
        return Predicted(np.asarray(table["probability"].to_pylist()), texts, facts)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _identity_of(path: Path) -> str:
    try:
        return (pq.read_schema(path).metadata or {}).get(b"identity", b"").decode()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def values(path: Path, identity: str, make: Callable[[], Any]) -> Any:
    """JSON values: those in `path` if they are of the same `identity`, else made now."""
    before = files.read_json(path) if path.is_file() else {}
    if before.get("identity") == identity:
        return before["values"]
    made = make()
    files.write_json(path, {"identity": identity, "values": made})
    return made


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is missing or damaged ({error}). Remove it and run the same command again; the other "
        "files beside it are kept."
    )
