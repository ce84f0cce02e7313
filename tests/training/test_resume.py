"""N steps = k steps, a kill, and N - k steps, bit for bit; SIGTERM saves first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from tests.support.helpers import ROOT

STEPS = 8
SCRIPT = """
import sys, time
from pathlib import Path
import jax
from bua_jax.basics.console import run_verb
from bua_jax.parallel import sharding
from bua_jax.training import loop
from bua_jax.training.optimizer import OptimizerSettings
from tests.training import tiny

jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
put, pause = sharding.shard_batch, float(sys.argv[3])

def slowly(*args):
    time.sleep(pause)  # so that a signal finds the run in its middle
    return put(*args)

def main():
    model, variables = tiny.model()
    records, mesh = tiny.records(60), sharding.make_mesh("1")
    settings = loop.TrainSettings(
        total_steps=8, evaluate_every=4, checkpoint_every=2, log_every=3, task_weights=True,
        optimizer=OptimizerSettings(peak_lr=1e-2))
    sharding.shard_batch = slowly
    with jax.set_mesh(mesh):
        loop.train(model, variables, ("projector", "adapter"), records, tiny.records(8, 1),
                   tiny.plan(records), settings, Path(sys.argv[1]), {"stage": "stage2"}, mesh)

run_verb(main)
"""


def start(folder: Path, cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(cache), str(pause)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles in half the time
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    for _ in range(1200):
        if (folder / "checkpoints" / str(step)).exists():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f"no checkpoint of step {step}")


def final_state(folder: Path) -> dict:
    manager = ocp.CheckpointManager(folder / "checkpoints")
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    return manager.restore(STEPS, args=args).state


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
