"""Cells share equal steps, go on after anything, and fail alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from bua_jax.basics.errors import ClaimedError, ConfigError, DataError, Interrupted
from bua_jax.experiments import run
from bua_jax.experiments.experiment import cells, load
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import outline
from tests.experiments.files import experiment


def folders(name: str, row: str, seed: int) -> dict[str, Path]:
    """Where the steps of a cell of table4 would lie."""
    (cell,) = (
        c
        for c in cells(load(f"configs/experiments/{name}.py:scale=tiny"))
        if (c.row.name, c.seed) == (row, seed)
    )
    made = run.run_of(cell, Path("w"))
    return {step: made.folder(step) for s in cell.steps for step in outline(made, s, STEPS)}


def test_equal_steps_lie_in_one_place() -> None:
    """Data and windows once for all cells, the encoder once per seed; "w/o stage3" trains nothing new."""
    ours, again, other = (
        folders("table4", row, seed) for row, seed in (("Ours", 1), ("Ours", 2), ("w/o stage3", 1))
    )
    assert ours["data"] == again["data"] == other["data"]
    assert ours["windows/test"] == again["windows/test"] == other["windows/test"]
    assert ours["encoder"] != again["encoder"]
    assert ours["encoder"] == other["encoder"]
    assert ours["stage2"] == other["stage2"]
    assert set(other.values()) - set(ours.values()) == {other["predict/bua/test"]}
    removed = folders("table4", "w/o stage1", 1)
    assert removed["stage2"] != ours["stage2"]
    assert removed["dialogues"] == ours["dialogues"]


def test_what_fails_is_recorded_and_passed_over(tmp_path: Path) -> None:
    asked = experiment()
    every = cells(asked)[:4]
    tried: list[str] = []

    def build(made, step: str) -> None:
        tried.append(f"{step} {made.config.seed}")
        if made.config.seed == 2:
            raise DataError("the data is gone")
        if made.config.seed == 3:
            raise ZeroDivisionError("by hand")

    failed = run.build_cells(asked, every, tmp_path, build=build)
    assert len(tried) == 4
    name = every[0].row.name
    expected = {f"{name}/2": "the data is gone", f"{name}/3": "ZeroDivisionError: by hand"}
    assert failed == expected
    path = run.folder_of(asked, tmp_path) / "failures.json"
    assert json.loads(path.read_text()) == expected
    assert run.build_cells(asked, every, tmp_path, build=lambda made, step: None) == {}
    assert json.loads(path.read_text()) == {}  # what was mended is not held against it


def test_what_another_builds_is_asked_about_again(tmp_path: Path) -> None:
    every, order = cells(experiment())[:3], []

    def build(made, step: str) -> None:
        order.append(made.config.seed)
        if made.config.seed == 1 and order.count(1) < 3:
            raise ClaimedError("process 7 builds it")

    assert run.build_cells(experiment(), every, tmp_path, build=build, wait=0.01) == {}
    assert order == [1, 2, 3, 1, 1]


def test_a_signal_stops_all(tmp_path: Path) -> None:
    tried: list[int] = []

    def build(made, step: str) -> None:
        tried.append(made.config.seed)
        raise Interrupted("SIGTERM", "saved")

    with pytest.raises(Interrupted):
        run.build_cells(experiment(), cells(experiment()), tmp_path, build=build)
    assert len(tried) == 1


def test_a_plan_counts_and_names_what_is_refused(tmp_path: Path, monkeypatch) -> None:
    every = cells(experiment())
    found = run.plan(every, tmp_path)
    assert (found.cells, found.done, found.measured) == (20, 0, False)
    assert found.distinct < found.steps
    assert "20 cells: " in str(found)
    assert "no rate is known" in str(found)

    def refused(made, step, table):
        raise ConfigError("no such thing")

    monkeypatch.setattr(run, "outline", refused)
    assert run.plan(every[:1], tmp_path).refused == {every[0].name: "no such thing"}


def test_hours_elsewhere_are_of_distinct_stages(tmp_path: Path) -> None:
    every = [c for c in cells(load("configs/experiments/table4.py:scale=paper")) if c.seed == 1]
    every = [c for c in every if c.row.name in ("Ours", "w/o stage3", "w/o stage1")]
    asked = []

    def estimate(config, stage: str) -> dict[str, float]:
        asked.append(stage)
        return {"hours": 2.0, "gib": 30.0}

    rows = {row[0]: row[1:] for row in run.plan_elsewhere(every, tmp_path, estimate)}
    assert rows["stage1"] == ["1", "2.0", "2.0", "30.0"]
    assert rows["stage2"] == ["2", "2.0", "4.0", "30.0"]  # after stage 1, and without it
    assert sorted(asked) == ["stage1", "stage2", "stage3"]


def test_the_rate_is_that_of_steps_built_here(tmp_path: Path) -> None:
    """A step that took twice what was expected makes the others expect twice."""
    cell = cells(experiment())[0]
    slow = dataclasses.replace(cell, config=cell.config)
    made = run.run_of(slow, tmp_path)
    from bua_jax.basics import files

    guess = STEPS["data"].minutes(cell.config)
    record = {"step": "data", "seconds": 120 * guess, "config": cell.config.to_dict()}
    files.write_sealed(made.folder("data") / "record.json", json.loads(json.dumps(record)))
    rates = run.rates_of(tmp_path)
    assert rates["data"] == pytest.approx(2)
    assert rates[""] == pytest.approx(2)
    (made.folder("data") / "record.json").write_text("{")
    assert run.rates_of(tmp_path) == {}
