"""Token records to packed rows: grain's first-fit packing, and its plan.

A row holds whole dialogues; `segments` numbers them from 1 within the row (0 = padding),
`positions` restart. `soft_index` says which of the row's events a placeholder stands for.

Rows are packed in this process, or ahead of it by worker processes: worker i of N packs every N-th
dialogue of the shuffled epochs, from the i-th on, and rows are taken from the workers in turn. Which
dialogues share a row, and so the order, therefore depends on the number of workers.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from bua_jax.dialogue.prompts import TokenRecord

_MAX_BINS = 64
_DRY_ROWS, _DRY_EPOCHS = 64, 8
THREADS = 0  # that read records ahead: they are in memory, mapped or not


@dataclass(frozen=True)
class PackingPlan:
    """What a dry packing gives; the schedule's length and the static shapes follow from it."""

    row_length: int  # tokens
    event_length: int  # events a row has room for
    rows_per_batch: int
    steps_per_epoch: float
    dialogues_per_row: float
    max_supervised: int  # supervised tokens in any row, at most
    fill: float  # share of row tokens that are not padding
    workers: int = 0  # processes that pack training rows ahead; 0 = packed when asked for


def _element(record: TokenRecord) -> dict[str, np.ndarray]:
    tasks = np.full(len(record.tokens), record.task, np.int32)
    fields = ("tokens", "round_ids", "kinds", "soft_index", "events")
    return {"tasks": tasks, **{name: getattr(record, name) for name in fields}}


def _full_rows(records: Sequence[TokenRecord], row_length: int) -> int:
    """Rows that an epoch would fill without any padding, at least 1."""
    return max(1, sum(len(r.tokens) for r in records) // row_length)


def packed_rows(
    records: Sequence[TokenRecord],
    row_length: int,
    event_length: int,
    seed: int,
    epochs: int | None,
    workers: int = 0,
    first_epoch: int = 0,
) -> Any:
    """A grain dataset of packed rows: a new order in every epoch, whole dialogues only.

    workers: how many processes will share the packing; first_epoch: with whose order it begins.
    """
    source = grain.MapDataset.source(records).seed(seed)
    in_memory = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=0)
    shuffled = source.shuffle().repeat(epochs)[first_epoch * len(records) :]
    dataset = shuffled.map(_element).to_iter_dataset(in_memory)
    lengths = dict.fromkeys(("tokens", "round_ids", "kinds", "tasks", "soft_index"), row_length)
    # Bins are filled together and come out in order. With more of them than an epoch has rows, or
    # shuffled ones, dialogues of later epochs would be seen before this epoch's. Every worker has its
    # own bins, for its share of an epoch.
    return grain.experimental.FirstFitPackIterDataset(
        dataset,
        length_struct={**lengths, "events": event_length},
        num_packing_bins=min(_full_rows(records, row_length) // max(1, workers), _MAX_BINS),
        shuffle_bins=False,
    )


def event_room(records: Sequence[TokenRecord], row_length: int) -> int:
    """Events that any row of whole dialogues can hold, so that tokens alone decide what fits.

    No row has a larger share of events per token than its densest dialogue; rounded up to 8.
    """
    densest = max(len(r.events) / len(r.tokens) for r in records)
    return max(8, math.ceil(densest * row_length / 8 - 1e-9) * 8)


def supervised_room(records: Sequence[TokenRecord], row_length: int) -> int:
    """Supervised tokens that any row of whole dialogues can hold; bounded like events."""
    densest = max(float((r.round_ids > 0).mean()) for r in records)
    return max(1, math.ceil(densest * row_length - 1e-9))


def plan_packing(
    records: Sequence[TokenRecord],
    *,
    row_length: int,
    batch_dialogues: int,
    seed: int,
    rows_multiple: int = 1,
    workers: int = 0,
) -> PackingPlan:
    """Packs dry. A batch gets the number of rows that averages `batch_dialogues`.

    The number of rows is rounded to a multiple of `rows_multiple` (microbatches). Neither devices nor
    workers change it: a schedule of other length would be another model (devices get empty rows where
    theirs do not divide, `sharding.shard_batch`). Batches never average more dialogues than there are.
    There are no more workers than full rows in an epoch: the first row of each would reach into later
    epochs.
    """
    event_length = event_room(records, row_length)
    # The last rows of a dry run are not full: with few rows, several epochs make up for that.
    epochs = math.ceil(_DRY_ROWS / (_DRY_ROWS + _full_rows(records, row_length)) * _DRY_EPOCHS)
    rows = [
        (int(row["tokens_segment_ids"].max()), int((row["tokens_segment_ids"] > 0).sum()))
        for row in packed_rows(records, row_length, event_length, seed, epochs)
    ]
    dialogues_per_row, tokens_per_row = np.mean(rows, axis=0).tolist()
    wanted = min(batch_dialogues, len(records)) / dialogues_per_row
    rows_per_batch = max(1, round(wanted / rows_multiple)) * rows_multiple
    return PackingPlan(
        row_length=row_length,
        event_length=event_length,
        rows_per_batch=rows_per_batch,
        steps_per_epoch=round(len(records) / (dialogues_per_row * rows_per_batch), 2),
        dialogues_per_row=dialogues_per_row,
        max_supervised=supervised_room(records, row_length),
        fill=tokens_per_row / row_length,
        workers=min(workers, _full_rows(records, row_length)),
    )


def plan_for(records: Sequence[TokenRecord], plan: PackingPlan) -> PackingPlan:
    """`plan` with room for the events and supervised tokens of other records (for validation)."""
    return dataclasses.replace(
        plan,
        event_length=event_room(records, plan.row_length),
        max_supervised=supervised_room(records, plan.row_length),
    )
