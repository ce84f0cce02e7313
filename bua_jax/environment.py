"""The environment that every run directory records, and how this process keeps its memory."""

import ctypes
import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path

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
    root = Path(__file__).resolve().parent.parent
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
    """Package versions, Python, platform, JAX devices and git revision."""
    import jax

    from bua_jax import __version__

    found: dict[str, str | None] = {"bua_jax": __version__, "git": git_revision()}
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    found["devices"] = ", ".join(str(device) for device in jax.devices())
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


def keep_freed_memory() -> None:
    """Has glibc keep what is freed for the next training step, but for all beyond 2 GiB at the heap's end.

    Else it hands large buffers back to the kernel after every step and faults them in again. Where
    GLIBC_TUNABLES says otherwise, or under another libc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # names and numbers of malloc.h
    for option, value in ((trim_threshold, 2**31 - 1), (mmap_max, 0), (arena_max, 1)):
        mallopt(option, value)
