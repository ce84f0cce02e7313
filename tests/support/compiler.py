"""XLA's flags for programs that are compiled for one or two steps. Imports nothing of jax."""

import os
import subprocess
import sys

_QUICK = (  # not optimised, and without the MLIR emitters, which take two thirds of the time to compile
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",  # not in every version of jaxlib
)


def quick_flags() -> str:
    """Those that this jaxlib knows: one that it does not ends the process, so another one asks."""
    for flags in (" ".join(_QUICK), " ".join(_QUICK[:2])):
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return flags
    return ""
