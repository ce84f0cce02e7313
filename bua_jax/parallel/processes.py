"""Several processes that train one model together: one to a node, or one to a host of a TPU slice.

All run the same command on one workdir in shared storage. The first (process 0) alone prints, writes
metrics and results, and builds what is not training; checkpoints are written by all.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator

import numpy as np

from bua_jax.basics import console
from bua_jax.basics.errors import ConfigError


def start(coordinator: str = "", count: int | None = None, index: int | None = None) -> None:
    """Joins the other processes; before anything else of jax.

    coordinator: HOST:PORT on which process 0 is reachable; count: processes; index: which this is.
    What is left out is found by jax under Slurm, Open MPI and on TPU slices. Raises `ConfigError` if it
    is not.
    """
    import jax  # what only reads and scores is alone, and does without it

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator or None, count, index)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The processes did not find each other ({error}). Give --coordinator=HOST:PORT of process "
            f"0, --process_count and --process_id (here: {coordinator!r}, {count}, {index}), or start "
            "them with srun, mpirun or on a TPU slice, where jax finds these itself."
        ) from error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # jax takes it, but the train loop answers it
    if not is_first():
        console.mute()


def several() -> bool:
    """Whether other processes take part."""
    return _asked("process_count", 1) > 1


def is_first() -> bool:
    """Whether this is the process that prints and writes; also where there is only one."""
    return _asked("process_index", 0) == 0


def _asked(name: str, alone: int) -> int:
    """What jax says of the processes; without it there is one, and it has no index but 0."""
    return getattr(sys.modules["jax"], name)() if "jax" in sys.modules else alone


def any_of(flag: bool) -> bool:
    """Whether `flag` holds in any process; all have to ask, and wait for each other."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The block runs in process 0, and in the others when that is done: it makes files they read."""
    if not is_first():
        any_of(False)
    yield
    if is_first():
        any_of(False)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """A process that fails ends at once, upon which jax ends the others.

    Otherwise it would wait at its exit, for minutes, for processes that wait for it.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        jax = sys.modules.get("jax")
        if not code or jax is None or not jax.distributed.is_initialized():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
