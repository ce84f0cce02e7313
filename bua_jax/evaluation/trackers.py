"""A finished run in MLflow (a local folder) or Weights & Biases (offline): its config, metrics and pages.

Nothing is sent anywhere: `mlflow ui` reads the folder, and `wandb sync` is the user's own decision.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError

Log = Callable[[Path, str, Mapping[str, str], Mapping[str, float], Sequence[Path]], None]
"""(folder of the tracker, name of the run, its config, its metrics, files to keep with it) -> None."""
TRACKED = "tracked.json"  # what of a run has been logged: the hash of it, by tracker


def to_mlflow(
    folder: Path,
    name: str,
    config: Mapping[str, str],
    metrics: Mapping[str, float],
    pages: Sequence[Path],
) -> None:
    """A run of the experiment bua_jax in the file store `folder`."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(tracking_uri=folder.resolve().as_uri())
    found = client.get_experiment_by_name("bua_jax")
    experiment = found.experiment_id if found else client.create_experiment("bua_jax")
    run = client.create_run(experiment, run_name=name).info.run_id
    params = [Param(key, value) for key, value in config.items()]
    for begin in range(0, len(params), 100):  # it takes a hundred at a time
        client.log_batch(run, params=params[begin : begin + 100])
    client.log_batch(run, metrics=[Metric(key, value, 0, 0) for key, value in metrics.items()])
    for page in pages:
        client.log_artifact(run, str(page))
    client.set_terminated(run)


def to_wandb(
    folder: Path,
    name: str,
    config: Mapping[str, str],
    metrics: Mapping[str, float],
    pages: Sequence[Path],
) -> None:
    """An offline run of the project bua_jax; the folder's name is wandb's own choice."""
    import wandb

    run: Any = wandb.init(
        project="bua_jax",
        name=name,
        config=dict(config),
        dir=str(folder.parent),
        mode="offline",
        settings=wandb.Settings(silent=True),
    )
    run.log(dict(metrics))
    for page in pages:
        run.save(str(page), base_path=str(page.parent), policy="now")
    run.finish()


TRACKERS: dict[str, Log] = {"mlflow": to_mlflow, "wandb": to_wandb}
"""What `report.trackers` may name."""
_PACKAGES = {"mlflow": "mlflow-skinny"}  # of those that are called otherwise


def check(names: Sequence[str]) -> None:
    """Raises `ConfigError` for a tracker that there is not, or that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"{name!r} is none of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            package = _PACKAGES.get(name, name)
            raise ConfigError(f"{name} is not installed: pip install {package}, or leave it out")


def track(
    workdir: Path,
    names: Sequence[str],
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    pages: Sequence[Path],
) -> None:
    """Logs a finished run in the trackers' folders beside `workdir`; once, as long as nothing changes."""
    said = {key: str(value) for key, value in config.items()}
    path, digest = workdir / TRACKED, files.sha256_json({"config": said, "metrics": dict(metrics)})
    done = files.read_json(path) if path.is_file() else {}
    for name in names:
        if done.get(name) != digest:
            TRACKERS[name](workdir.parent / name, workdir.name, said, metrics, pages)
            done[name] = digest
            files.write_json(path, done)
