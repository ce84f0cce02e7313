"""The trained model of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.ask import Bua
from bua_jax.alignment.parts import TRAINED, assemble
from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.basics.hints import no_run
from bua_jax.events.histories import People, people_of_events, read_histories
from bua_jax.events.schema import Catalogue, EventStore
from bua_jax.events.spec import DataSpec
from bua_jax.parallel.sharding import make_mesh
from bua_jax.pipeline.data import EVENTS
from bua_jax.pipeline.steps import check_files, check_version, record_in
from bua_jax.training.stage_table import STAGE_TABLE


def finished_stage(folder: Path) -> tuple[str, dict[str, Any]]:
    """(name, record) of a workdir's stage 3 where it is done, else of the last one that is.

    Raises `MismatchError` if the folder holds no finished stage, `DataError` if its record is damaged.
    """
    if not folder.is_dir():
        raise no_run(folder)
    for stage in ("stage3", "stage2", "joint"):
        if (record := record_in(folder / stage)) is not None:
            return stage, record
    stages = [path for s in STAGE_TABLE for path in sorted(folder.glob(f"steps/{s}/*/record.json"))]
    if stages:
        raise MismatchError(
            f"{folder} is the folder of an experiment, whose runs share {len(stages)} trained stages. Give "
            f"that of one of them, for example {stages[-1].parent}."
        )
    raise MismatchError(
        f"{folder} holds no finished stage 2 or 3. Train one first: python -m bua_jax.curriculum "
        f"--workdir={folder}"
    )


def stage_of(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """(folder, record) of the trained stage that a run's folder, or that of a step, stands for.

    Raises `MismatchError` where there is none and for a record of an older version, `DataError` for a
    damaged one.
    """
    folder = Path(folder)
    record = record_in(folder) if folder.is_dir() else None
    if record is None:
        stage, record = finished_stage(folder)
        return folder / stage, check_version(folder / stage, record)
    if record["step"] not in STAGE_TABLE:
        raise MismatchError(
            f"{folder} is the step {record['step']}, expected a trained stage or the folder of a run."
        )
    return folder, check_version(folder, record)


def _need(stage: Path, record: dict[str, Any], step: str) -> tuple[Path, dict[str, Any]]:
    """(folder, record) of a finished step that a stage was built from; its files are those that it wrote."""
    folder = stage / record["folders"][step]
    found = record_in(folder)
    if found is None:
        raise MismatchError(
            f"{folder} has no record, but {stage} was built from the step {step}. Bring it back, or build "
            "both anew."
        )
    check_files(folder, check_version(folder, found))
    return folder, found


def events_of(folder: str | Path) -> EventStore:
    """The events of a run. Raises `DataError` for others than its step `data` wrote."""
    data, _ = _need(*stage_of(folder), "data")
    return EventStore.load(data / EVENTS)


TABLES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
"""Formats of files of events, by their ending; histories as JSON lines have another."""


def asked_people(
    folder: str | Path,
    path: str | Path,
    catalogue: Catalogue,
    limit: int,
    *,
    only: str = "",
    columns: Mapping[str, str] | None = None,
    copy: Path | None = None,
) -> People:
    """Whom a run is asked about: the lines of a file of histories, or the people of a file of events.

    Such a file has the columns of the run's, but for `columns` (role -> column). copy: the same file as the
    readers take it, where it is not written so. only: id of the one person who is wanted. Raises `DataError`
    and `ConfigError` as the readers do.
    """
    path = Path(path)
    if path.suffix not in TABLES:
        ids, histories = read_histories(path, catalogue, limit)
        kept = [i for i, name in enumerate(ids) if name == only or not only]
        if not kept:
            raise DataError(f"{path} has no history of {only!r}.")
        return People([ids[i] for i in kept], [histories[i] for i in kept], [], [])
    _, record = _need(*stage_of(folder), "data")
    data = configs.part("data", "behavior").to_dict() | record["config"]["data"]
    data |= {
        "path": str(copy or path),
        "format": TABLES[(copy or path).suffix],
        "on_bad_row": "error",
        "behaviours": (),
    }
    data["columns"] = {**data["columns"], **(columns or {})}
    words = data.get("words")
    if words and not Path(words).is_file():
        raise DataError(
            f"There is no file {words}, which gives labels their words in this run. Bring it back."
        )
    try:
        spec = DataSpec.from_mapping(data)
        named = files.read_json(Path(words)) if words else {}
        return people_of_events(spec, named, catalogue, limit, only, called=str(path))
    except (ConfigError, DataError) as error:  # there is no config here
        raise type(error)(str(error).replace("--config.data.columns.", "--columns=")) from error


def recorded_config(folder: Path, record: dict[str, Any]) -> ConfigDict:
    """The config that a stage was trained with.

    Raises `MismatchError` for a run of an older version, which lacks fields that asking it needs; those of
    hosts, `execution.api_*`, are none.
    """
    config, today = ConfigDict(record["config"]), configs.load("configs/base.py")
    for part in ("execution", "model", "decoding", "dialogues", "windows"):
        had = config.get(part, ())
        missing = sorted(n for n in today[part] if n not in had and not n.startswith("api_"))
        if missing:
            made_by = record["versions"]
            raise MismatchError(
                f"{folder} was trained by version {made_by.get('bua_jax')} (git {made_by.get('git')}), "
                f"whose configs had no config.{part}.{missing[0]} yet. Use that version with it, or train "
                "it again in another --workdir."
            )
    return config


def load(
    folder: str | Path, *, refine: bool = False, mesh: str = "1", weights: str | None = None
) -> Bua:
    """The trained model of a run's folder (after `finished_stage`) or of a stage's; needs no training data.

    mesh: devices to ask it on, N (fsdp=N) or DATAxFSDPxTENSOR: histories are shared out over data and
    fsdp, heads over tensor. weights: their type as a CPU reads them, in place of the run's
    `decoding.weight_dtype`. Raises `ConfigError` where the base is not in float32.
    """
    stage, record = stage_of(folder)
    config = recorded_config(stage, record)
    if weights:
        from bua_jax.pipeline import checks  # it imports all methods, which asking does not need

        checks.check_flag("weights", weights, "decoding.weight_dtype")
        config.decoding.weight_dtype = weights
        checks.check_base(config)
    check_files(stage, record)
    (encoder, _), (_, data) = (_need(stage, record, step) for step in ("encoder", "data"))
    how = config.execution
    on, trained = make_mesh(mesh), stage / TRAINED
    parts = assemble(config.model, how, encoder, config.seed, on, trained=trained)
    shares = np.asarray(data["result"]["shares"])
    asked = (config.decoding, shares, config.windows, config.dialogues.rounds)
    return Bua(parts, *asked, refine, config.seed, how.decode_batch, config.model.drill)
