"""Token records to packed rows (grain's first-fit packing) and batches.

A row holds whole dialogues; `segments` numbers them from 1 within the row (0 = padding), `positions`
restart. The i-th soft-token placeholder of a row belongs to the i-th event of the row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from bua_jax.dialogue.prompts import TokenRecord

Batch = dict[str, np.ndarray]
_BINS = 64


@dataclass(frozen=True)
class PackingPlan:
    """What a dry packing of the records gives; the schedule's length and static shapes follow from it."""

    row_length: int
    event_length: int
    rows_per_batch: int
    steps_per_epoch: int
    dialogues_per_row: float
    max_supervised: int  # supervised tokens in any batch, at most
    fill: float  # share of row tokens that are not padding


def _elements(records: Sequence[TokenRecord]) -> list[dict[str, np.ndarray]]:
    return [
        {
            "tokens": r.tokens,
            "round_ids": r.round_ids,
            "kinds": r.kinds,
            "tasks": np.full(len(r.tokens), r.task, np.int32),
            "events": r.events,
        }
        for r in records
    ]


def _rows(
    records: Sequence[TokenRecord],
    row_length: int,
    event_length: int,
    seed: int,
    epochs: int | None,
):
    """A grain dataset of packed rows: a new order in every epoch, whole dialogues only."""
    source = grain.MapDataset.source(_elements(records)).seed(seed)
    dataset = source.shuffle().repeat(epochs).to_iter_dataset()
    lengths = {
        "tokens": row_length,
        "round_ids": row_length,
        "kinds": row_length,
        "tasks": row_length,
        "events": event_length,
    }
    return grain.experimental.FirstFitPackIterDataset(
        dataset, length_struct=lengths, num_packing_bins=_BINS, seed=seed, shuffle_bins=True
    )


def _to_batch(row: dict[str, Any]) -> Batch:
    return {
        "tokens": row["tokens"],
        "segments": row["tokens_segment_ids"],
        "positions": row["tokens_positions"],
        "round_ids": row["round_ids"],
        "kinds": row["kinds"],
        "tasks": row["tasks"],
        "events": row["events"],
        "event_segments": row["events_segment_ids"],
        "event_positions": row["events_positions"],
    }


def event_room(records: Sequence[TokenRecord], row_length: int) -> int:
    """Events that a row must have room for, so that tokens decide what fits: a multiple of 8."""
    longest = max((len(r.events) for r in records), default=0)
    shortest = min((len(r.tokens) - len(r.events) for r in records), default=1)
    return max(8, -(-(longest + row_length * longest // max(1, longest + shortest)) // 8) * 8)


def plan_packing(
    records: Sequence[TokenRecord], *, row_length: int, batch_dialogues: int, seed: int
) -> PackingPlan:
    """Packs one epoch dry. A batch gets the number of rows that averages `batch_dialogues`."""
    event_length = event_room(records, row_length)
    dialogues, filled = [], 0
    for row in _rows(records, row_length, event_length, seed, 1):
        batch = _to_batch(row)
        dialogues.append(int(batch["segments"].max()))
        filled += int((batch["segments"] > 0).sum())
    mean = float(np.mean(dialogues))
    rows = max(1, round(batch_dialogues / mean))
    densest = max(float((r.round_ids > 0).mean()) for r in records)
    return PackingPlan(
        row_length=row_length,
        event_length=event_length,
        rows_per_batch=rows,
        steps_per_epoch=max(1, len(dialogues) // rows),
        dialogues_per_row=mean,
        max_supervised=rows * int(np.ceil(densest * row_length)),
        fill=filled / (len(dialogues) * row_length),
    )


def batches(records: Sequence[TokenRecord], plan: PackingPlan, seed: int):
    """Endless iterator of training batches with `get_state` / `set_state` (grain)."""
    rows = _rows(records, plan.row_length, plan.event_length, seed, None)
    return iter(rows.map(_to_batch).batch(plan.rows_per_batch, drop_remainder=True))


def fixed_batches(records: Sequence[TokenRecord], plan: PackingPlan) -> Iterator[Batch]:
    """The records once, in a fixed order, padded with empty rows to whole batches: for validation."""
    rows = [_to_batch(r) for r in _rows(records, plan.row_length, plan.event_length, 0, 1)]
    missing = -len(rows) % plan.rows_per_batch
    rows += [{key: np.zeros_like(value) for key, value in rows[0].items()}] * missing
    for start in range(0, len(rows), plan.rows_per_batch):
        part = rows[start : start + plan.rows_per_batch]
        yield {key: np.stack([row[key] for row in part]) for key in part[0]}
