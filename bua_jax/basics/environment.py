"""The environment that every run directory records."""

import importlib.metadata
import platform
import resource
import subprocess
import sys
from pathlib import Path

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


def git_revision() -> str | None:
    """Commit of the checkout that the package runs from (`+` if modified); None outside one."""
    root = Path(__file__).resolve().parents[2]
    try:
        revision = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return revision.stdout.strip() or None


def versions() -> dict[str, str | None]:
    """Package versions, Python, platform, git revision, and jax's devices where jax is used at all."""
    found: dict[str, str | None] = {"bua_jax": __version__, "git": git_revision()}
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    jax = sys.modules.get("jax")
    found["devices"] = ", ".join(str(device) for device in jax.devices()) if jax else None
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def peak_gib() -> float:
    """Largest resident memory of this process; a kernel's `ru_maxrss` also counts its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20
