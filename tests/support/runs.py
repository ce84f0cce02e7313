"""The quickstart at reduced size: built once per test session, read by several tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

from bua_jax.experiments.experiment import TINY
from tests.support import forks
from tests.support.helpers import ROOT

REDUCED = tuple(f"--config.{name}={value}" for name, value in TINY.items())


def verb(
    name: str, *flags: str, cwd: Path = ROOT, before: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m bua_jax.NAME FLAGS`; in a process that imports all anew only with `before`.

    before: its packages hide those of that name.
    """
    if before is None:
        return forks.run(f"bua_jax.{name}", flags, cwd)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (before, ROOT)))}
    return subprocess.run(
        [sys.executable, "-m", f"bua_jax.{name}", *flags],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def curriculum(workdir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The quickstart's command at reduced size."""
    return verb(
        "curriculum", "--config=configs/quickstart.py", f"--workdir={workdir}", *REDUCED, *flags
    )


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Returns when the checkpoint of `step` is in `folder`; fails if the process ends before."""
    for _ in range(1200):
        if (folder / "checkpoints" / str(step)).exists():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f"no checkpoint of step {step}")


if __name__ == "__main__":
    finished = curriculum(Path(sys.argv[1]))
    sys.stderr.write(finished.stderr)
    sys.exit(finished.returncode)
