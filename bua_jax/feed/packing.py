"""Token records to packed rows (grain's first-fit packing) and batches.

A row holds whole dialogues; `segments` numbers them from 1 within the row (0 = padding),
`positions` restart. `soft_index` says which of the row's events a placeholder stands for.

Rows are packed in this process, or ahead of it by worker processes: worker i of N packs every N-th
dialogue of the shuffled epochs, from the i-th on, and rows are taken from the workers in turn. Which
dialogues share a row, and so the order, therefore depends on the number of workers.
"""

import dataclasses
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from bua_jax.basics.console import notice
from bua_jax.dialogue.prompts import TokenRecord

Batch = dict[str, np.ndarray]
_MAX_BINS = 64
_AHEAD = 8  # rows that a worker keeps ready, and this process of each worker
_TOKENS = ("tokens", "segments", "positions", "round_ids", "kinds", "tasks", "soft_index")
_FIELDS = (*_TOKENS, "events", "event_segments", "event_positions")
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


def _rows(
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


def _to_batch(row: dict[str, Any]) -> Batch:
    tokens_of, events_of = row["tokens_segment_ids"], row["events_segment_ids"]
    # Events stand in the order of their dialogues, padding (0) last.
    first_event = np.searchsorted(events_of[events_of > 0], tokens_of)
    return {
        "tokens": row["tokens"],
        "segments": tokens_of,
        "positions": row["tokens_positions"],
        "round_ids": row["round_ids"],
        "kinds": row["kinds"],
        "tasks": row["tasks"],
        "soft_index": (row["soft_index"] + first_event).astype(np.int32),
        "events": row["events"],
        "event_segments": events_of,
        "event_positions": row["events_positions"],
    }


def _joined(row: Batch) -> np.ndarray:
    """All fields of a row in one array: processes exchange one of them far faster than ten."""
    return np.concatenate([row[name].ravel() for name in _FIELDS])


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

    The number of rows is rounded to a multiple of `rows_multiple` (microbatches times the devices
    that share a batch). Batches never average more dialogues than there are. There are no more
    workers than full rows in an epoch: the first row of each would reach into later epochs.
    """
    workers = min(workers, _full_rows(records, row_length))
    event_length = event_room(records, row_length)
    # The last rows of a dry run are not full: with few rows, several epochs make up for that.
    epochs = math.ceil(_DRY_ROWS / (_DRY_ROWS + _full_rows(records, row_length)) * _DRY_EPOCHS)
    rows = [
        (int(row["tokens_segment_ids"].max()), int((row["tokens_segment_ids"] > 0).sum()))
        for row in _rows(records, row_length, event_length, seed, epochs, workers)
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
        workers=workers,
    )


def plan_for(records: Sequence[TokenRecord], plan: PackingPlan) -> PackingPlan:
    """`plan` with room for the events and supervised tokens of other records (for validation)."""
    return dataclasses.replace(
        plan,
        event_length=event_room(records, plan.row_length),
        max_supervised=supervised_room(records, plan.row_length),
    )


def batches(records: Sequence[TokenRecord], plan: PackingPlan, seed: int) -> "Batches":
    """Endless iterator of training batches.

    Every value is int32[rows_per_batch, row_length], or [rows_per_batch, event_length(, 4)] for
    events.
    """
    return Batches(records, plan, seed)


class Batches(Iterator[Batch]):
    """What `batches` returns. Its state is JSON; `close` ends the workers, which begin with `next`."""

    def __init__(self, records: Sequence[TokenRecord], plan: PackingPlan, seed: int) -> None:
        self._records, self._plan, self._seed = records, plan, seed
        self._open(first_epoch=0)

    def _open(self, first_epoch: int) -> None:
        plan, records = self._plan, self._records
        rows = _rows(
            records, plan.row_length, plan.event_length, self._seed, None, plan.workers, first_epoch
        ).map(_to_batch)
        if plan.workers:
            if not flags.FLAGS.is_parsed():  # grain reads its own, which a notebook has not parsed
                flags.FLAGS.mark_as_parsed()
            # Rows are put into batches here, since a batch may be a whole epoch of small data, of
            # which every worker has a part. They come through shared memory, and what tells of
            # those ahead must fit into a pipe: a worker waits at its end for one that is full.
            ahead = min(_AHEAD, math.ceil(plan.rows_per_batch / plan.workers))
            options = grain.MultiprocessingOptions(plan.workers, per_worker_buffer_size=ahead)
            rows = rows.map(_joined).mp_prefetch(options, _follow_parent)
        whole = rows.batch(plan.rows_per_batch, drop_remainder=True)
        self._inner = iter(whole.map(self._parted) if plan.workers else whole)
        self._first_epoch, self._dialogues = first_epoch, 0  # dialogues drawn since

    def _parted(self, rows: np.ndarray) -> Batch:
        """The batch of rows that were `_joined`, int32[rows_per_batch, all of a row]."""
        length, events = self._plan.row_length, self._plan.event_length
        sizes = [length] * len(_TOKENS) + [4 * events, events, events]
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        batch = {
            name: np.ascontiguousarray(part) for name, part in zip(_FIELDS, parts, strict=True)
        }
        return {**batch, "events": batch["events"].reshape(len(rows), events, 4)}

    def __next__(self) -> Batch:
        batch: Batch = next(self._inner)
        self._dialogues += int(batch["segments"].max(axis=1).sum())
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, and the number of workers whose position it is."""
        return {
            **self._inner.get_state(),
            "workers": self._plan.workers,
            "first_epoch": self._first_epoch,
            "dialogues": self._dialogues,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from there exactly, or where another number of workers was, from its epoch's start."""
        inner = dict(state)
        workers, first_epoch, dialogues = (
            inner.pop(name, 0) for name in ("workers", "first_epoch", "dialogues")
        )
        self.close()
        if workers == self._plan.workers:
            self._open(first_epoch)
            self._inner.set_state(inner)
            self._dialogues = dialogues
            return
        epoch = first_epoch + dialogues // len(self._records)
        notice(
            f"batches were made by {workers} worker processes and now are by {self._plan.workers}, which "
            f"put other dialogues together: epoch {epoch + 1} of the data starts anew"
        )
        self._open(epoch)

    def close(self) -> None:
        """Ends the workers."""
        self._inner.close()


def _follow_parent(index: int, count: int) -> None:
    """Makes a worker end with the main process, even a killed one, and by no signal before it.

    SIGTERM and Ctrl-C may reach the whole group: the main process answers them, and needs batches
    until the step at which it does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def fixed_batches(records: Sequence[TokenRecord], plan: PackingPlan) -> Iterator[Batch]:
    """The records once, in a fixed order, padded with empty rows to whole batches: for validation.

    `plan` has room for these records (`plan_for`).
    """
    rows = [_to_batch(r) for r in _rows(records, plan.row_length, plan.event_length, 0, 1)]
    missing = -len(rows) % plan.rows_per_batch
    rows += [{key: np.zeros_like(value) for key, value in rows[0].items()}] * missing
    for start in range(0, len(rows), plan.rows_per_batch):
        part = rows[start : start + plan.rows_per_batch]
        yield {key: np.stack([row[key] for row in part]) for key in part[0]}


def one_per_row(records: Sequence[TokenRecord], row_length: int) -> Batch:
    """The records as one batch without packing: record i alone in row i, in the arrays of `batches`."""

    def rows(values: Sequence[np.ndarray], length: int) -> np.ndarray:
        padded = np.zeros((len(values), length, *values[0].shape[1:]), np.int32)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded

    events = max(8, math.ceil(max(len(r.events) for r in records) / 8) * 8)
    in_row, in_events = (
        {
            "segments": rows([np.ones(size) for size in sizes], length),
            "positions": rows([np.arange(size) for size in sizes], length),
        }
        for sizes, length in (
            ([len(r.tokens) for r in records], row_length),
            ([len(r.events) for r in records], events),
        )
    )
    of_tokens = ("tokens", "round_ids", "kinds", "soft_index")
    return {
        **{name: rows([getattr(r, name) for r in records], row_length) for name in of_tokens},
        **in_row,
        "tasks": rows([np.full(len(r.tokens), r.task) for r in records], row_length),
        "events": rows([r.events for r in records], events),
        **{f"event_{name}": value for name, value in in_events.items()},
    }
