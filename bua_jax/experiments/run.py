"""An experiment's cells as steps of one workdir, equal ones built once.

Steps lie at steps/NAME/KEY (`pipeline.steps.keyed`): what two cells share is built once, any kill costs
what the steps themselves lose, and several processes on one disk share the work by their claims. A cell that
fails is recorded and passed over.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import BuaError, ClaimedError, DataError, Interrupted
from bua_jax.evaluation import tables
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.pipeline.chain import STEPS, build
from bua_jax.pipeline.steps import RECORD, Run, keyed, outline, record_in
from bua_jax.training.stage_table import STAGE_TABLE

WAIT = 20.0  # seconds before cells that others build are asked about again


def run_of(cell: Cell, workdir: Path, *, take_over: bool = False) -> Run:
    """The cell's run, whose steps lie where equal ones of other cells do."""
    return keyed(Run(cell.config, workdir, take_over=take_over), STEPS)


def folder_of(experiment: Experiment, workdir: Path) -> Path:
    """Where tables and failures of an experiment lie."""
    return workdir / "experiments" / experiment.name


@dataclass(frozen=True)
class Plan:
    """What a set of cells takes."""

    cells: int
    steps: int  # of all cells together
    distinct: int
    done: int  # of the distinct ones
    minutes: float  # for what is left, on this machine
    measured: bool  # whether steps built here say how fast it is
    refused: Mapping[str, str]  # cells that cannot be built on what lies there, and why

    def __str__(self) -> str:
        rate = "rates of this machine" if self.measured else "no rate is known here yet"
        long = self.minutes >= 90
        left = f"{self.minutes / 60:.1f} h" if long else f"{self.minutes:.0f} min"
        return (
            f"{self.cells} cells: {self.steps} steps, {self.distinct} distinct, {self.done} done, about "
            f"{left} ({rate})"
        )


def plan(cells: Sequence[Cell], workdir: Path) -> Plan:
    """Reads records, builds nothing."""
    expected: dict[Path, tuple[str, float]] = {}
    finished: dict[Path, bool] = {}
    refused: dict[str, str] = {}
    steps = 0
    for cell in cells:
        run = run_of(cell, workdir)
        try:
            found = {
                name: done for s in cell.steps for name, done in outline(run, s, STEPS).items()
            }
        except BuaError as error:
            refused[cell.name] = str(error)
            continue
        steps += len(found)
        for name, done in found.items():
            expected[run.folder(name)] = name, STEPS[name].minutes(cell.config)
            finished[run.folder(name)] = done
    rates = rates_of(workdir)
    usual = rates.get("", 1.0)
    left = (expected[folder] for folder, done in finished.items() if not done)
    minutes = sum(rates.get(kind_of(name), usual) * guess for name, guess in left)
    there = sum(finished.values())
    return Plan(len(cells), steps, len(finished), there, minutes, bool(rates), refused)


Estimate = Callable[[ConfigDict, str], Mapping[str, float]]
"""(config, stage) -> hours of the stage and GiB of a device, on hardware that is not here."""


def plan_elsewhere(cells: Sequence[Cell], workdir: Path, estimate: Estimate) -> list[list[str]]:
    """Rows (stage, distinct, hours of one, hours of all, GiB), of one cell's stages for all of their kind."""
    distinct: dict[str, set[Path]] = {}
    of_one: dict[str, ConfigDict] = {}
    for cell in cells:
        run = run_of(cell, workdir)
        for step in (name for asked in cell.steps for name in outline(run, asked, STEPS)):
            if step in STAGE_TABLE:
                distinct.setdefault(step, set()).add(run.folder(step))
                of_one.setdefault(step, cell.config)
    found = []
    for stage, folders in distinct.items():
        one = estimate(of_one[stage], stage)
        hours = (one["hours"], one["hours"] * len(folders))
        found.append([stage, str(len(folders)), *(f"{h:.1f}" for h in hours), f"{one['gib']:.1f}"])
    return found


def print_plan(cells: Sequence[Cell], workdir: Path, estimate: Estimate | None) -> None:
    """What the cells take: on this machine, or by `estimate` elsewhere."""
    found = plan(cells, workdir)
    out.print(str(found))
    for name, why in found.refused.items():
        notice(f"{name} can not be built: {why}")
    if estimate is not None:
        header = ("stage", "distinct", "hours of one", "hours of all", "GiB a device")
        out.print(tables.markdown(header, plan_elsewhere(cells, workdir, estimate)))


def kind_of(step: str) -> str:
    """`predict/bua/test` -> `predict`."""
    return step.partition("/")[0]


def rates_of(workdir: Path) -> dict[str, float]:
    """By kind of step, and for all ("") together: minutes that steps took over those expected of them."""
    took: dict[str, float] = {}
    guessed: dict[str, float] = {}
    for path in sorted((workdir / "steps").glob(f"**/{RECORD}")):
        try:
            record = record_in(path.parent)
        except DataError:  # said where it is needed
            continue
        if record is None or record["step"] not in STEPS:
            continue
        guess = STEPS[record["step"]].minutes(ConfigDict(record["config"]))
        for kind in (kind_of(record["step"]), ""):
            took[kind] = took.get(kind, 0.0) + record["seconds"] / 60
            guessed[kind] = guessed.get(kind, 0.0) + guess
    return {kind: took[kind] / guess for kind, guess in guessed.items() if guess > 0}


Build = Callable[[Run, str], None]


def build_cells(
    experiment: Experiment,
    cells: Sequence[Cell],
    workdir: Path,
    *,
    take_over: bool = False,
    build: Build = build,
    wait: float = WAIT,
) -> dict[str, str]:
    """Builds all cells; returns those that failed, with their errors, which are kept in failures.json.

    Cells whose steps another process builds are asked about again when the others are done. Raises
    `Interrupted` on a signal; the same command goes on.
    """
    path = folder_of(experiment, workdir) / "failures.json"
    failed: dict[str, str] = files.read_json(path) if path.is_file() else {}
    left = list(cells)
    while left:
        claimed: list[Cell] = []
        for number, cell in enumerate(left, 1):
            run = run_of(cell, workdir, take_over=take_over)
            notice(f"== {cell.name} ({number} of {len(left)})")
            try:
                for step in cell.steps:
                    build(run, step)
                said = ""
            except ClaimedError as error:
                notice(f"{cell.name} waits: {error}")
                claimed.append(cell)
                continue
            except Interrupted:
                raise
            except Exception as error:  # one cell that fails costs no other
                said = (
                    f"{'' if isinstance(error, BuaError) else type(error).__name__ + ': '}{error}"
                )
                notice(f"{cell.name} failed: {said}")
            failed.pop(cell.name, None)
            if said:
                failed[cell.name] = said
            files.write_json(path, failed)
        if len(claimed) == len(left):
            time.sleep(wait)
        left = claimed
    return {cell.name: failed[cell.name] for cell in cells if cell.name in failed}


def provenance(cell: Cell, workdir: Path) -> dict[str, Any]:
    """What a finished cell was built from: steps with their ids, commits, machines, config, fingerprints.

    Raises `DataError` for a cell that is not finished.
    """
    run = run_of(cell, workdir)
    records = {}
    left = list(cell.steps)
    while left:
        step = left.pop()
        if step in records:
            continue
        record = record_in(run.folder(step))
        if record is None:
            raise DataError(
                f"The cell {cell.name} lacks the step {step} ({run.folder(step)}): run the same command "
                "without --show first."
            )
        records[step] = record
        left += record["inputs"]
    return {
        "cell": cell.name,
        "folders": {step: str(run.folder(step).relative_to(workdir)) for step in records},
        "ids": {step: record["id"] for step, record in records.items()},
        "commits": sorted({str(record["versions"]["git"]) for record in records.values()}),
        "machines": sorted(
            {
                f"{one['device']}, {one['cores']} cores"
                for record in records.values()
                if (one := record.get("hardware"))
            }
        ),
        "dates": sorted(
            {
                datetime.fromtimestamp((run.folder(s) / RECORD).stat().st_mtime, UTC)
                .date()
                .isoformat()
                for s in records
            }
        ),
        "minutes": round(sum(record["seconds"] for record in records.values()) / 60, 1),
        "data": records["data"]["result"].get("fingerprint"),
        "windows": {
            step: record["result"]["fingerprint"]
            for step, record in records.items()
            if step.startswith("windows/")
        },
    }
