"""Training checkpoints (the only file that knows orbax): state, data iterator, metadata record.

They hold what a stage trains, its optimizer and the position in the data, never the base. Orbax
writes to a temporary folder and renames it, so a checkpoint is whole or absent; hashes in the metadata, which
have one themselves, tell when what lies there is no longer what was saved. Of several processes
all call these functions, and each writes its part. Nothing in a checkpoint depends on their number,
which is only recorded, or on the mesh.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import CheckpointError, MismatchError
from bua_jax.parallel import processes
from bua_jax.parallel.sharding import to_host


class InMemory:
    """In a manager's place, for a run that is not to be resumed: the newest state, where it lies."""

    directory = "memory"

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Any, dict[str, Any]]] = {}  # (state, metadata) by step

    def all_steps(self) -> list[int]:
        return list(self.kept)


Manager: TypeAlias = ocp.CheckpointManager | InMemory


def open_manager(folder: Path | None, *, keep: int = 2) -> Manager:
    """A manager of the newest `keep` checkpoints in `folder`, for the run that writes them.

    What a killed save left half-written is removed. Without a folder nothing is written.
    """
    if folder is None:
        return InMemory()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(folder.resolve(), options=options)


def _check_room(folder: Path, size: int) -> None:
    """Raises `OSError` if `folder` cannot take a file of `size` bytes; none is left, even by a kill.

    Asked before orbax writes, whose threads print pages of tracebacks about a disk that fills up.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, size)


def save(manager: Manager, step: int, state: Any, data: Any, metadata: Mapping[str, Any]) -> None:
    """Writes a checkpoint; returns when it is on disk. Raises `CheckpointError` for a full disk."""
    if isinstance(manager, InMemory):
        manager.kept = {step: (jax.tree.map(jnp.copy, state), dict(metadata))}
        return
    try:
        _check_room(Path(manager.directory), sum(x.nbytes for x in jax.tree.leaves(state)))
        if step in manager.all_steps():
            manager.delete(step)
        position = data.get_state()
        record = {**metadata, "hashes": _hashes(state, position)}
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(position),
                metadata=ocp.args.JsonSave(files.seal(json.loads(json.dumps(record)))),
            ),
            force=True,
        )
        manager.wait_until_finished()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Could not write the checkpoint of step {step} to {manager.directory} ({error}). "
            "Earlier checkpoints are untouched. Free disk space and run the same command again."
        ) from error


def _hashes(state: Any, position: Any) -> dict[str, str]:
    """By tree the hash of its content; of several processes all have to ask."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    return {"state": files.sha256_arrays(named, to_host), "data": files.sha256_json(position)}


def restore(
    manager: Manager, state: Any, data: Any, metadata: Mapping[str, Any]
) -> tuple[int, Any]:
    """(step, state) of the newest good checkpoint, `data` set to its position; (0, state) if none.

    Without `data` its position is left alone. `state` gives shapes, dtypes and shardings. A damaged
    checkpoint (its hashes are other ones) is passed over with a notice, and removed once an older one
    was found good. Raises `MismatchError` naming the two values if a checkpoint is of another label set,
    encoder, base or config, and `CheckpointError` if there are some and none is good.
    """
    if isinstance(manager, InMemory):
        newest = max(manager.kept, default=0)
        return newest, manager.kept[newest][0] if newest else state
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    damaged: list[int] = []
    for step in sorted(manager.all_steps(), reverse=True):
        reason = ""
        try:
            found, restored = _read(manager, step, abstract, metadata)
        except MismatchError:
            raise
        except Exception as error:  # orbax raises many kinds for a damaged folder
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if not processes.any_of(bool(reason)):  # hashing what is spread over them takes all
            now = _hashes(restored.state, restored.data)
            altered = [name for name, one in now.items() if found["hashes"].get(name) != one]
            reason = f"its {' and '.join(altered)} was altered" if altered else ""
        if processes.any_of(bool(reason)):  # then all go on to the same one
            reason = reason or "says another process"
            notice(
                f"checkpoint {step} in {manager.directory} is damaged ({reason}); trying the one "
                "before"
            )
            damaged.append(step)
            continue
        if data is not None:
            data.set_state(restored.data)
        for bad in damaged:
            manager.delete(bad)
        return step, restored.state
    if damaged:
        raise CheckpointError(
            f"All checkpoints in {manager.directory} are damaged. Remove "
            f"{manager.directory.parent} to start the stage anew."
        )
    return 0, state


def _read(
    manager: ocp.CheckpointManager, step: int, abstract: Any, metadata: Mapping[str, Any]
) -> tuple[dict[str, Any], Any]:
    """(metadata, state and data) of a checkpoint. Raises `MismatchError` if it is of another run."""
    found = _metadata(manager, step)
    _check(manager.directory, found, metadata)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
    return found, manager.restore(step, args=args)


def read_metadata(manager: Manager, step: int) -> dict[str, Any]:
    """The metadata record of a checkpoint. Raises `CheckpointError` if it is damaged."""
    if isinstance(manager, InMemory):
        return manager.kept[step][1]
    try:
        return _metadata(manager, step)
    except Exception as error:  # orbax raises many kinds for a damaged folder
        raise CheckpointError(
            f"Checkpoint {step} in {manager.directory} is damaged ({error}). Remove "
            f"{manager.directory.parent} to start the stage anew."
        ) from error


def _metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    found = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
    return files.unseal(found.metadata, "its metadata")


def _check(folder: Any, found: Any, wanted: Mapping[str, Any], prefix: str = "") -> None:
    """Raises `MismatchError` for the first field of `wanted` that `found` has otherwise."""
    for name, value in json.loads(json.dumps(dict(wanted))).items():
        other = found.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            _check(folder, other, value, f"{prefix}{name}.")
        elif other != value:
            raise MismatchError(
                f"The checkpoint in {folder} has {prefix}{name}={other!r}, but this run has "
                f"{value!r}. Use another --workdir, or remove that folder to start the stage anew."
            )
