"""What tests share: what must be there in CI (data sets, dependencies), a random base, eight fake devices."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.interop import huggingface
from bua_jax.models.kernels import cpu
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

ROOT = Path(__file__).resolve().parents[2]


def require(module: str) -> ModuleType:
    """Imports `module`; a test without it skips on a laptop and fails with CI=true."""
    try:
        return importlib.import_module(module)
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail(f"{module} is not installed; CI needs the extras test and parity")
        pytest.skip(f"{module} is not installed (pip install -e '.[test,parity]')")


def random_base(folder: Path, config: Qwen2Config) -> dict[str, Any]:
    """Writes a Hugging Face directory in which every weight is random, biases and norms too."""
    init = jax.jit(Qwen2(config).init)
    params = init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), params)
    huggingface.save(folder, config, params)
    return params


def require_kernels() -> None:
    """Without a C++ compiler for a CPU's kernels a test skips on a laptop and fails with CI=true."""
    if not cpu.available():
        if os.environ.get("CI"):
            pytest.fail("the kernels were not compiled; CI needs a C++ compiler")
        pytest.skip("no C++ compiler")


def shared_data(name: str) -> Path:
    """Path of a real data set beside the checkout; if missing, skips (fails with CI=true)."""
    path = ROOT.parent / "shared" / "data" / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing; CI checks out the data beside the project")
        pytest.skip(f"{path} is missing")
    return path


def on_eight_devices(program: str, *arguments: str, timeout: float = 500) -> str:
    """What a module of tests/programs prints in a process with eight fake CPU devices; it must succeed."""
    flags = f"--xla_force_host_platform_device_count=8 {os.environ['XLA_FLAGS']}"
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.programs.{program}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
