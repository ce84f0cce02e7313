"""Float32 products of few rows on a CPU: a kernel of our own, since XLA's copies the weight every time.

Decoding multiplies a few rows by large weights. `panels.cc` reads a weight once, in the order in which
it lies in memory; it is compiled on first use, which takes a C++ compiler and a few seconds, and kept.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib

from bua_jax.console import notice

_SOURCE = Path(__file__).with_suffix(".cc")
_WIDTH = 32  # columns of a panel; the kernel has it too


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["panels"], meta_fields=["columns"]
)
@dataclass(frozen=True)
class Panels:
    """A matrix float32[K, columns] as panels float32[ceil(columns / 32), K, 32]; `x @ it` is its product."""

    panels: jax.Array
    columns: int

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        """x float32[..., K] -> float32[..., columns]."""
        rows = x.reshape(-1, x.shape[-1])
        result = jax.ShapeDtypeStruct((len(rows), self.columns), jnp.float32)
        y = jax.ffi.ffi_call(_target(), result)(rows, self.panels)
        return y.reshape(*x.shape[:-1], self.columns)


@jax.jit
def in_panels(matrix: jax.Array) -> Panels:
    """matrix float32[K, N]."""
    depth, columns = matrix.shape
    count = -(-columns // _WIDTH)
    padded = jnp.pad(matrix, ((0, 0), (0, count * _WIDTH - columns)))
    return Panels(padded.reshape(depth, count, _WIDTH).transpose(1, 0, 2), columns)


def available() -> bool:
    """Whether products of panels can be computed here: JAX on a CPU, and a C++ compiler."""
    return jax.default_backend() == "cpu" and _library() is not None


@functools.cache
def _target() -> str:
    """Name of the kernel in XLA: with its version, since compiled programs are kept."""
    library = _library()
    assert library is not None, "without `available` there are no panels"
    name = f"bua_jax.{library.stem}"
    function = ctypes.cdll.LoadLibrary(str(library)).multiply
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return name


@functools.cache
def _library() -> Path | None:
    """The compiled kernel; None, after a notice, where there is no compiler or it fails."""
    folder = Path.home() / ".cache" / "bua_jax"
    version = hashlib.sha256(
        b"\0".join([_SOURCE.read_bytes(), jaxlib.__version__.encode(), _processor().encode()])
    )
    library = folder / f"panels-{version.hexdigest()[:16]}.so"
    if library.exists():
        return library
    slower = "decoding on this CPU will take up to twice as long"
    named = os.environ.get("CXX")
    compiler = next(filter(None, map(shutil.which, [named] if named else ["c++", "g++", "clang++"])), None)
    if compiler is None:
        notice(f"no C++ compiler ({named or 'c++, g++, clang++'}): {slower}")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / library.name
        flags = ["-O3", "-march=native", "-std=c++17", "-w", "-shared", "-fPIC", "-pthread"]
        include = f"-I{jax.ffi.include_dir()}"
        command = [compiler, *flags, include, str(_SOURCE), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            notice(f"{compiler} failed on {_SOURCE.name} ({done.stderr.strip()[-300:]}): {slower}")
            return None
        built.replace(library)
    return library


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines: Any = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform()
    return platform.machine() + next((line for line in lines if line.startswith("flags")), "")
