"""Every shipped experiment at tiny size from its plan to its pages, in one folder whose steps they share.

What learns and what is asked is drawn (`tests.support.drawn`), for models would take hours; the rest is real.
"""

import dataclasses
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.experiments import curves, plan, publish, report
from bua_jax.experiments.experiment import Cell, Experiment, cells, load
from bua_jax.experiments.run import build_cells, finished, folder_of, run_of
from bua_jax.pipeline import steps
from bua_jax.pipeline.steps import Run, Step, ensure
from tests.experiments.drawn import table

SHIPPED = sorted(p.stem for p in (configs.folder() / "experiments").glob("[a-z]*.py"))
SEED = "1"  # the others differ from it in nothing that is seen here


BUILT = Counter[Path]()
"""How often each folder was built, by all experiments."""


def counted(step: Step) -> Step:
    def build(run: Run) -> dict[str, Any]:
        BUILT[run.folder(run.step)] += 1
        return step.build(run)

    return dataclasses.replace(step, build=build)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking git and all packages takes longer than everything else here."""
    said = {"bua_jax": "0.0", "git": "abc", "code": "def"}
    monkeypatch.setattr(steps, "versions", lambda: said)


def built(name: str, workdir: Path) -> tuple[Experiment, list[Cell]]:
    """A shipped experiment, and its cells of one seed, which are there."""
    experiment = load(f"configs/experiments/{name}.py:scale=tiny")
    every = [cell for cell in cells(experiment) if str(cell.seed) == SEED]
    plan.check_cells(experiment, every, workdir)
    known = {name: counted(step) for name, step in table().items()}

    def build(run: Run, step: str) -> None:
        ensure(run, step, known)

    assert build_cells(experiment, every, workdir, build=build) == {}
    return experiment, every


@pytest.mark.parametrize("name", SHIPPED)
def test_an_experiment_from_its_plan_to_its_pages(name: str, workdir: Path, tmp_path: Path) -> None:
    """Nothing fails, all rows are there, what others have built is not built again, answers are enough."""
    experiment, every = built(name, workdir)
    assert set(BUILT.values()) == {1}
    done = finished(every, workdir)
    assert [cell.name for cell in done] == [cell.name for cell in every]
    publish.show(experiment, done, every, workdir, "the command", "")
    own = folder_of(experiment, workdir)
    said = json.loads((own / f"{name}.json").read_text())
    rows = said["losses" if experiment.curves else "rows"]
    assert [*rows] == [row.name for row in experiment.rows]
    page = (own / f"{name}.md").read_text()
    for row in experiment.rows:
        assert row.name in page
    assert (own / f"{name}.html").stat().st_size > 1000
    assert (own / f"{name}.png").exists() == bool(experiment.curves or experiment.drawn)


@pytest.mark.parametrize("name", ["table14", "table2", "understanding", "figure4"])
def test_answers_are_enough_for_the_page(name: str, workdir: Path, tmp_path: Path) -> None:
    """One experiment of each kind, kept after it was built and unpacked elsewhere."""
    experiment, every = built(name, workdir)
    elsewhere = unpacked(experiment, workdir, tmp_path)
    done = finished(every, elsewhere)
    assert done == every
    collect = curves.collect if experiment.curves else report.collect
    said, again = (collect(experiment, done, folder, "command") for folder in (workdir, elsewhere))
    assert files.sha256_json(again) == files.sha256_json(said)
    assert build_cells(experiment, every, elsewhere, build=_build_nothing) == {}
    assert plan.plan(every, elsewhere).refused == {}


def unpacked(experiment: Experiment, workdir: Path, folder: Path) -> Path:
    """A folder of what is kept of the finished cells: without adapters, checkpoints, dialogues."""
    archive = folder / "cells.tar.xz"
    publish.keep(experiment, workdir, str(archive))
    with tarfile.open(archive) as packed:
        names = {Path(name).name for name in packed.getnames()}
        packed.extractall(folder / "unpacked", filter="data")
    assert not [name for name in names if name.endswith((".safetensors", "dialogues.parquet"))]
    return folder / "unpacked"


def _build_nothing(run: Run, step: str) -> None:
    raise AssertionError(step)


def test_experiments_share_what_is_the_same(workdir: Path) -> None:
    """One data step and one encoder of the same config, whichever tables ask for them."""
    folders = {}
    for name, row in (
        ("table1", "BUA"),
        ("order", "BUA"),
        ("table4", "Ours"),
        ("figure4", "staged"),
    ):
        every = cells(load(f"configs/experiments/{name}.py:scale=tiny"))
        (cell,) = (one for one in every if (one.row.name, str(one.seed)) == (row, SEED))
        run = run_of(cell, workdir)
        for step in ("data", "windows/train", "encoder", "stage3"):
            folders.setdefault(step, set()).add(run.folder(step))
    assert {step: len(places) for step, places in folders.items()} == dict.fromkeys(folders, 1)
