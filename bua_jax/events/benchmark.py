"""Seconds and memory of read -> split -> windows, for a file of any size.

python -m bua_jax.events.benchmark --rows=10000000 --workdir=runs/benchmark_events
"""

import argparse
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from bua_jax.events.readers import read_events
from bua_jax.events.schema import SPLITS
from bua_jax.events.spec import DataSpec
from bua_jax.events.windows import (
    generation_windows,
    prediction_windows,
    sample_windows,
    window_arrays,
)

COLUMNS = {"user": "user", "time": "time", "location": "place", "behaviour": "behaviour"}


def write_events(path: Path, num_rows: int, seed: int = 42) -> None:
    """Writes random events of people with 1,000 events each as parquet or CSV, in random order."""
    rng = np.random.default_rng(seed)
    people = max(10, num_rows // 1000)
    minutes = rng.integers(0, 60 * 24 * 60, num_rows, dtype=np.int32)  # 60 days
    user = rng.integers(0, people, num_rows, dtype=np.int32)
    frame = pl.DataFrame(
        {
            "user": user,
            "minutes": minutes,
            "place": rng.zipf(1.6, num_rows).clip(1, 60).astype(np.int32),
            "behaviour": rng.zipf(1.5, num_rows).clip(1, 37).astype(np.int32),
        }
    ).lazy()
    start = pl.datetime(2024, 3, 1)
    table = frame.select(
        pl.format("person-{}", "user").alias("user"),
        (start + pl.duration(minutes="minutes")).dt.strftime("%Y-%m-%dT%H:%M:%S").alias("time"),
        pl.format("cell-{}-{}", "user", "place").alias("place"),
        pl.format("behaviour {}", "behaviour").alias("behaviour"),
    )
    if path.suffix == ".csv":
        table.sink_csv(path)
    else:
        table.sink_parquet(path)


def _measure(path: str) -> dict[str, float]:
    began = time.perf_counter()
    spec = DataSpec("benchmark", path, Path(path).suffix[1:], COLUMNS)
    store = read_events(spec)
    read = time.perf_counter()
    prediction = [prediction_windows(store, split) for split in SPLITS]
    generation = [generation_windows(store, split) for split in SPLITS]
    indexed = time.perf_counter()
    arrays = window_arrays(store, sample_windows(prediction[0], 50_000, 42), length=40)
    done = time.perf_counter()
    return {
        "rows": len(store.day),
        "people": len(store.users),
        "prediction_windows": sum(map(len, prediction)),
        "generation_windows": sum(map(len, generation)),
        "array_windows": len(arrays["n_events"]),
        "read_and_split_s": round(read - began, 2),
        "window_index_s": round(indexed - read, 2),
        "window_arrays_s": round(done - indexed, 2),
        "total_s": round(done - began, 2),
        "peak_gib": round(_peak_gib(), 2),
    }


def _peak_gib() -> float:
    """Largest resident memory of this process; a kernel's `ru_maxrss` also counts its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def benchmark_events(
    num_rows: int, workdir: str | Path, format: str = "parquet"
) -> dict[str, float]:
    """Writes `num_rows` synthetic rows to `workdir` and measures read -> split -> windows.

    Measured in a process of its own, so that peak_gib (resident memory) is that of the work alone.
    `window_arrays_s` is for at most 50,000 windows of 40 events.
    """
    path = Path(workdir) / f"events_{num_rows}.{format}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(write_events, path, num_rows).result()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, str(path)).result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workdir", default="runs/benchmark_events")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    arguments = parser.parse_args()
    print(
        json.dumps(benchmark_events(arguments.rows, arguments.workdir, arguments.format), indent=2)
    )
