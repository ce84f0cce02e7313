"""Metrics to JSONL and TensorBoard, with clu's writer interface and without TensorFlow."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError, WriteError

METRICS = "metrics.jsonl"


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where it is installed, which takes seconds and nothing here uses."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what `import` takes for not installed
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


class _Board:
    """TensorBoard's event file, written in this thread.

    The thread of `SummaryWriter` dies when a disk is full for a moment, and its full queue then holds
    the training for ever.
    """

    def __init__(self, folder: Path, start: int) -> None:
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import scalar
        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar = Event, scalar
        self._events = EventsWriter(str(folder / "events"))
        restart = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=start + 1, session_log=restart))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self.write_summaries([self._scalar(n, v) for n, v in scalars.items()], step)

    def write_summaries(self, summaries: Iterable[Any], step: int = 0) -> None:
        for summary in summaries:
            self._events.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class MetricWriter:
    """`write_scalars(step, scalars)` appends to metrics.jsonl and to TensorBoard event files.

    `start` is the step a run resumes from: TensorBoard drops what a killed run wrote after it. Without
    a folder nothing is written (of several processes one does).
    """

    def __init__(self, folder: Path | None, *, start: int = 0) -> None:
        self._file: TextIO | None = None
        self._board: _Board | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS
        cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        if cut:  # a killed process may leave half a line; the next one must not continue it
            self._file.write("\n")
        self._board = _Board(folder / "tensorboard", start)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line of JSON with a hash of it; NaN and infinities, which JSON lacks, are left out.

        Raises `WriteError`.
        """
        if self._file is None or self._board is None:
            return
        finite = {k: float(v) for k, v in scalars.items() if math.isfinite(v)}
        try:
            self._file.write(json.dumps(files.seal({"step": step, **finite})) + "\n")
            self._file.flush()
            self._board.write_scalars(step, finite)
        except OSError as error:
            raise _full(str(Path(self._file.name).parent), error) from error

    def close(self) -> None:
        """Raises `WriteError` if what is left could not be written."""
        failed: OSError | None = None
        for part in (self._file, self._board):
            try:
                if part is not None:
                    part.close()
            except OSError as error:
                failed = error
        if failed is not None and self._file is not None:
            raise _full(str(Path(self._file.name).parent), failed) from failed

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except WriteError:
            if error is None:  # or else that one says why
                raise


def write_run(folder: Path, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """TensorBoard's view of a finished run (its tab HPARAMS, and the metrics as scalars), in place of an
    earlier one.

    settings: flat; what is neither text, number nor bool is shown as text. Raises `WriteError`.
    """
    with _without_torch():
        from tensorboardX.summary import hparams
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    plain = (str, bool, int, float)
    shown = {k: v if isinstance(v, plain) else json.dumps(v) for k, v in settings.items()}
    try:
        for path in folder.glob("events*"):
            path.unlink()
        board = _Board(folder, 0)
        board.write_summaries(hparams(shown, finite))
        board.write_scalars(0, finite)
        board.close()
    except OSError as error:
        raise _full(str(folder), error) from error


def _full(path: str, error: OSError) -> WriteError:
    return WriteError(
        f"Could not write the metrics in {path} ({error}). Checkpoints are untouched. Free disk space "
        "and run the same command again."
    )


def read_scalars(folder: Path) -> list[dict[str, float]]:
    """The records of metrics.jsonl, one per step (the last written wins), in step order.

    Lines that a killed process left half and such as were altered are left out, which is said.
    """
    path = folder / METRICS
    records: dict[int, dict[str, float]] = {}
    damaged = []
    text = path.read_bytes().removesuffix(b"\n") if path.exists() else b""
    for number, line in enumerate(filter(None, text.split(b"\n")), 1):
        try:
            record = files.unseal(json.loads(line), path)
        except (DataError, ValueError, RecursionError):
            damaged.append(str(number))
            continue
        records.setdefault(int(record["step"]), {}).update(record)
    if damaged:
        notice(f"{path}: cut or altered, and left out: line {', '.join(damaged)}")
    return [records[step] for step in sorted(records)]
