"""The trained model of a finished run."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.ask import Bua
from bua_jax.alignment.parts import TRAINED, assemble, with_trained
from bua_jax.basics.config import load as load_config
from bua_jax.basics.errors import MismatchError
from bua_jax.events.schema import EventStore
from bua_jax.parallel.sharding import make_mesh
from bua_jax.pipeline.data import EVENTS
from bua_jax.pipeline.steps import check_files, record_in


def finished_stage(folder: Path) -> tuple[str, dict[str, Any]]:
    """(name, record) of a workdir's stage 3 where it is done, else of the last one that is.

    Raises `MismatchError` if the folder holds no finished stage, `DataError` if its record is damaged.
    """
    if not folder.is_dir():
        beside = [
            p.name for p in folder.parent.glob("*/") if (p / "stage2" / "record.json").is_file()
        ]
        near = difflib.get_close_matches(folder.name, beside, n=1, cutoff=0.5)
        hint = f" Did you mean {folder.parent / near[0]}?" if near else ""
        raise MismatchError(f"There is no folder {folder}, expected that of a trained run.{hint}")
    done = [s for s in ("stage3", "stage2", "joint") if (folder / s / "record.json").is_file()]
    if not done:
        raise MismatchError(
            f"{folder} holds no finished stage 2 or 3. Train one first: python -m bua_jax.curriculum "
            f"--workdir={folder}"
        )
    return done[0], _record(folder, done[0])


def _record(folder: Path, step: str) -> dict[str, Any]:
    record = record_in(folder / step)
    if record is None:
        raise MismatchError(
            f"{folder / step} has no record, so it is not finished. Build it with: python -m "
            f"bua_jax.curriculum --workdir={folder}"
        )
    return record


def events_of(folder: str | Path) -> EventStore:
    """The events of a run. Raises `DataError` for others than its step `data` wrote."""
    check_files(Path(folder) / "data", _record(Path(folder), "data"))
    return EventStore.load(Path(folder) / "data" / EVENTS)


def recorded_config(folder: Path, record: dict[str, Any]) -> ConfigDict:
    """The config that a stage was trained with.

    Raises `MismatchError` for a run of an older version, which lacks fields that asking it needs.
    """
    config, today = ConfigDict(record["config"]), load_config("configs/base.py")
    for part in ("execution", "model", "decoding", "dialogues", "windows"):
        missing = sorted(set(today[part]) - set(config.get(part, ())))
        if missing:
            made_by = record["versions"]
            raise MismatchError(
                f"{folder} was trained by version {made_by.get('bua_jax')} (git {made_by.get('git')}), "
                f"whose configs had no config.{part}.{missing[0]} yet. Use that version with it, or train "
                "it again in another --workdir."
            )
    return config


def load(folder: str | Path, *, refine: bool = False, mesh: str = "1") -> Bua:
    """The trained model of a workdir, after `finished_stage`; needs no training data.

    mesh: devices to ask it on, N (fsdp=N) or DATAxFSDPxTENSOR: histories are shared out over data and
    fsdp, heads over tensor.
    """
    folder = Path(folder)
    stage, record = finished_stage(folder)
    config = recorded_config(folder, record)
    how = config.execution
    for step in ("encoder", stage):
        check_files(folder / step, _record(folder, step))
    parts = assemble(config.model, how, folder / "encoder", config.seed, make_mesh(mesh))
    parts = with_trained(parts, folder / stage / TRAINED)
    shares = np.asarray(_record(folder, "data")["result"]["shares"])
    asked = (config.decoding, shares, config.windows, config.dialogues.rounds)
    return Bua(parts, *asked, refine, config.seed, how.decode_batch, config.model.drill)
