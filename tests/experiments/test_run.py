"""Cells share equal steps, go on after anything, and fail alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from bua_jax.basics import files
from bua_jax.basics.errors import ClaimedError, ConfigError, DataError, Interrupted
from bua_jax.experiments import plan, run
from bua_jax.experiments.experiment import Row, cells, load
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
    for damaged in ("[]", "{"):  # it is a log: nothing depends on it
        path.write_text(damaged)
        assert run.build_cells(asked, every, tmp_path, build=build) == expected


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
    found = plan.plan(every, tmp_path)
    assert (found.cells, found.done, found.measured) == (20, 0, 0)
    assert found.distinct < found.steps
    assert "20 cells: " in str(found)
    assert "(0% of it by steps built here)" in str(found)

    def refused(made, step, table):
        raise ConfigError("no such thing")

    monkeypatch.setattr(plan, "outline", refused)
    assert plan.plan(every[:1], tmp_path).refused == {every[0].name: "no such thing"}


def test_hours_elsewhere_are_of_distinct_stages(tmp_path: Path) -> None:
    every = [c for c in cells(load("configs/experiments/table4.py:scale=paper")) if c.seed == 1]
    every = [c for c in every if c.row.name in ("Ours", "w/o stage3", "w/o stage1")]
    asked = []

    def estimate(config, stage: str) -> dict[str, float]:
        asked.append(stage)
        return {"hours": 2.0, "gib": 30.0}

    rows = {row[0]: row[1:] for row in plan.plan_elsewhere(every, tmp_path, estimate)}
    assert rows["stage1"] == ["1", "2.0", "2.0", "30.0"]
    assert rows["stage2"] == ["2", "2.0", "4.0", "30.0"]  # after stage 1, and without it
    assert sorted(asked) == ["stage1", "stage2", "stage3"]


def test_the_rate_is_that_of_steps_alike(tmp_path: Path) -> None:
    """A step that took twice what was expected makes those like it expect twice, and no others."""
    cell = cells(experiment())[0]
    folder, guess = run.run_of(cell, tmp_path).folder("data"), STEPS["data"].minutes(cell.config)
    record = {"step": "data", "seconds": 120 * guess, "config": cell.config.to_dict()}
    record = json.loads(json.dumps(record))
    elsewhere = {"device": "another", "cores": 96}
    files.write_sealed(folder / "record.json", {**record, "hardware": elsewhere})
    assert plan.took_here(tmp_path) == {}  # which says nothing of this machine
    files.write_sealed(folder / "record.json", record)
    took = plan.took_here(tmp_path)
    assert plan.rate_of(took, "data", guess) == pytest.approx(2)
    assert plan.rate_of(took, "data", 10 * guess) is None  # of another size
    assert plan.rate_of(took, "stage2", guess) is None
    for text in ("{", json.dumps(files.seal({"step": "data", "config": {}}))):  # damaged, or old
        (folder / "record.json").write_text(text)
        assert plan.took_here(tmp_path) == {}


def test_rows_of_one_table_ask_about_the_same_windows(tmp_path: Path, capsys) -> None:
    other = Row("elsewhere", {"windows.min_history": 12}, method="markov")
    asked = dataclasses.replace(experiment(), rows=(*experiment().rows, other))
    with pytest.raises(ConfigError, match=r"'elsewhere' are about other .*windows.min_history"):
        plan.check_shared(cells(asked), tmp_path)
    words = tmp_path / "words.json"
    words.write_text("{}")
    named = Row("named", {"data.words": str(words)}, method="markov")
    asked = dataclasses.replace(experiment(), rows=(*experiment().rows, named))
    plan.check_shared(cells(asked), tmp_path)
    plan.say_what_is_equal(cells(experiment()), tmp_path)
    assert "'last event' and 'the same' are the same" in " ".join(capsys.readouterr().err.split())
    wrong = Row("x", {"methods.markov.smoothing": -1.0}, method="markov")
    asked = dataclasses.replace(experiment(), rows=(wrong, *experiment().rows))
    with pytest.raises(ConfigError, match=r"Row 'x': config.methods.markov.smoothing"):
        plan.check_cells(asked, cells(asked), tmp_path)


def test_what_cannot_be_published_is_said_before_it_is_built(monkeypatch, capsys) -> None:
    left, file = plan.Plan(1, 2, 2, 1, 1.0, 0.0, {}), Path("mine.py")
    monkeypatch.setattr(plan, "is_committed", lambda path: path == file)
    for revision, said in ((None, "no checkout"), ("abc+", r"has changes \(abc\+\)")):
        monkeypatch.setattr(plan, "git_revision", lambda revision=revision: revision)
        with pytest.raises(ConfigError, match=said):
            plan.check_commit(left, file, publish=True)
        plan.check_commit(left, file, publish=False)
        assert "cannot be published" in " ".join(capsys.readouterr().err.split())
        plan.check_commit(dataclasses.replace(left, done=2), file, publish=True)  # nothing built
    monkeypatch.setattr(plan, "git_revision", lambda: "abc")
    plan.check_commit(left, file, publish=True)
    with pytest.raises(ConfigError, match=r"other\.py is in no commit"):
        plan.check_commit(left, Path("other.py"), publish=True)
