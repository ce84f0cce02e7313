"""The quickstart at reduced size: built once per test session, read by several tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.helpers import ROOT

REDUCED = (
    "--config.data.num_users=30",
    "--config.data.num_days=21",
    "--config.windows.train=120",
    "--config.windows.validation=16",
    "--config.windows.fit_train=1000",
    "--config.windows.fit_validation=200",
    "--config.windows.match=16",
    "--config.windows.test=40",
    "--config.windows.generation_test=3",
    "--config.encoder.epochs=1",
    "--config.dialogues.reflect_train=16",
    "--config.dialogues.reflect_validation=4",
    "--config.stage1.max_steps=2",
    "--config.stage2.max_steps=2",
    "--config.stage3.max_steps=2",
    "--config.joint.max_steps=2",
    "--config.decoding.max_new_tokens=16",
    "--config.execution.decode_batch=16",
    "--config.methods.lightgbm.rounds=5",
    "--config.evaluation.bootstrap=200",
)


def verb(
    name: str, *flags: str, cwd: Path = ROOT, before: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m bua_jax.NAME FLAGS` as a user would; packages in `before` hide those of that name."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (before, ROOT)))),
    }
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
