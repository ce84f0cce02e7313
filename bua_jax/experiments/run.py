"""An experiment's cells as steps of one workdir, equal ones built once.

Steps lie at steps/NAME/KEY (`pipeline.steps.keyed`): what two cells share is built once, any kill costs
what the steps themselves lose, and several processes on one disk share the work by their claims. A cell that
fails is recorded and passed over.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import BuaError, ClaimedError, DataError, Interrupted
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.pipeline.chain import STEPS, build
from bua_jax.pipeline.steps import (
    RECORD,
    Run,
    check_files,
    check_version,
    keyed,
    order,
    record_in,
)
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.writers import METRICS

WAIT = 20.0  # seconds before cells that others build are asked about again


def run_of(cell: Cell, workdir: Path, *, take_over: bool = False) -> Run:
    """The cell's run, whose steps lie where equal ones of other cells do."""
    return keyed(Run(cell.config, workdir, take_over=take_over), STEPS)


def folder_of(experiment: Experiment, workdir: Path) -> Path:
    """Where tables and failures of an experiment lie."""
    return workdir / "experiments" / f"{experiment.name}-{experiment.scale.name}"


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
    failed: dict[str, str] = {}
    left, waited = list(cells), set()
    while left:
        claimed: list[Cell] = []
        for number, cell in enumerate(left, 1):
            run = run_of(cell, workdir, take_over=take_over)
            if cell.name not in waited:
                notice(f"== {cell.name} ({number} of {len(left)})")
            try:
                for step in () if is_finished(cell, workdir) else cell.steps:
                    build(run, step)
                said = ""
            except ClaimedError as error:
                if cell.name not in waited:
                    notice(f"{cell.name} waits for another process: {error}")
                waited.add(cell.name)
                claimed.append(cell)
                continue
            except Interrupted:
                raise
            except Exception as error:  # one cell that fails costs no other
                said = (
                    f"{'' if isinstance(error, BuaError) else type(error).__name__ + ': '}{error}"
                )
                notice(f"{cell.name} failed: {said}")
                failed[cell.name] = said
            _note(path, cell.name, said)
        if len(claimed) == len(left):
            time.sleep(wait)
        left = claimed
    return failed


def say_failed(failed: Mapping[str, str]) -> None:
    """Prints what `build_cells` returns."""
    for name, why in failed.items():
        out.print(f"failed: {name}: {why}", markup=False)


def _note(path: Path, name: str, said: str) -> None:
    """Keeps how a cell ended; other processes note theirs in the same file."""
    noted: Any = {}
    with contextlib.suppress(DataError, FileNotFoundError):
        noted = files.read_json(path)
    noted = noted if isinstance(noted, dict) else {}
    noted.pop(name, None)
    files.write_json(path, {**noted, name: said} if said else noted)


def finished(cells: Sequence[Cell], workdir: Path) -> list[Cell]:
    """Those that are."""
    return [cell for cell in cells if is_finished(cell, workdir)]


def is_finished(cell: Cell, workdir: Path) -> bool:
    """Whether all that the cell is read from is there and whole, and the records of all else.

    Other files of what it was built from may be elsewhere: see `publish.keep`.
    """
    run = run_of(cell, workdir)
    try:
        records = records_of(cell, run)
        for step in (one for one in read_steps(cell) if one not in STAGE_TABLE):
            check_files(run.folder(step), records[step])
    except BuaError:
        return False
    stages = (step for step in cell.steps if step in STAGE_TABLE)  # of which losses are read
    return all((run.folder(step) / METRICS).is_file() for step in stages)


def read_steps(cell: Cell) -> tuple[str, ...]:
    """The steps whose files a cell is read from: its answers, and the data and windows they are about."""
    needs = (need for asked in cell.steps for need in STEPS[asked].needs(cell.config))
    about = (need for need in needs if need.split("/")[0] in ("data", "windows"))
    return tuple(dict.fromkeys((*cell.steps, *about)))


def fields_of(cell: Cell) -> dict[str, Any]:
    """In what the cell differs from its experiment's config."""
    return {**cell.fields, "seed": cell.seed, "evaluation.methods": (cell.row.method,)}


def provenance(cell: Cell, workdir: Path, config: str) -> dict[str, Any]:
    """What a finished cell was built from: steps with their ids, commits, machines, fields, fingerprints.

    config: the experiment's, which the cell's fields change.

    Raises as `records_of` for a cell that is not finished.
    """
    run = run_of(cell, workdir)
    records = records_of(cell, run)
    return {
        "cell": cell.name,
        "folders": {step: str(run.folder(step).relative_to(workdir)) for step in records},
        "config": config,
        "fields": fields_of(cell),
        "ids": {step: record["id"] for step, record in records.items()},
        "code": sorted({str(record["versions"].get("code")) for record in records.values()}),
        "commits": sorted({str(record["versions"]["git"]) for record in records.values()}),
        "machines": sorted(
            {
                f"{one['device']}, {one['cores']} cores"
                for record in records.values()
                if (one := record.get("hardware"))
            }
        ),
        "dates": sorted({record.get("date") or _date_of(run, s) for s, record in records.items()}),
        "minutes": round(sum(record["seconds"] for record in records.values()) / 60, 1),
        "costs": _costs(cell, records),
        "data": records["data"]["result"].get("fingerprint"),
        "windows": {
            step: record["result"]["fingerprint"]
            for step, record in records.items()
            if step.startswith("windows/")
        },
    }


def records_of(cell: Cell, run: Run) -> dict[str, Any]:
    """Of all steps of a cell's run, by name.

    Raises `DataError` for one that is not there or is damaged, and where steps were built apart;
    `MismatchError` for one of another version.
    """
    records: dict[str, Any] = {}
    for step in dict.fromkeys(one for s in cell.steps for one in order(s, cell.config, STEPS)):
        record = record_in(run.folder(step))
        if record is None:
            raise DataError(
                f"The cell {cell.name} lacks the step {step} ({run.folder(step)}): the same command without "
                "--show builds it."
            )
        records[step] = check_version(run.folder(step), record)
        for need, built in record["inputs"].items():
            if need in records and records[need]["id"] != built:
                raise DataError(
                    f"The cell {cell.name} mixes what was built apart: {run.folder(step)} is of {need} "
                    f"{built}, and {run.folder(need)} is {records[need]['id']}. Archives that are put "
                    "together share data, windows and trials, and no other step: split a table by seeds."
                )
    return records


def _date_of(run: Run, step: str) -> str:
    """When a step was built whose record, of an earlier version, does not say so."""
    changed = (run.folder(step) / RECORD).stat().st_mtime
    return datetime.fromtimestamp(changed, UTC).date().isoformat()


_UNTRAINED = ("data", "windows", "predict", "generate", "describe")


def _costs(cell: Cell, records: Mapping[str, Any]) -> dict[str, Any]:
    """Minutes and GiB of what was trained for a cell (dialogues included), and of its method being asked.

    Loading and compiling are part of both. GiB: the largest resident memory of the host.
    """
    trained = [one for name, one in records.items() if name.split("/")[0] not in _UNTRAINED]
    asked = records[cell.steps[0]]
    seconds, number = asked["seconds"], asked["result"].get("cases")
    return {
        "trained_minutes": round(sum(one["seconds"] for one in trained) / 60, 1),
        "trained_gib": max((one.get("peak_gib") or 0 for one in trained), default=0),
        "seconds_per_1000": round(1000 * seconds / number, 1) if number else None,
        "asked_gib": asked.get("peak_gib"),
    }
