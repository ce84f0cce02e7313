"""The environment that every run directory records."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from bua_jax.basics.config import folder
from bua_jax.basics.files import sha256_file, sha256_json
from bua_jax.basics.version import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "polars",
    "tokenizers",
    "safetensors",
    "lightgbm",
    "sacrebleu",
    "scikit-learn",
    "torch",
    "transformers",
    "peft",
)

VARIABLES = (
    "XLA_FLAGS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_THREEFRY_PARTITIONABLE",
)
"""Variables by which jax computes other numbers."""


def git_revision() -> str | None:
    """Commit of the checkout that the package runs from (`+` if modified or added to); None outside one."""
    root = Path(__file__).resolve().parents[2]
    revision = _git(root, "describe", "--always", "--dirty=+", "--abbrev=12")
    if revision and not revision.endswith("+"):
        added = _git(root, "ls-files", "--others", "--exclude-standard", "--", "bua_jax")
        revision += "+" if added else ""
    return revision or None


def _git(folder: Path, *words: str) -> str | None:
    """What git prints about a folder's repository; None where there is none, or it refuses."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def is_committed(path: Path) -> bool:
    """Whether a file is, as it is now, in the last commit of the repository that it lies in."""
    folder, name = path.resolve().parent, path.resolve().name
    known = _git(folder, "ls-files", "--error-unmatch", "--", name)
    return known is not None and _git(folder, "diff", "--quiet", "HEAD", "--", name) is not None


@functools.cache
def code_hash() -> str:
    """Hash of the package's own source, which a commit of a changed checkout does not tell."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(p for kind in ("*.py", "*.cc", "*.h") for p in package.rglob(kind))
    named = [(path.relative_to(package).as_posix(), sha256_file(path)) for path in sources]
    return sha256_json(named)


def command() -> str:
    """The command line of this process, to be given again in the same folder; of a verb as `python -m`."""
    first, *rest = sys.argv
    shipped, package = f"--config={folder()}{os.sep}", Path(__file__).resolve().parents[1]
    words = [
        f"--config=configs/{w.removeprefix(shipped)}" if w.startswith(shipped) else w for w in rest
    ]
    verb = Path(first).resolve().parent == package
    begin = ["python", "-m", f"{package.name}.{Path(first).stem}"] if verb else [first]
    return shlex.join([*begin, *words])


def hardware() -> dict[str, Any]:
    """What the last bits of numbers depend on beside the program: the kind of device, and a CPU's cores."""
    import jax

    device = jax.devices()[0]
    # As XLA counts them, which shares sums out over them.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device.device_kind, "cores": cores if device.platform == "cpu" else None}


def versions() -> dict[str, str | None]:
    """Package versions, Python, platform, git revision, a hash of the source, those of `VARIABLES` that are
    set; jax's devices if it is used."""
    jax = sys.modules.get("jax")
    devices = ", ".join(str(device) for device in jax.devices()) if jax else None
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
    return {**_versions(), "devices": devices, "variables": " ".join(variables) or None}


@functools.cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"bua_jax": __version__, "git": git_revision()}
    found["code"] = code_hash()
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def peak_gib() -> float:
    """Largest resident memory of this process; a kernel's `ru_maxrss` also counts its parent's."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # gVisor's status has no such line
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def forget_peak() -> None:
    """Lets the kernel count `peak_gib` anew (Linux; elsewhere it stays that of the whole process)."""
    with contextlib.suppress(OSError):  # no such file, or none that may be written
        Path("/proc/self/clear_refs").write_text("5")
