"""Dialogues as parquet that a person can read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics.console import out
from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.basics.files import atomic_write, sha256_json
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.dialogue.rules import VERSION
from bua_jax.events.schema import EventStore

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


def provenance(store: EventStore) -> dict[str, str]:
    """Metadata of dialogues about `store`: label set, data and annotator."""
    return {
        "catalogue": store.catalogue.fingerprint(),
        "data": store.fingerprint,
        "annotator": VERSION,
    }


def write_dialogues(
    path: str | Path, dialogues: Iterable[Dialogue], metadata: Mapping[str, str]
) -> str:
    """Writes a row per dialogue with `metadata` (see `provenance`), atomically; returns a hash of them."""
    # not `asdict`, which copies every text
    rows = [{**vars(one), "rounds": [vars(turn) for turn in one.rounds]} for one in dialogues]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(dict(metadata)))
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
    return sha256_json(rows)


def read_dialogues(path: str | Path, expected: Mapping[str, str] | None = None) -> list[Dialogue]:
    """Reads dialogues back.

    Raises `DataError` for a missing, damaged or foreign file, and `MismatchError` if a metadata
    value differs from `expected`, naming both.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is missing or no complete parquet file ({error}).") from error
    if not table.schema.equals(_SCHEMA):
        raise DataError(
            f"{path} holds no dialogues of bua_jax: its columns are "
            f"{', '.join(table.column_names)}, expected {', '.join(_SCHEMA.names)} with their "
            "types. Write it with python -m bua_jax.annotate."
        )
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
    """Prints `count` dialogues, in turn over their tasks."""
    by_task: dict[str, list[Dialogue]] = {}
    for dialogue in dialogues:
        by_task.setdefault(dialogue.task, []).append(dialogue)
    turns = sorted((i, t) for t, found in by_task.items() for i in range(min(count, len(found))))
    for i, task in turns[:count]:
        dialogue = by_task[task][i]
        title = f"stage {dialogue.stage} {dialogue.task} {dialogue.sample_id} ({dialogue.split})"
        out.print(f"\n=== {title}", style="bold")
        for turn in dialogue.rounds:
            out.print(f"> {turn.instruction}", style="cyan")
            out.print(turn.answer)
