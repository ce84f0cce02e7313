"""What the benchmarks share: runs that take turns, ratios of their seconds, peak memory, where they ran."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bua_jax.basics.environment import command, peak_gib, versions


def provenance(task: str, load: float) -> dict[str, Any]:
    """Where a measurement comes from: `command`, `date`, `load`, `cores`, `versions`.

    task: the benchmark, which is no longer among the arguments. load: what `os.getloadavg` said of the last
    minute before it began.
    """
    module = "bua_jax.bench"
    return {
        "command": command().replace(module, f"{module} {task}", 1),
        "date": datetime.now(UTC).date().isoformat(),
        "load": round(load, 1),
        "cores": os.cpu_count(),
        "versions": versions(),
    }


def alternate(repeats: int, *runs: Callable[[], Any]) -> list[list[float]]:
    """Seconds of each run in `repeats` rounds in which they take turns, after one unmeasured round."""
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for times, run in zip(seconds, runs, strict=True):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    return seconds


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """One run's seconds over another's, round by round: median `ratio`, `lowest` and `highest`."""
    each = np.asarray(slower) / np.asarray(faster)
    return {
        "ratio": float(np.median(each)),
        "lowest": float(each.min()),
        "highest": float(each.max()),
    }


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Median over rounds of one run's seconds over another's."""
    return ratios(slower, faster)["ratio"]


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return 1024 * peak_gib()
