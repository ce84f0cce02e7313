"""Seconds and peak memory from a file of events to dialogues, for any number of events."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bua_jax.basics import environment, files
from bua_jax.basics.config import load as load_config
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.events.anonymise import anonymise_file
from bua_jax.events.simulate import write_population
from bua_jax.events.spec import DataSpec
from bua_jax.pipeline.data import build_data
from bua_jax.pipeline.dialogues import SETS, build_dialogues
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import build_set

EVENTS_PER_PERSON = 2072  # as in the Behavior set: 50 million of 24,133 people
DAYS = 190  # of the simulated population, in which a person has at least that many events
SEED = 2
STEPS = ("anonymise", "data", "dialogues")
_COLUMNS = {"user": "user", "time": "time", "location": "location", "behaviour": "behaviour"}


def write_events(path: Path, num_rows: int) -> None:
    """Writes `num_rows` simulated events as parquet, all people mixed: in the order of time."""
    everybody = path.with_suffix(".people")
    people = max(20, -(-num_rows // EVENTS_PER_PERSON))
    personas = path.with_suffix(".personas")
    written = write_population(everybody, people, DAYS, SEED, personas=personas)
    if written < num_rows:
        raise ConfigError(f"{people} people have {written} events, expected {num_rows} or more.")
    with files.atomic_write(path) as temporary:
        pl.scan_parquet(everybody, glob=False).head(num_rows).sort("time").sink_parquet(temporary)
    for left in (everybody, personas):
        left.unlink()


def measure(events: Path, workdir: Path, windows: int) -> dict[str, Any]:
    """Runs the steps on the file `events` in this process, as the verbs do, with the rules as teacher.

    anonymise: reads the file, anonymises it and its split, writes it. data: reads that, checks it,
    writes the store and the data card. dialogues: finds all windows, draws `windows` training windows
    and writes stages 1 and 2. Returns `rows`, `people`, `dialogues`, and per step `seconds`,
    `cpu_seconds` (of all threads and of the processes that it started) and `peak_gib` (its own).
    """
    config = load_config("configs/quickstart.py", "data=behavior")
    config.data.path, config.data.format = str(workdir / "events.parquet"), "parquet"
    config.windows.train = windows
    run = Run(config, workdir)
    spec = DataSpec("simulated", str(events), "parquet", _COLUMNS)
    seconds, cpu_seconds, peak_gib = {}, {}, {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        environment.forget_peak()
        begin, cpu = time.perf_counter(), _cpu_seconds()
        result = work()
        seconds[name] = round(time.perf_counter() - begin, 2)
        cpu_seconds[name] = round(_cpu_seconds() - cpu, 2)
        peak_gib[name] = round(environment.peak_gib(), 3)
        notice(f"  {name}: {seconds[name]} s, {peak_gib[name]} GiB")
        return result

    # The key does not matter here; a fixed one gives the same files again.
    done = step("anonymise", lambda: anonymise_file(spec, Path(config.data.path), bytes(32)))
    step("data", lambda: build_data(run))

    def write() -> dict[str, Any]:
        for name in SETS:
            build_set(run, name)
        return build_dialogues(run)

    written = step("dialogues", write)
    return {
        "rows": done.events,
        "people": done.people,
        "dialogues": written["stage1"] + written["stage2"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gib": peak_gib,
    }


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _in_a_process(events: Path, workdir: Path, windows: int) -> dict[str, Any]:
    """`measure` in a process of its own, which holds nothing but the work."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "bua_jax.benchmarks.events"]
    done = subprocess.run(
        [*command, str(events), str(workdir), str(windows)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"Measuring {events} ended with exit code {done.returncode}; see above.")
    return json.loads(done.stdout.splitlines()[-1])


def bench_events(
    sizes: Sequence[int],
    output: Path,
    scratch: Path,
    *,
    windows: int,
    provenance: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Measures every size that `output` (JSON) does not hold yet; returns all, by rows.

    A size is measured anew if the settings or the versions are others than those of `output`. What is
    generated lies in `scratch` until the size is measured. provenance: written beside the sizes.
    Raises `ConfigError` where that fails.
    """
    settings = {"windows": windows, "days": DAYS, "seed": SEED, "versions": provenance["versions"]}
    known = files.read_json(output) if output.is_file() else {}
    found = known["sizes"] if known.get("settings") == settings else []
    for number, rows in enumerate(sizes, 1):
        title = f"[{number}/{len(sizes)}] {rows:,} events"
        if any(size["rows"] == rows for size in found):
            notice(f"{title}: measured before, in {output}")
            continue
        events, workdir = scratch / f"events_{rows}.parquet", scratch / f"run_{rows}"
        if not events.is_file():
            notice(f"{title}: simulating them")
            scratch.mkdir(parents=True, exist_ok=True)
            write_events(events, rows)
        notice(f"{title}: measuring")
        shutil.rmtree(workdir, ignore_errors=True)  # of a measurement that was cut
        found = sorted([*found, _in_a_process(events, workdir, windows)], key=_rows)
        files.write_json(output, {**provenance, "settings": settings, "sizes": found})
        shutil.rmtree(workdir)
        events.unlink()
    return [size for size in found if size["rows"] in sizes]


def _rows(size: Mapping[str, Any]) -> int:
    return size["rows"]


if __name__ == "__main__":
    measured = measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(measured))
