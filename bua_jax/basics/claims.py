"""One process at a time on what is built: a claim beside it names the host, the process and its start.

Of the same host a claim whose process is gone is taken over. Whether a process of another host still runs
cannot be known here, so that it takes being told (`take_over`).
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bua_jax.basics.console import notice
from bua_jax.basics.errors import ClaimedError, WriteError, first_remedy


def claim_of(path: Path) -> Path:
    """Where the claim on a file or folder lies: beside it."""
    return path.with_name(f".{path.name}.claim")


@contextlib.contextmanager
def claimed(path: Path, *, take_over: bool = False) -> Iterator[None]:
    """While the block runs, `path` (a step's folder, a file that is written) is this process's.

    take_over: also what a process of another host has claimed. Raises `ClaimedError` naming the process
    that has it, and `WriteError` where a claim cannot be written.
    """
    claim, mine = claim_of(path), _mine()
    try:
        claim.parent.mkdir(parents=True, exist_ok=True)
        with _alone(claim.parent):
            _remove_dead(path, claim, take_over)
            _create(path, claim, mine)
    except OSError as error:
        raise WriteError(
            f"Could not write {claim}: {error.strerror or error}. Nothing was begun. "
            f"{first_remedy(error)} or choose another place, then run the same command again."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _read(claim) == mine:  # or another host has taken it over
                claim.unlink()


def check_abandoned(claim: Path, *, take_over: bool = False) -> None:
    """Raises `ClaimedError` for a claim whose process may be alive; see `claimed` for take_over."""
    if _lives(other := _read(claim), take_over):
        path = claim.with_name(claim.name.removeprefix(".").removesuffix(".claim"))
        raise ClaimedError(_taken(path, other))


def _create(path: Path, claim: Path, mine: dict[str, Any]) -> None:
    try:
        file = open(claim, "x", encoding="utf-8")  # noqa: SIM115
    except FileExistsError as error:  # another host was faster
        raise ClaimedError(_taken(path, _read(claim))) from error
    try:
        with file:
            json.dump(mine, file)
    except OSError:
        claim.unlink()
        raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Processes of this host take turns; where storage knows no locks, creating the file decides."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_dead(path: Path, claim: Path, take_over: bool) -> None:
    """Makes room for a claim. Raises `ClaimedError` if the one that is there may be alive."""
    if not claim.exists():
        return
    other = _read(claim)
    if _lives(other, take_over):
        raise ClaimedError(_taken(path, other))
    notice(f"{path}: taken over from {_name(other)}{', which is gone' * _is_here(other)}")
    claim.unlink()


def _is_here(other: dict[str, Any]) -> bool:
    return bool(other) and other["host"] == socket.gethostname()


def _lives(other: dict[str, Any], take_over: bool) -> bool:
    """Whether a claim is to be kept; of another host nobody here can know, so that take_over says it."""
    return _runs(other) if _is_here(other) else not take_over


def _taken(path: Path, other: dict[str, Any]) -> str:
    said = f"{path} is being written by {_name(other)}, so this process has begun nothing of it."
    if _is_here(other):
        return f"{said} Wait for that process, or stop it, and run the same command again."
    return (
        f"{said} Whether that still runs cannot be known on {socket.gethostname()}: wait for it, or take "
        "its place with --take_over if it is gone."
    )


def _name(other: dict[str, Any]) -> str:
    if not other:
        return "a process that its claim does not name"
    return f"process {other['pid']} on {other['host']} (since {other['since']})"


def _mine() -> dict[str, Any]:
    pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": pid, "start": _start(pid), "since": now}


def _read(claim: Path) -> dict[str, Any]:
    """Empty for a claim that is damaged or gone."""
    try:
        values = json.loads(claim.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    kinds = {"host": str, "pid": int, "since": str}
    whole = isinstance(values, dict) and "start" in values
    return values if whole and all(isinstance(values.get(n), k) for n, k in kinds.items()) else {}


def _start(pid: int) -> str | None:
    """When a process of this host began, in ticks since its boot; None if it is gone, or without /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in "ZX" else fields[18]


def _runs(other: dict[str, Any]) -> bool:
    """Whether the process of a claim of this host is there, and not another with its number."""
    if other["start"] is not None:
        return _start(other["pid"]) == other["start"]
    try:
        os.kill(other["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
