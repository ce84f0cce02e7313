"""A finished run in MLflow (a local folder) or Weights & Biases (offline): its config, metrics and pages.

Nothing is sent anywhere: `mlflow ui` reads the folder, and `wandb sync` is the user's own decision.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, WriteError

TRACKED = "tracked.json"  # what of a run has been logged: the hash of it, by tracker


@dataclass(frozen=True)
class Finished:
    """What is logged of a run: its name, config and metrics by dotted name, and files to keep with them."""

    name: str
    config: Mapping[str, str]
    metrics: Mapping[str, float]
    pages: Sequence[Path]


def to_mlflow(folder: Path, one: Finished) -> None:
    """A run of the experiment bua_jax in the file store `folder`."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(tracking_uri=folder.resolve().as_uri())
    found = client.get_experiment_by_name("bua_jax")
    experiment = found.experiment_id if found else client.create_experiment("bua_jax")
    run = client.create_run(experiment, run_name=one.name).info.run_id
    params = [Param(key, value) for key, value in one.config.items()]
    for begin in range(0, len(params), 100):  # it takes a hundred at a time
        client.log_batch(run, params=params[begin : begin + 100])
    metrics = [Metric(_allowed(name), value, 0, 0) for name, value in one.metrics.items()]
    for begin in range(0, len(metrics), 1000):
        client.log_batch(run, metrics=metrics[begin : begin + 1000])
    for page in one.pages:
        client.log_artifact(run, str(page))
    client.set_terminated(run)


def _allowed(name: str) -> str:
    """A name as MLflow takes it: hr@3 as hr_at_3."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def to_wandb(folder: Path, one: Finished) -> None:
    """An offline run of the project bua_jax; the folder's name is wandb's own choice."""
    import wandb

    run: Any = wandb.init(
        project="bua_jax",
        name=one.name,
        config=dict(one.config),
        dir=str(folder.parent),
        mode="offline",
        settings=wandb.Settings(silent=True),
    )
    run.log(dict(one.metrics))
    for page in one.pages:
        run.save(str(page), base_path=str(page.parent), policy="now")
    run.finish()


TRACKERS: dict[str, Callable[[Path, Finished], None]] = {"mlflow": to_mlflow, "wandb": to_wandb}
"""What `report.trackers` may name: each logs into a folder."""
_PACKAGES = {"mlflow": "mlflow-skinny"}  # of those that are called otherwise


def check(names: Sequence[str]) -> None:
    """Raises `ConfigError` for a tracker that there is not, or that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"{name!r} is none of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            package = _PACKAGES.get(name, name)
            raise ConfigError(f"{name} is not installed: pip install {package}, or leave it out")


def track(workdir: Path, names: Sequence[str], one: Finished) -> None:
    """Logs a finished run in the trackers' folders beside `workdir`; once, as long as nothing changes.

    Raises `WriteError` for what a tracker raises; the run's own files are written by then.
    """
    said = asdict(one) | {"pages": [page.name for page in one.pages]}
    path, digest = workdir / TRACKED, files.sha256_json(said)
    done = files.read_json(path) if path.is_file() else {}
    for name in names:
        if done.get(name) == digest:
            continue
        try:
            TRACKERS[name](workdir.parent / name, one)
        except Exception as error:  # whatever somebody else's package raises
            raise WriteError(
                f"{name} could not log {workdir} ({error!r}). The results are in {workdir}; mend that, or "
                "leave it out with --config.report.trackers='()'."
            ) from error
        done[name] = digest
        files.write_json(path, done)
