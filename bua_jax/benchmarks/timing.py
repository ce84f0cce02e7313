"""What the benchmarks share: runs that take turns, ratios of their seconds, and peak memory."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bua_jax.basics.environment import peak_gib


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
