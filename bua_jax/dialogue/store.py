"""Dialogues as parquet that a person can read."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.console import out
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.errors import DataError, MismatchError
from bua_jax.files import atomic_write

_ROUND = pa.struct([("kind", pa.string()), ("instruction", pa.string()), ("answer", pa.string())])
_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("stage", pa.int8()),
        ("task", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("rounds", pa.list_(_ROUND)),
    ]
)


def write_dialogues(
    path: str | Path, dialogues: Sequence[Dialogue], metadata: Mapping[str, str]
) -> None:
    """Writes dialogues with `metadata` (data fingerprint, label set, annotator), atomically."""
    rows = [dataclasses.asdict(dialogue) for dialogue in dialogues]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(dict(metadata)))
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_dialogues(path: str | Path, expected: Mapping[str, str] | None = None) -> list[Dialogue]:
    """Reads dialogues back.

    Raises `DataError` for a damaged file and `MismatchError` if a metadata value differs from
    `expected`, naming both.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is missing or no complete parquet file ({error}).") from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    for name, value in (expected or {}).items():
        if metadata.get(name) != value:
            raise MismatchError(
                f"{path} was written for {name} {metadata.get(name)!r}, but here it is {value!r}. "
                f"Remove {Path(path).parent} and run the same command again."
            )
    return [
        Dialogue(**{**row, "rounds": tuple(Round(**turn) for turn in row["rounds"])})
        for row in table.to_pylist()
    ]


def show(dialogues: Sequence[Dialogue], count: int) -> None:
    """Prints `count` dialogues spread over the tasks."""
    tasks = list(dict.fromkeys(dialogue.task for dialogue in dialogues))
    per_task = -(-count // max(1, len(tasks)))
    chosen = [d for task in tasks for d in [x for x in dialogues if x.task == task][:per_task]]
    for dialogue in chosen[:count]:
        title = f"stage {dialogue.stage} {dialogue.task} {dialogue.sample_id} ({dialogue.split})"
        out.print(f"\n=== {title}", markup=False)
        for turn in dialogue.rounds:
            out.print(f"> {turn.instruction}\n{turn.answer}", markup=False)
