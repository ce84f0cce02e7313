"""Training checkpoints (the only file that knows orbax): state, data iterator, metadata record.

They hold what a stage trains, its optimizer and the position in the data, never the base. Orbax writes
to a temporary folder and renames it, so a checkpoint is whole or absent.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from bua_jax.console import notice
from bua_jax.errors import CheckpointError, MismatchError


def open_manager(folder: Path, *, keep: int = 2) -> ocp.CheckpointManager:
    """A manager of the newest `keep` checkpoints in `folder`."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(
    manager: ocp.CheckpointManager, step: int, state: Any, data: Any, metadata: Mapping[str, Any]
) -> None:
    """Writes a checkpoint; returns when it is on disk. Raises `CheckpointError` (a full disk, say)."""
    try:
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=grain.checkpoint.CheckpointSave(data),
                metadata=ocp.args.JsonSave(dict(metadata)),
            ),
            force=True,
        )
        manager.wait_until_finished()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Could not write the checkpoint of step {step} to {manager.directory} ({error}). Earlier "
            "checkpoints are untouched. Free disk space and run the same command again."
        ) from error


def restore(
    manager: ocp.CheckpointManager, state: Any, data: Any, metadata: Mapping[str, Any]
) -> tuple[int, Any]:
    """(step, state) of the newest good checkpoint, and `data` set to its position; (0, state) if none.

    A damaged checkpoint is passed over with a notice. Raises `MismatchError` naming the two values if
    a checkpoint is of another label set, encoder, base or config.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        try:
            found = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
            _check(manager.directory, found.metadata, metadata)
            restored = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract),
                    data=grain.checkpoint.CheckpointRestore(data),
                ),
            )
        except MismatchError:
            raise
        except Exception as error:  # orbax raises many kinds for a damaged folder
            notice(
                f"checkpoint {step} in {manager.directory} is damaged ({error}); trying the one before"
            )
            continue
        return step, restored.state
    if steps:
        raise CheckpointError(
            f"All checkpoints in {manager.directory} are damaged. Remove that folder to start the "
            "stage anew."
        )
    return 0, state


def _check(folder: Any, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(wanted)))
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise MismatchError(
                f"The checkpoint in {folder} has {name}={found.get(name)!r}, but this run has "
                f"{wanted[name]!r}. Use another --workdir, or remove that folder to start the stage anew."
            )


def read_metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The metadata record of a checkpoint."""
    found = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
    return dict(found.metadata)
