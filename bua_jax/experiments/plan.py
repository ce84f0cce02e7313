"""What an experiment takes before anything is built: steps, hours here or elsewhere, and what cannot work."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from bua_jax.basics.console import notice, out
from bua_jax.basics.environment import git_revision, hardware, is_committed
from bua_jax.basics.errors import BuaError, ConfigError, DataError
from bua_jax.evaluation import tables
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.experiments.run import is_finished, run_of
from bua_jax.pipeline import checks
from bua_jax.pipeline.chain import PURPOSES, STEPS
from bua_jax.pipeline.steps import RECORD, Run, order, outline, record_in
from bua_jax.training.stage_table import STAGE_TABLE

_ALIKE = 4.0  # steps whose expected minutes differ by a larger factor say nothing of each other


@dataclass(frozen=True)
class Plan:
    """What a set of cells takes."""

    cells: int
    steps: int  # of all cells together
    distinct: int
    done: int  # of the distinct ones
    minutes: float  # for what is left, on this machine
    measured: float  # share of them that steps built here tell
    refused: Mapping[str, str]  # cells that cannot be built on what lies there, and why

    @property
    def counts(self) -> str:
        return f"{self.cells} cells: {self.steps} steps, {self.distinct} distinct, {self.done} done"

    def __str__(self) -> str:
        long = self.minutes >= 90
        left = f"{self.minutes / 60:.1f} h" if long else f"{self.minutes:.0f} min"
        rates = f"{self.measured:.0%} of it by steps built here" if self.minutes else "none left"
        return f"{self.counts}, about {left} ({rates})"


def plan(cells: Sequence[Cell], workdir: Path) -> Plan:
    """Reads records, builds nothing."""
    expected: dict[Path, tuple[str, float]] = {}
    finished: dict[Path, bool] = {}
    refused: dict[str, str] = {}
    steps = 0
    for cell in cells:
        run = run_of(cell, workdir)
        try:
            found = _outline(cell, run, workdir)
        except BuaError as error:
            refused[cell.name] = str(error)
            continue
        steps += len(found)
        for name, done in found.items():
            expected[run.folder(name)] = name, STEPS[name].minutes(cell.config)
            finished[run.folder(name)] = done
    took = took_here(workdir)
    left = [expected[folder] for folder, done in finished.items() if not done]
    known = [(rate_of(took, *step), step[1]) for step in left]
    minutes = sum((1.0 if rate is None else rate) * guess for rate, guess in known)
    measured = sum(rate * guess for rate, guess in known if rate is not None)
    share = measured / minutes if minutes else 1.0
    there = sum(finished.values())
    return Plan(len(cells), steps, len(finished), there, minutes, share, refused)


def _outline(cell: Cell, run: Run, workdir: Path) -> dict[str, bool]:
    """The steps of a cell, and whether each is done; all of a finished one. Raises as `outline`."""
    if is_finished(cell, workdir):
        return {one: True for step in cell.steps for one in order(step, cell.config, STEPS)}
    return {one: done for s in cell.steps for one, done in outline(run, s, STEPS).items()}


def kind_of(step: str) -> str:
    """`predict/bua/test` -> `predict/bua`: steps that take alike."""
    return "/".join(step.split("/")[:2])


def took_here(workdir: Path) -> dict[str, list[tuple[float, float]]]:
    """By kind of step: (expected minutes, minutes that it took) of those that this machine built there."""
    found: dict[str, list[tuple[float, float]]] = {}
    paths = sorted((workdir / "steps").glob(f"**/{RECORD}"))
    here = hardware() if paths else {}
    for path in paths:
        try:
            record = record_in(path.parent)
            assert record is not None
            name = record["step"]
            if record.get("hardware", here) != here:
                continue
            pair = STEPS[name].minutes(ConfigDict(record["config"])), record["seconds"] / 60
        except (DataError, KeyError, AttributeError, TypeError):  # damaged, or of another version
            continue
        found.setdefault(kind_of(name), []).append(pair)
    return found


def rate_of(
    took: Mapping[str, Sequence[tuple[float, float]]], step: str, guess: float
) -> float | None:
    """Minutes that steps like this took over those expected of them; None where none was built here."""
    rates = [
        minutes / expected
        for expected, minutes in took.get(kind_of(step), ())
        if expected and guess / _ALIKE <= expected <= guess * _ALIKE
    ]
    return statistics.median(rates) if rates else None


def check_cells(experiment: Experiment, cells: Sequence[Cell], workdir: Path) -> None:
    """Raises `ConfigError` for a cell whose config cannot work, and for rows that cannot be one table."""
    checks.check_workdir(workdir)
    for cell in cells:
        try:
            checks.check(cell.config, PURPOSES, whole=False)  # a cell is one row
        except ConfigError as error:
            raise ConfigError(f"Row {cell.row.name!r}: {error}") from error
    if not experiment.curves:
        check_shared(cells, workdir)


def check_shared(cells: Sequence[Cell], workdir: Path) -> None:
    """Raises `ConfigError` for a row that asks about other test windows than the first one.

    A difference is paired by person and window, so that it would be found out after everything is built.
    Other words for the labels leave the windows as they are.
    """
    first, *others = cells
    for step in ("data", "windows/test"):
        expected = _folder_but_for_words(first, workdir, step)
        for cell in others:
            if _folder_but_for_words(cell, workdir, step) == expected:
                continue
            named = [name for name in cell.row.fields if name.startswith(("data.", "windows."))]
            named += [name for name in first.row.fields if name.startswith(("data.", "windows."))]
            raise ConfigError(
                f"The rows {first.row.name!r} and {cell.row.name!r} are about other {step} "
                f"({', '.join(dict.fromkeys(named)) or 'by a field of theirs'}): the rows of one table leave "
                "them as they are. Make another experiment of it."
            )


def _folder_but_for_words(cell: Cell, workdir: Path, step: str) -> Path:
    """Where a step of a cell would be if the labels had the data's own words."""
    config = cell.config.copy_and_resolve_references()
    if config.data.get("words"):
        with config.unlocked():
            config.data.words = ""
    return run_of(dataclasses.replace(cell, config=config), workdir).folder(step)


def say_what_is_equal(cells: Sequence[Cell], workdir: Path) -> None:
    """A notice on rows whose cells are one and the same."""
    places: dict[tuple[Path, ...], str] = {}
    said: set[tuple[str, str]] = set()
    for cell in cells:
        run = run_of(cell, workdir)
        where = tuple(run.folder(step) for step in cell.steps)
        other = places.setdefault(where, cell.row.name)
        if other != cell.row.name and (other, cell.row.name) not in said:
            said.add((other, cell.row.name))
            notice(
                f"The rows {other!r} and {cell.row.name!r} are the same: what they differ in changes nothing."
            )


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
    notice(f"compiling {', '.join(distinct)}: minutes each")
    found = []
    for stage, folders in distinct.items():
        one = estimate(of_one[stage], stage)
        hours = (one["hours"], one["hours"] * len(folders))
        found.append([stage, str(len(folders)), *(f"{h:.1f}" for h in hours), f"{one['gib']:.1f}"])
    return found


def print_plan(cells: Sequence[Cell], workdir: Path, estimate: Estimate | None) -> Plan:
    """Says what the cells take: on this machine, or by `estimate` elsewhere."""
    found = plan(cells, workdir)
    say_what_is_equal(cells, workdir)
    for name, why in found.refused.items():
        notice(f"{name} can not be built: {why}")
    if estimate is None:
        out.print(str(found))
    else:
        out.print(found.counts)
        header = ("stage", "distinct", "hours of one", "hours of all", "GiB a device")
        out.print(tables.markdown(header, plan_elsewhere(cells, workdir, estimate)))
    return found


def check_commit(found: Plan, file: Path, *, publish: bool) -> None:
    """A notice, with `publish` a `ConfigError`, where cells would be built from no commit.

    With `publish` the experiment's file is to be in one too, so that the page's command can be given again.
    """
    if publish and not is_committed(file):
        raise ConfigError(
            f"{file} is in no commit, so that what is published could not be built again: commit it first, "
            "or leave out --publish."
        )
    revision = git_revision()
    if found.done == found.distinct or (revision and not revision.endswith("+")):
        return
    said = (
        "This is no checkout" if revision is None else f"The checkout has changes ({revision})"
    ) + ", so that what is built now cannot be published"
    if publish:
        raise ConfigError(f"{said}: commit them first, or leave out --publish.")
    notice(f"{said}.")
