"""N steps = k steps, a kill, and N - k steps, bit for bit; SIGTERM saves first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.support.helpers import ROOT
from tests.support.runs import wait_for_step

STEPS = 8


def start(folder: Path, cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs.train_alone", str(folder), str(cache), str(pause)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def final_state(folder: Path) -> dict:
    manager = ocp.CheckpointManager(folder / "checkpoints")
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    return manager.restore(STEPS, args=args).state


@pytest.mark.long
def test_kill_and_resume_bit_for_bit(tmp_path) -> None:
    cache, whole, cut = (tmp_path / name for name in ("cache", "whole", "cut"))
    process = start(whole, cache, 0)
    assert process.wait(300) == 0, process.communicate()[1]

    process = start(cut, cache, 0.5)  # SIGTERM after step 2: saves where it stands, exits with 2
    wait_for_step(process, cut, 2)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "SIGTERM: saved step" in message
    assert "Traceback" not in message
    saved = max(int(p.name) for p in (cut / "checkpoints").iterdir())
    assert f"saved step {saved} of {STEPS}" in message

    process = start(cut, cache, 0.5)  # SIGKILL after a later checkpoint
    later = saved + 2 - saved % 2
    wait_for_step(process, cut, later)
    process.kill()
    assert f"at step {saved} of {STEPS}" in process.communicate(timeout=300)[1]
    assert not (cut / "checkpoints" / str(STEPS)).exists()

    process = start(cut, cache, 0)
    message = process.communicate(timeout=300)[1]
    assert process.returncode == 0, message
    assert "resuming training at step" in message

    one, other = final_state(whole), final_state(cut)
    flat = [ocp.utils.to_flat_dict(tree, sep="/") for tree in (one, other)]
    assert flat[0].keys() == flat[1].keys()
    for name, value in flat[0].items():
        np.testing.assert_array_equal(value, flat[1][name], err_msg=name)
    positions = [
        (f / "checkpoints" / str(STEPS) / "data" / "metadata").read_text() for f in (whole, cut)
    ]
    assert positions[0] == positions[1]
