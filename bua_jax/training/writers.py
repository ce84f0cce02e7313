"""Metrics to JSONL and TensorBoard, with clu's writer interface and without TensorFlow."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter


class MetricWriter:
    """`write_scalars(step, scalars)` appends to metrics.jsonl and to TensorBoard event files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        finite = {k: float(v) for k, v in scalars.items() if math.isfinite(v)}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read_scalars(folder: Path, *, up_to: int | None = None) -> list[dict[str, float]]:
    """The records of metrics.jsonl, one per step (the last written wins), in step order."""
    path = folder / "metrics.jsonl"
    records: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed process may be cut
        if up_to is None or record["step"] <= up_to:
            records.setdefault(int(record["step"]), {}).update(record)
    return [records[step] for step in sorted(records)]
