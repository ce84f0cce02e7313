"""Finished runs: which there are, and what differs between some of them, paired by person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import BuaError, DataError, MismatchError
from bua_jax.basics.hints import nearest_run
from bua_jax.evaluation import tables
from bua_jax.evaluation.counts import interval, resamples
from bua_jax.evaluation.report import Section
from bua_jax.experiments.report import Asked, asked_in
from bua_jax.pipeline.evaluate import METRICS
from bua_jax.pipeline.steps import COMMAND, RECORD, Run, read_record

SHOWN = ("rec_w", "overall", "tail", "log_loss", "hr@3")
_DRAWS = 2000  # resamples of people for an interval


@dataclass(frozen=True)
class Finished:
    """A run whose evaluation is finished."""

    run: Run
    metrics: dict[str, Any]
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return self.run.workdir.name


def finished(folder: Path) -> Finished:
    """Raises `MismatchError` for a folder without a finished evaluation, `DataError` for damaged files."""
    if not folder.is_dir():
        raise MismatchError(f"There is no folder {folder}.{nearest_run(folder)}")
    if not (folder / COMMAND).is_file():
        raise MismatchError(
            f"{folder} is no run: it has no {COMMAND}. `runs` lists those below a folder."
        )
    config = ConfigDict(files.read_sealed(folder / COMMAND)["config"])
    run = Run(config, folder)
    record = read_record(run, "evaluation")
    if record is None:
        raise MismatchError(
            f"{folder} has no finished evaluation. Finish it: python -m bua_jax.evaluate --workdir={folder}"
        )
    return Finished(run, files.read_json(run.file("evaluation", METRICS)), record)


def runs_in(folder: Path) -> list[dict[str, Any]]:
    """The runs below a folder, by name: name, model, data, steps (finished), evaluated (whether), and of
    BUA's row rec_w and log_loss; damaged (what is said) where one cannot be read."""
    found = []
    for path in sorted(folder.glob(f"*/{COMMAND}")):
        one: dict[str, Any] = {"name": path.parent.name}
        try:
            config = files.read_sealed(path)["config"]
            steps = list(path.parent.rglob(RECORD))
            one |= {
                "model": config["model"]["name"],
                "data": config["data"]["name"],
                "steps": len(steps),
            }
            one["evaluated"] = (path.parent / "evaluation" / RECORD).is_file()
            if one["evaluated"]:
                prediction = finished(path.parent).metrics["prediction"]
                row = prediction[tables.main_row(prediction)] if prediction else {}
                one |= {name: row.get(name) for name in ("rec_w", "log_loss")}
        except BuaError as error:
            one["damaged"] = str(error)
        found.append(one)
    return found


def _asked(one: Finished, method: str) -> Asked:
    """What a method said about the test windows."""
    rows = one.metrics["prediction"]
    if method not in rows:
        raise MismatchError(f"{one.run.workdir} has no row {method!r}; it has {', '.join(rows)}.")
    return asked_in(one.run, f"predict/{method}/test")


def differing(runs: Sequence[Finished]) -> dict[str, list[Any]]:
    """Fields of the configs that differ, with the value of each run; null where there is none."""
    flat = [configs.settings(one.run.config, sorted(one.run.config)) for one in runs]
    names = sorted(set().union(*flat))
    values = {name: [one.get(name) for one in flat] for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}


def compare(folders: Sequence[Path], method: str = "bua") -> dict[str, Any]:
    """Runs beside the first of them. Keys: runs (names), method, commits, differing (see there), metrics (by
    run), differences (by run but the first: metric -> difference, low, high, resampled over people; null
    where the runs were not tested on the same windows), paired (whether all were).

    Raises `DataError` for fewer than two runs, or two of one name, and as `finished` does.
    """
    runs = [finished(folder) for folder in folders]
    names = [one.name for one in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise DataError(
            f"Give two or more runs of different names, not {', '.join(names) or 'none'}."
        )
    first, *others = (_asked(one, method) for one in runs)
    people = len(first.counts)
    drawn = resamples(people, _DRAWS, 0)
    differences: dict[str, Any] = {}
    for name, other in zip(names[1:], others, strict=True):
        same = other.windows == first.windows
        differences[name] = _differences(first, other, drawn) if same else None
    return {
        "runs": names,
        "method": method,
        "commits": [one.record["versions"].get("git") for one in runs],
        "people": people,
        "differing": differing(runs),
        "metrics": {
            name: {m: one.metrics["prediction"][method].get(m) for m in SHOWN}
            for name, one in zip(names, runs, strict=True)
        },
        "differences": differences,
        "paired": all(found is not None for found in differences.values()),
    }


def _differences(first: Asked, other: Asked, drawn: np.ndarray) -> dict[str, dict[str, float]]:
    """Other minus first, each metric with its 95 % interval over people."""
    whole = [first.measure(one.counts.total()) for one in (first, other)]
    resampled = [first.measure(one.counts.combined(drawn)) for one in (first, other)]
    found = {}
    for name in SHOWN:
        if all(name in one and np.isfinite(one[name][0]) for one in whole):
            low, high = interval(resampled[1][name] - resampled[0][name])
            value = float(whole[1][name][0] - whole[0][name][0])
            found[name] = {"difference": value, "low": low, "high": high}
    return found


def sections(found: Mapping[str, Any]) -> list[Section]:
    """What `compare` found as tables."""
    runs = found["runs"]
    header = ("run", *SHOWN)
    rows = [
        [name, *(tables.cell(found["metrics"][name].get(m), m) for m in SHOWN)] for name in runs
    ]
    result = [Section(f"Row {found['method']}: percent, log-loss in nats", header, rows)]
    minus = [
        [name, *(_shown(one.get(m), m) for m in SHOWN)]
        for name, one in found["differences"].items()
        if one is not None
    ]
    if minus:
        title = f"Minus {runs[0]} (95 % over {found['people']} people)"
        result.append(Section(title, header, minus))
    fields = [[name, *map(str, values)] for name, values in found["differing"].items()]
    if len(set(found["commits"])) > 1:
        fields.insert(0, ["commit", *map(str, found["commits"])])
    fields = fields or [["nothing", *("" for _ in runs)]]
    return [*result, Section("What differs in their configs", ("field", *runs), fields)]


def _shown(value: Mapping[str, float] | None, metric: str) -> str:
    if value is None:
        return "-"
    scale, digits = (1, 3) if metric == "log_loss" else (100, 1)
    low, high = (f"{scale * value[k]:+.{digits}f}" for k in ("low", "high"))
    return f"{scale * value['difference']:+.{digits}f} ({low} to {high})"
