"""Result files: what a method said about a set of cases, written in slices, without any target.

A file is a stream of Arrow: a batch of rows per slice, each sealed by a hash of itself and of what
precedes it. What is unfinished lies in FILE.partial, of which a cut or damaged slice, and what follows
it, is made anew. It reads back with `results.read`, or with polars.read_ipc_stream.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bua_jax.basics import files
from bua_jax.basics.begun import PARTIAL, RESULT
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, DataError, Interrupted, MismatchError
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.events.windows import Day

FILE = RESULT
_TEXTS = [
    ("text", pa.string()),  # what was written about the history, by round, as JSON
    ("cut", pa.int16()),  # rounds that ended at the limit of tokens
    ("seconds", pa.float32()),  # that the case took, as its share of a slice
]
_PIECES = pa.list_(pa.int16())
COLUMNS: dict[str, list[tuple[str, Any]]] = {
    "predict": [
        ("sample_id", pa.string()),
        ("label", pa.int16()),  # -1 = none could be read
        ("probability", pa.list_(pa.float32())),  # of every label
        *_TEXTS,
    ],
    "generate": [
        ("sample_id", pa.string()),
        ("weekday", pa.int16()),
        *((name, _PIECES) for name in ("slot", "place", "behaviour")),
        ("written", pa.string()),
        ("invalid", pa.int16()),  # pieces of `written` that could not be read
        *_TEXTS,
    ],
    "describe": [("sample_id", pa.string()), *_TEXTS],
}
Rows = Mapping[str, Sequence[Any] | np.ndarray | None]
"""Columns of a slice but `sample_id` and `seconds`; None where the method says nothing of the kind."""


@dataclass(frozen=True)
class Result:
    """A whole result file; `about`: whose it is, about which set, and what is shown beside its row."""

    path: Path
    about: Mapping[str, Any]
    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    def take(self, rows: np.ndarray) -> "Result":
        """The rows int[m], in that order."""
        return Result(self.path, self.about, self.table.take(pa.array(rows, pa.int64())))

    @cached_property
    def digest(self) -> str:
        """Hash of what was said, however long it took."""
        said = self.table.drop_columns(["seconds"]).to_pydict()
        return files.sha256_json({"facts": self.about["facts"], **said})

    @cached_property
    def sample_id(self) -> list[str]:
        return self.table["sample_id"].to_pylist()

    @cached_property
    def label(self) -> np.ndarray:
        """int16[n]; -1 where no label could be read."""
        return self.table["label"].to_numpy()

    @cached_property
    def probability(self) -> np.ndarray | None:
        """float32[n, C], or None of a method that only names labels."""
        column = self.table["probability"]
        if column.null_count or not len(column):
            return None
        return np.asarray(column.to_pylist(), np.float32)

    @property
    def distributions(self) -> np.ndarray:
        """float32[n, C]: the probabilities. Raises `ConfigError` of a method that only names labels."""
        if self.probability is None:
            raise ConfigError(
                f"{self.path} names labels without their probabilities, which another method is to read: set "
                "--config.decoding.decode=labels and build it anew."
            )
        return self.probability

    @cached_property
    def texts(self) -> list[dict[str, str]]:
        """What was written about each history, by round; empty where nothing was."""
        return [{} if said is None else json.loads(said) for said in self.table["text"].to_pylist()]

    @cached_property
    def answered_by(self) -> dict[str, int]:
        """Cases by model and fingerprint, as a host that was asked names them; of no other method."""
        told = (text for text in self.texts if "system_fingerprint" in text)
        return dict(Counter(f"{one['model']} {one['system_fingerprint']}".strip() for one in told))

    @cached_property
    def free_valid(self) -> float | None:
        """The share of answers that name a label where none was imposed; None of methods that write none."""
        told = [bool(text["free_label"]) for text in self.texts if "free_label" in text]
        return sum(told) / len(told) if told else None

    @cached_property
    def days(self) -> list[Day]:
        """The generated days."""
        columns = (self.table[name].to_pylist() for name in ("weekday", *_EVENT))
        return [Day(w, *map(tuple, event)) for w, *event in zip(*columns, strict=True)]


_EVENT = ("slot", "place", "behaviour")


def day_columns(days: Sequence[Day]) -> dict[str, list[Any]]:
    """Days as columns of a slice."""
    return {name: [getattr(day, name) for day in days] for name in ("weekday", *_EVENT)}


def text_columns(
    text: Sequence[Mapping[str, str]] | None, cut: Sequence[int] | None
) -> dict[str, Any]:
    """Texts by round as columns of a slice."""
    said = text if text is None else [json.dumps(dict(x), ensure_ascii=False) for x in text]
    return {"text": said, "cut": cut}


# -------------------------------------------------------------------------------- writing, reading


@dataclass(frozen=True)
class Ready:
    """A method that can be asked: what is shown beside its row, and its answers, slice by slice."""

    facts: Mapping[str, Any]
    rows: int  # cases asked about at once
    ask: Callable[[slice], Rows]


class _AskFailed(Exception):
    """An `OSError` while a method was asked, which no disk space would mend."""


def write(
    path: Path,
    kind: str,
    about: Mapping[str, Any],
    identity: str,
    names: Sequence[str],
    ready: Ready,
) -> None:
    """Writes a row for each of the cases `names`; goes on after the slices of a cut run.

    identity: of all that the rows depend on; slices of another one are not used, and a whole file of this
    one stays (a kill came before its record). Raises `DataError` if it cannot write, and `Interrupted`
    after the slice at hand on SIGTERM or Ctrl-C.
    """
    about = {**about, "kind": kind, "facts": ready.facts, "identity": identity, "count": len(names)}
    told = json.dumps(about, ensure_ascii=False)
    schema = pa.schema(COLUMNS[kind]).with_metadata({"about": told, "seal": _seal(told.encode())})
    partial, fresh = path.with_name(path.name + PARTIAL), path.with_name(path.name + ".new")
    whole = not partial.is_file()  # or there is nothing
    kept = _finished(path if whole else partial, identity, len(names))
    done = sum(batch.num_rows for batch in kept)
    if whole and kept and done == len(names):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            fresh.open("wb") as file,
            pa.ipc.new_stream(file, schema) as stream,
            asked_to_stop(f"at most {ready.rows} more cases") as asked,
        ):
            seal = _seal(told.encode())
            for batch in kept:
                seal = _append(stream, batch, seal)
            file.flush()
            if kept or not names:
                os.replace(fresh, partial)
            while done < len(names):
                if asked:
                    where = f" in {partial}" if done else ""  # which begins with the first slice
                    kept_so_far = f"{done} of {len(names)} cases are kept{where}"
                    again = "Run the same command again to go on after them."
                    raise Interrupted(asked[0], f"{kept_so_far}. {again}")
                some = slice(done, min(done + ready.rows, len(names)))
                seal = _append(stream, _batch(schema, names[some], ready, some), seal)
                file.flush()
                if not done:  # from its first slice on there is something to go on from
                    os.replace(fresh, partial)
                done = some.stop
            stream.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except _AskFailed as failed:
        raise failed.args[0] from None
    except OSError as error:
        raise DataError(
            f"Could not write {partial}: {error.strerror or error}. {done} cases are finished; free disk "
            "space and run the same command again."
        ) from error


def _batch(schema: pa.Schema, names: Sequence[str], ready: Ready, some: slice) -> pa.RecordBatch:
    begin = time.monotonic()
    try:
        rows = {"sample_id": names, **ready.ask(some)}
    except OSError as error:
        raise _AskFailed(error) from error
    rows["seconds"] = [(time.monotonic() - begin) / len(names)] * len(names)
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        values = rows.get(name)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            values = list(values.astype(np.float32))
        columns.append(pa.array([None] * len(names) if values is None else values, kind))
    return pa.record_batch(columns, schema=schema)


def _append(stream: pa.RecordBatchStreamWriter, batch: pa.RecordBatch, before: str) -> str:
    """Writes a slice with its seal, which is returned."""
    seal = _seal(before.encode(), batch.serialize())
    stream.write_batch(batch, custom_metadata={"seal": seal})
    return seal


def _seal(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _slices(path: Path) -> Iterator[Any]:
    """What a file says it is about, and then its slices; ends in `ValueError` before what is damaged."""
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            metadata = stream.schema.metadata or {}
            told = metadata[b"about"]
            seal = _seal(told)
            if metadata[b"seal"].decode() != seal:
                raise ValueError("its head was altered")
            about = json.loads(told)
            if not stream.schema.equals(pa.schema(COLUMNS[about["kind"]])):
                raise ValueError("it has other columns")  # a batch's seal is of its bytes alone
            yield about
            while True:
                try:
                    batch, said = stream.read_next_batch_with_custom_metadata()
                except StopIteration:
                    return
                batch.validate(full=True)
                seal = _seal(seal.encode(), batch.serialize())
                if (said or {}).get(b"seal", b"").decode() != seal:
                    raise ValueError("a slice was altered")
                yield batch
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def _finished(path: Path, identity: str, count: int) -> list[pa.RecordBatch]:
    """The whole slices of a file of the same identity, which has `count` rows when all is done.

    That there are some, and that some are left out, is said.
    """
    found: list[pa.RecordBatch] = []
    if not path.is_file():
        return found
    try:
        slices = _slices(path)
        if next(slices)["identity"] != identity:
            notice(f"{path} is of other settings or inputs; beginning anew")
            return found
        for batch in slices:  # those before a damaged one stay
            found.append(batch)
    except ValueError as error:
        notice(f"{path} was cut or damaged ({error}); going on after {len(found)} whole slices")
    if done := sum(batch.num_rows for batch in found):
        notice(f"{path}: {done} of {count} cases are done; going on after them")
    return found


def read(path: Path) -> Result:
    """Reads a whole file. Raises `DataError` for one that is missing, damaged or unfinished."""
    try:
        slices = _slices(path)
        about = next(slices)
        batches = list(slices)
        table = pa.Table.from_batches(batches, pa.schema(COLUMNS[about["kind"]]))
        if table.num_rows != about["count"]:
            raise ValueError(f"it holds {table.num_rows} of {about['count']} rows")
    except ValueError as error:
        raise DataError(
            f"{path} is missing or damaged ({error}). Remove {path.parent} and run the same command "
            "again; other result files are kept."
        ) from error
    return Result(path, about, table)


def rows_of(result: Result, fingerprint: str, names: Sequence[str]) -> np.ndarray:
    """int[n]: the rows of a file in the order of the cases `names` of the set `fingerprint`.

    Raises `MismatchError` for a file about other cases, or about one of them twice.
    """
    row_of = {name: row for row, name in enumerate(result.sample_id)}
    missing = sum(name not in row_of for name in names)
    extra = len(result) - (len(names) - missing)  # what is there twice is one too many
    if result.about["windows"] != fingerprint or missing or extra:
        raise MismatchError(
            f"{result.path} is about the windows {result.about['windows']}, but here they are "
            f"{fingerprint}: {missing} of {len(names)} are missing in it, {extra} are no part of them. "
            f"Remove {result.path.parent} and run the same command again."
        )
    return np.asarray([row_of[name] for name in names], int)


_SUM = 1e-3  # by which probabilities may miss 1: what is stored is float32


def check_predictions(by: str, names: Sequence[str], said: Rows, classes: int) -> None:
    """Raises `DataError` for a label or a distribution that nothing can be scored by, naming its case.

    by: whose they are, for the message; said: `label` int[n] and `probability` float[n, C] or None of the
    cases `names`.
    """
    label, given = np.asarray(said["label"], np.int64), said["probability"]
    _check_all(
        by, names, (label >= -1) & (label < classes), label, f"label from -1 to {classes - 1}"
    )
    if given is None:
        return
    p = np.asarray(given, np.float64)
    if p.shape != (len(label), classes):
        raise DataError(
            f"{by}: probabilities of shape {p.shape}, expected {classes} of each of {len(label)} cases."
        )
    sums = np.sum(p, axis=1)  # NaN is in no order
    good = (p >= 0).all(1) & (np.abs(sums - 1) <= _SUM)
    _check_all(by, names, good, sums, "distribution, none negative and in sum 1")


def _check_all(
    by: str, names: Sequence[str], good: np.ndarray, values: np.ndarray, expected: str
) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(f"{by}: case {names[row]} has {values[row]:.6g}, expected a {expected}.")
