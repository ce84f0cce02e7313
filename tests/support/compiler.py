"""XLA's flags for programs that are compiled for one or two steps. Imports nothing of jax."""

import importlib.util
import mmap
from pathlib import Path

_QUICK = (  # not optimised, and without the MLIR emitters, which take two thirds of the time to compile
    "xla_backend_optimization_level=0",
    "xla_llvm_disable_expensive_passes=true",
    "xla_cpu_use_fusion_emitters=false",
)


def quick_flags() -> str:
    """Those that this jaxlib knows: one that it does not would end the process."""
    found = importlib.util.find_spec("jaxlib")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    libraries = [path for path in folder.glob("*.so") if path.stat().st_size > 1e7]

    def is_known(flag: str) -> bool:
        name = flag.partition("=")[0].encode()
        for path in libraries:
            with path.open("rb") as file:
                if mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).find(name) >= 0:
                    return True
        return False

    return " ".join(f"--{flag}" for flag in _QUICK if is_known(flag))
