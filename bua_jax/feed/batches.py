"""Batches of packed rows, made here or ahead by worker processes; exact resume."""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from bua_jax.basics.console import notice
from bua_jax.basics.errors import BuaError
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.feed.packing import PackingPlan, packed_rows

Batch = dict[str, np.ndarray]

_AHEAD = 8  # rows that a worker keeps ready, and this process of each worker
_TOKENS = ("tokens", "segments", "positions", "round_ids", "kinds", "tasks", "soft_index")
_FIELDS = (*_TOKENS, "events", "event_segments", "event_positions")


class WorkerLost(BuaError):
    """A process that packs rows ahead has ended."""


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
        "soft_index": _moved(row["soft_index"], first_event),
        "events": row["events"],
        "event_segments": events_of,
        "event_positions": row["events_positions"],
    }


def _moved(soft_index: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Indices of events, those of second soft tokens (-1 - event) too, `by` events further, int32[T]."""
    return np.where(soft_index < 0, soft_index - by, soft_index + by).astype(np.int32)


def _joined(row: Batch) -> np.ndarray:
    """All fields of a row in one array: processes exchange one of them far faster than ten."""
    return np.concatenate([row[name].ravel() for name in _FIELDS])


class Batches(Iterator[Batch]):
    """Endless training batches. The state is JSON; `close` ends the workers, which begin with `next`.

    `next` raises `WorkerLost` where one of them was killed.
    Every value is int32[rows_per_batch, row_length], or [rows_per_batch, event_length(, 4)] for events.
    """

    def __init__(self, records: Sequence[TokenRecord], plan: PackingPlan, seed: int) -> None:
        self._records, self._plan, self._seed = records, plan, seed
        self._open(first_epoch=0)

    def _open(self, first_epoch: int) -> None:
        plan, records = self._plan, self._records
        rows = packed_rows(
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
        try:
            batch: Batch = next(self._inner)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise WorkerLost(
                "A process that packs rows was killed, or is out of memory. Checkpoints are kept: run the "
                "same command again to go on after the last one, or pack between steps with "
                "--config.execution.feed_workers=0."
            ) from error
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
    rows = [_to_batch(r) for r in packed_rows(records, plan.row_length, plan.event_length, 0, 1)]
    missing = -len(rows) % plan.rows_per_batch
    rows += [{key: np.zeros_like(value) for key, value in rows[0].items()}] * missing
    for start in range(0, len(rows), plan.rows_per_batch):
        part = rows[start : start + plan.rows_per_batch]
        yield {key: np.stack([row[key] for row in part]) for key in part[0]}


def one_per_row(records: Sequence[TokenRecord], row_length: int) -> Batch:
    """The records as one batch without packing: record i alone in row i, in the arrays of `Batches`."""

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
