"""A finished run in MLflow and W&B, by their own readers; nothing leaves the machine."""

from pathlib import Path

import pytest

from bua_jax.basics.errors import ConfigError, WriteError
from bua_jax.evaluation import tables, trackers
from tests.support.helpers import require

CONFIG = {f"part.field{i}": str(i) for i in range(150)} | {"stages": "(1, 2)"}
METRICS = {f"prediction/bua/{name}": 35.5 for name in tables.METRICS} | {
    "prediction/log_loss": 2.25,
    "prediction/bua/behaviours/看电视 (1+1)": 0.5,
    **{f"prediction/many/{i}": float(i) for i in range(1200)},
}


def track(workdir: Path, name: str, **changes: float) -> None:
    workdir.mkdir(exist_ok=True)
    (workdir / "report.html").write_text("<p>page</p>")
    pages = [workdir / "report.html"]
    one = trackers.Finished(workdir.name, CONFIG, METRICS | changes, pages)
    trackers.track(workdir, (name,), one)


def test_mlflow_has_the_run_once_until_something_changes(tmp_path: Path) -> None:
    client = require("mlflow.tracking").MlflowClient
    for changes in ({}, {}, {"prediction/log_loss": 2.0}):
        track(tmp_path / "quickstart", "mlflow", **changes)
    found = client(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = found.get_experiment_by_name("bua_jax")
    runs = found.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["prediction/log_loss"] for run in runs) == [2.0, 2.25]
    assert all(run.data.metrics["prediction/bua/hr_at_3"] == 35.5 for run in runs)
    assert all(len(run.data.metrics) == len(METRICS) for run in runs)
    assert all(run.data.params["part.field149"] == "149" for run in runs)
    assert all(run.data.params["stages"] == "(1, 2)" for run in runs)
    assert {run.info.run_name for run in runs} == {"quickstart"}
    assert [file.path for file in found.list_artifacts(runs[0].info.run_id)] == ["report.html"]


def test_wandb_is_offline(tmp_path: Path) -> None:
    require("wandb")
    track(tmp_path / "quickstart", "wandb")
    track(tmp_path / "quickstart", "wandb")
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = run.glob("*.wandb")
    assert b"prediction/bua/rec_w" in log.read_bytes()
    assert (run / "files" / "report.html").read_text() == "<p>page</p>"


def test_what_a_tracker_raises_is_one_error_and_not_taken_for_logged(
    tmp_path: Path, monkeypatch
) -> None:
    def broken(folder: Path, one: trackers.Finished) -> None:
        raise RuntimeError("no space")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", broken)
    with pytest.raises(WriteError, match=r"mlflow could not log .*no space"):
        track(tmp_path / "quickstart", "mlflow")
    assert not (tmp_path / "quickstart" / trackers.TRACKED).exists()


def test_what_is_not_there_is_said_before_anything_runs(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="'mlfow' is none of mlflow, wandb"):
        trackers.check(("mlfow",))
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mlflow is not installed: pip install mlflow-skinny"):
        trackers.check(("mlflow",))
