"""Which setting of a row is taken: by validation people alone, of as many as other rows have."""

import dataclasses
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from bua_jax.basics import files
from bua_jax.basics.errors import BuaError, ConfigError, DataError
from bua_jax.evaluation import results
from bua_jax.experiments import pages, plan, publish, report, run, tuning
from bua_jax.experiments.experiment import SCALES, TINY, Experiment, Row, cells, check, load
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.windows import load_set

PRIOR, SMOOTHING = "methods.window_majority.prior_events", "methods.markov.smoothing"
FIELDS = {**TINY, "data.num_users": 40, "windows.match": 200}
COUNTED = Row("counted", method="window_majority", trials=({PRIOR: 1e5}, {PRIOR: 1e-3}))
CHAINED = Row("chained", method="markov", trials=({SMOOTHING: 1e5}, {SMOOTHING: 1e-3}))


def experiment(*rows: Row, **more: Any) -> Experiment:
    scale = dataclasses.replace(SCALES["tiny"], fields=FIELDS)
    return Experiment("tuned", "Tuned", scale, rows or (COUNTED, CHAINED), "counted", **more)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all trials and cells are built."""
    folder = tmp_path_factory.mktemp("tuned")
    _, failed = tuning.build(experiment(), (), (), folder, take_over=False)
    assert failed == {}
    return folder


def test_the_lowest_log_loss_of_validation_people_wins(workdir: Path) -> None:
    """Against scikit-learn's, on windows of no test person."""
    asked = experiment()
    settled = tuning.settled(asked, workdir)
    for row, made in zip(asked.rows, settled.rows, strict=True):
        losses = []
        for cell in tuning.trials(asked, [row.name]):
            own, (step,) = run.run_of(cell, workdir), cell.steps
            store = load_store(own)
            frozen = load_set(own, "match", store)
            assert not set(frozen.windows.user) & set(store.users_of_split("test").tolist())
            said = results.read(own.folder(step) / results.FILE)
            labels = range(len(store.catalogue.behaviours))
            targets = store.behaviour[frozen.windows.end]
            losses.append(log_loss(targets, said.distributions, labels=labels))
        assert [one["log_loss"] for one in made.tried] == pytest.approx(losses)
        assert np.ptp(losses) > 0.1
        best = tuning.fields_of(row)[int(np.argmin(losses))]
        assert made.fields == best
        assert made.trials == ()


def test_an_archive_of_answers_has_the_trials(workdir: Path, tmp_path: Path) -> None:
    """So that what was taken stays known; archives of steps that were built apart are no table."""
    asked, archive = experiment(), tmp_path / "cells.tar.xz"
    publish.keep(asked, workdir, str(archive))
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "there", filter="data")
    settled = tuning.settled(asked, tmp_path / "there")
    assert settled == tuning.settled(asked, workdir)
    first, *others = done = run.finished(cells(settled), tmp_path / "there")
    assert len(done) == len(cells(settled))
    made = run.run_of(first, tmp_path / "there")
    folder = made.folder(f"fit/{first.row.method}")
    record = files.read_sealed(folder / "record.json")
    files.write_sealed(folder / "record.json", {**record, "id": "0" * 16})
    with pytest.raises(DataError, match=rf"{first.name} mixes .*fit/{first.row.method} .* split a"):
        run.provenance(first, tmp_path / "there", "config")
    assert not run.is_finished(first, tmp_path / "there")
    assert run.is_finished(others[-1], tmp_path / "there")


@pytest.mark.parametrize("spoilt", ["a cut answer", "another version", "a step that is gone"])
def test_a_cell_that_is_not_whole_is_not_finished(
    spoilt: str, workdir: Path, tmp_path: Path
) -> None:
    asked, archive = experiment(), tmp_path / "cells.tar.xz"
    publish.keep(asked, workdir, str(archive))
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    cell = cells(tuning.settled(asked, tmp_path))[0]
    made = run.run_of(cell, tmp_path)
    answers = made.folder(cell.steps[0])
    assert run.is_finished(cell, tmp_path)
    if spoilt == "a cut answer":
        path, said = answers / results.FILE, "its hash is"
        path.write_bytes(path.read_bytes()[:-9])
    elif spoilt == "another version":
        path, said = answers / "record.json", "do not say"
        record = files.read_sealed(path)
        del record["execution"]
        files.write_sealed(path, record)
    else:
        said = "lacks the step fit/"
        shutil.rmtree(made.folder(f"fit/{cell.row.method}"))
    assert not run.is_finished(cell, tmp_path)
    with pytest.raises(BuaError, match=said):
        report.collect(asked, [cell], tmp_path, "command")


def test_trials_that_are_not_there_are_not_kept(workdir: Path, tmp_path: Path) -> None:
    """Another table may have built the row as it is before any of its trials was."""
    first, second = tuning.settled(experiment(), workdir).rows
    left = dataclasses.replace(second, trials=({SMOOTHING: 7.0},), tried=())
    asked, archive = experiment(first, left), tmp_path / "cells.tar.xz"
    assert run.finished(tuning.trials(asked), workdir) != tuning.trials(asked)
    publish.keep(asked, workdir, str(archive))
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    assert len(run.finished(cells(asked), tmp_path)) == 4


def test_nothing_is_kept_where_nothing_is_finished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No cell of tuned is finished in .*nothing to keep"):
        publish.keep(experiment(), tmp_path, str(tmp_path / "cells.tar.xz"))
    assert [*tmp_path.iterdir()] == []


def test_all_seeds_are_built_with_it_and_the_page_shows_what_was_tried(workdir: Path) -> None:
    settled = tuning.settled(experiment(), workdir)
    every = cells(settled)
    assert len(run.finished(every, workdir)) == len(every) == 4
    said = report.collect(settled, every, workdir, "the command")
    assert [len(row["tried"]) for row in said["rows"].values()] == [3, 3]
    page = pages.page(said)
    assert "## What was tried" in page
    assert [line[3] for line in pages.tried(said)].count("taken") == 2
    rows = tuple(dataclasses.replace(row, tried=()) for row in settled.rows)
    untuned = report.collect(experiment(*rows), every, workdir, "the command")
    assert "What was tried" not in pages.page(untuned)


def test_the_plan_counts_trials(workdir: Path, tmp_path: Path) -> None:
    asked = experiment()
    planned = plan.plan([*tuning.trials(asked), *cells(asked)], tmp_path)
    assert (planned.cells, planned.done) == (6 + 4, 0)
    assert plan.plan(tuning.trials(asked, ["chained"]), workdir).done > 0
    assert len(tuning.trials(asked, ["chained"])) == 3
    assert tuning.trials(tuning.settled(asked, workdir)) == []


def test_a_trial_that_is_not_there_settles_nothing(tmp_path: Path) -> None:
    assert tuning.settled(experiment(), tmp_path) == experiment()


def test_where_a_trial_fails_no_cell_is_built(tmp_path: Path, monkeypatch) -> None:
    built: list[str] = []

    def build_cells(asked: Any, some: Any, folder: Path, *, take_over: bool) -> dict[str, str]:
        built.extend(cell.name for cell in some)
        return {some[0].name: "by hand"}

    monkeypatch.setattr(tuning, "build_cells", build_cells)
    asked, failed = tuning.build(experiment(), (), (), tmp_path, take_over=False)
    assert failed == {"counted, trial 1/1": "by hand"}
    assert built == [f"{row}, trial {i}/1" for row in ("counted", "chained") for i in (1, 2, 3)]
    assert asked == experiment()


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ((COUNTED, dataclasses.replace(CHAINED, trials=({},))), {}, "'counted': 2, 'chained': 1"),
        ((dataclasses.replace(COUNTED, trials=({"seed": 3},)),), {}, "a trial sets no seed"),
        (
            (Row("counted", method="tallrec_cross", trials=({"methods.tallrec.peak_lr": 1e-3},)),),
            {},
            "reads what others wrote",
        ),
        (
            (Row("counted", method="last_day", trials=({"seed": 1},)),),
            {"asks": "generate"},
            "chosen by predictions",
        ),
    ],
)
def test_trials_that_cannot_be(rows: tuple[Row, ...], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(experiment(*rows, **more))


def test_a_trial_of_no_field_is_refused() -> None:
    wrong = dataclasses.replace(COUNTED, trials=({"methods.window_majority.prior": 1},))
    with pytest.raises(ConfigError, match=r"row 'counted, trial 2': .* no field"):
        tuning.trials(experiment(wrong))


def test_all_that_are_trained_in_table_1_are_tuned_alike() -> None:
    """Six settings each, of which none is another's; the floors have nothing to tune."""
    asked = load("configs/experiments/table1.py:scale=laptop")
    tuned = {row.method: row.trials for row in asked.rows if row.trials}
    assert {len(trials) for trials in tuned.values()} == {5}
    assert {"bua", "lightgbm", "sasrec", "behavegpt", "tallrec", "llara"} <= tuned.keys()
    every = [(cell.row.method, cell.config.to_json()) for cell in tuning.trials(asked)]
    assert len(set(every)) == len(every) == 6 * len(tuned)
