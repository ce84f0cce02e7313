"""What lies in folders of runs and nothing needs any more: found, and removed when told to.

A finished step is read through the files of its record, and is never resumed: its checkpoints (with the
optimizer's moments) and its token records were for resuming it. What belongs to an unfinished step stays.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bua_jax.basics import claims
from bua_jax.basics.begun import PARTIAL
from bua_jax.basics.errors import MismatchError
from bua_jax.basics.hints import nearest_run
from bua_jax.pipeline.steps import COMMAND, RECORD, check_files, record_in

OF_FINISHED = {
    **dict.fromkeys(
        (
            "checkpoints",
            "*/checkpoints",
        ),  # of a step, or of parts of it that were trained one by one
        "checkpoints and moments, to resume a step that is finished",
    ),
    **dict.fromkeys(("best", "*/best"), "its best checkpoint, which its weights were made of"),
    "tokens_*": "token records, from which it was trained",
    f"*{PARTIAL}": "slices of a file that is whole",
    "*.new": "a file that a killed process began",
}
"""What of a finished step may go, by pattern."""
OF_ANY = {
    ".*.tmp": "a file that a killed process began",
    ".*.claim": "the claim of a process that is gone",
    "*.orbax-checkpoint-tmp*": "a checkpoint that a killed process began",
}
"""What nobody reads wherever it lies, once no process works there."""
COMPILED = ("*-cache", "*-atime")  # what jax keeps of a compiled program


@dataclass(frozen=True)
class Piece:
    """A file or folder that may go; size in bytes, step: the finished one that it is of, if it is of one."""

    path: Path
    about: str
    size: int
    step: Path | None = None


def _size(path: Path) -> int:
    files = [path] if not path.is_dir() else [one for one in path.rglob("*") if not one.is_dir()]
    return sum(one.lstat().st_size for one in files)


def removable(folder: Path, *, take_over: bool = False) -> list[Piece]:
    """What may go of all runs below a folder, or of the run that it is; by path.

    take_over: whether claims of processes on other hosts are of such as are gone. Raises `MismatchError` for
    a folder without runs, `ClaimedError` if a process works in it, `DataError` for a damaged step.
    """
    records = sorted(path.parent for path in folder.rglob(RECORD))
    if not records and not any(folder.rglob(COMMAND)):
        raise MismatchError(f"{folder} is no run and holds none.{nearest_run(folder)}")
    for claim in folder.rglob(".*.claim"):
        claims.check_abandoned(claim, take_over=take_over)
    found: dict[Path, Piece] = {}
    for step in records:
        record = record_in(step)
        assert record is not None, step
        check_files(step, record)
        for pattern, about in OF_FINISHED.items():
            for path in step.glob(pattern):
                found[path] = Piece(path, about, _size(path), step)
    for pattern, about in OF_ANY.items():
        for path in folder.rglob(pattern):
            if not found.keys() & {path, *path.parents}:
                found[path] = Piece(path, about, _size(path))
    return [found[path] for path in sorted(found)]


def compiled() -> list[Piece]:
    """The programs that jax keeps for all runs (JAX_COMPILATION_CACHE_DIR)."""
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ""))
    files = [one for kind in COMPILED for one in folder.glob(kind)] if folder.name else []
    size = sum(one.stat().st_size for one in files)
    return [Piece(folder, f"{len(files)} compiled programs", size)] if files else []


def remove(pieces: Sequence[Piece], *, take_over: bool = False) -> None:
    """Removes what `removable` found, each step while it is claimed. Raises `ClaimedError`."""
    for piece in pieces:
        with _held(piece, take_over):
            if piece.path.is_dir() and not piece.path.is_symlink():
                shutil.rmtree(piece.path)
            else:
                piece.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(piece: Piece, take_over: bool) -> Iterator[None]:
    """While the block runs no process builds the step; it is finished still when the block begins."""
    if piece.step is None:
        yield
        return
    with claims.claimed(piece.step, take_over=take_over):
        if (piece.step / RECORD).is_file():
            yield
        else:
            raise MismatchError(
                f"{piece.step} is no longer finished, so nothing of it was removed."
            )


def remove_compiled() -> None:
    """Removes what `compiled` found. A process that uses it compiles anew what it does not find."""
    for piece in compiled():
        for kind in COMPILED:
            for path in piece.path.glob(kind):
                path.unlink(missing_ok=True)
