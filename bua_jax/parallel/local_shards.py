"""Work in shards on this machine: processes that start anew and write a file per shard, as on a cluster.

They are commands and no forks, since jax and readers of tables have threads, and not of `multiprocessing`,
which would run a caller's script anew.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bua_jax.basics import files
from bua_jax.basics.console import progress
from bua_jax.basics.errors import ConfigError
from bua_jax.parallel.ray_shards import Work, once, shard_paths

MOST = 8  # processes: each may read all of the data
PAUSE = 0.1  # seconds between two looks at what is finished


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_shards(
    module: str, argument: str, count: int, folder: Path, suffix: str, processes: int
) -> list[Path]:
    """Has processes write the files 0 to `count - 1` of `folder` that are not whole; all, in order.

    Each is `python -m MODULE ARGUMENT FOLDER NUMBER,NUMBER,...`, which calls `write` with its work. What is
    finished stays in `folder`. Raises `ConfigError` where one of them fails, which has said why.
    """
    paths = shard_paths(folder, count, suffix)
    missing = [number for number, path in enumerate(paths) if not files.is_whole(path)]
    for number in missing:
        files.hash_of(paths[number]).unlink(missing_ok=True)
    shares = [missing[i::processes] for i in range(min(processes, len(missing)))]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for share in shares:
            numbers = ",".join(map(str, share))
            command = [sys.executable, "-m", module, argument, str(folder.resolve()), numbers]
            children.append(subprocess.Popen(command, env=_environment()))
        done = _finished([files.hash_of(paths[number]) for number in missing], children)
        for _ in progress(done, "shards", len(missing)):
            pass
        failed = [child.returncode for child in children if child.returncode]
    finally:
        for child in children:
            child.kill()  # nothing where it has ended
            child.wait()
    if failed:
        raise ConfigError(
            f"A process that wrote shards ended with {failed[0]} (2: see above; -9: killed, or out of "
            f"memory). Finished shards are kept in {folder}; run the same command again."
        )
    return paths


def _environment() -> Mapping[str, str]:
    """This process', in which the package is found wherever it was found here."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _finished(marks: Sequence[Path], children: Sequence[subprocess.Popen[bytes]]) -> Iterator[Path]:
    """The marks as they appear, until all are there or a process has failed or all have ended."""
    left = list(marks)
    while left:
        ended = [child.poll() for child in children]
        for mark in [mark for mark in left if mark.is_file()]:
            left.remove(mark)
            yield mark
        if any(ended) or None not in ended:
            return
        time.sleep(PAUSE)
    for child in children:
        child.wait()


def write(work: Work, folder: Path, numbers: str, suffix: str) -> None:
    """In such a process: writes the shards `NUMBER,NUMBER,...` of `folder`."""
    for number in map(int, numbers.split(",")):
        once(work, number, folder / f"{number:05d}{suffix}")
