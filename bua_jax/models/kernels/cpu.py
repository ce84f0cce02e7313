"""Kernels for a CPU, in float32: decoding's products of few rows and attention, and training's attention.

XLA's product of few rows copies its weight every time; its attention to a cache reads it to its end, however
little is filled; training's writes scores to memory and reads them again, also those of other segments.
`cpu.cc` does none of it; it is compiled on first use, which takes a C++ compiler.
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
from jax.ad_checkpoint import checkpoint_name

from bua_jax.basics import files
from bua_jax.basics.console import notice, waiting
from bua_jax.basics.errors import WriteError

_SOURCE = Path(__file__).with_suffix(".cc")
_HEADER = _SOURCE.with_name("tiles.h")
WEIGHT_TYPES = ("float32", "bfloat16", "int8")
"""Of the matrices that decoding reads."""
_WIDTH = 32  # columns of a panel; tiles.h has it too
_GROUP = 32  # inputs of a column whose integers share a scale; tiles.h has it too
ATTENTION_BLOCK = 48  # queries that training scores at once; tiles.h has it too


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["panels", "scales"], meta_fields=["columns"]
)
@dataclass(frozen=True)
class Panels:
    """A matrix [K, columns] as panels [ceil(columns / 32), K, 32]; `x @ it` is its product, in float32.

    panels: of one of `WEIGHT_TYPES`; in int8 K is padded to groups of 32 inputs, which have scales
    float32[ceil(columns / 32), ceil(K / 32), 32].
    """

    panels: jax.Array
    columns: int
    scales: jax.Array | None = None

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        """x float32[..., K] -> float32[..., columns]."""
        rows = x.reshape(-1, x.shape[-1])
        result = jax.ShapeDtypeStruct((len(rows), self.columns), jnp.float32)
        kind = self.panels.dtype.name
        name = "multiply" if kind == "float32" else f"multiply_{kind}"
        weights = (self.panels,) if self.scales is None else (self.panels, self.scales)
        y = jax.ffi.ffi_call(_target(name), result)(rows, *weights)
        return y.reshape(*x.shape[:-1], self.columns)


@functools.partial(jax.jit, static_argnames="dtype")
def in_panels(matrix: jax.Array, dtype: str = "float32") -> Panels:
    """matrix float32[K, N], rounded to one of `WEIGHT_TYPES`."""
    columns = matrix.shape[1]
    if dtype != "int8":
        return Panels(_columns_in_panels(matrix.astype(dtype)), columns)
    integers, scales = _integers(matrix)
    return Panels(_columns_in_panels(integers), columns, _columns_in_panels(scales))


def _columns_in_panels(matrix: jax.Array) -> jax.Array:
    """matrix [K, N] -> [ceil(N / 32), K, 32]."""
    depth, columns = matrix.shape
    count = -(-columns // _WIDTH)
    padded = jnp.pad(matrix, ((0, 0), (0, count * _WIDTH - columns)))
    return padded.reshape(depth, count, _WIDTH).transpose(1, 0, 2)


def _integers(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """matrix [K, N] as int8[ceil(K / 32) * 32, N] and scales float32[ceil(K / 32), N], rounded as by qwix."""
    padded = jnp.pad(matrix, ((0, -len(matrix) % _GROUP), (0, 0)))
    groups = padded.reshape(-1, _GROUP, matrix.shape[1])
    scales = jnp.abs(groups).max(axis=1) / 127.5
    integers = jnp.round(groups / jnp.where(scales > 0, scales, 1)[:, None])
    return integers.clip(-128, 127).astype(jnp.int8).reshape(padded.shape), scales


def rounded(matrix: jax.Array, dtype: str) -> jax.Array:
    """matrix float32[K, N] with the numbers that its `Panels` of that type have."""
    if dtype != "int8":
        return matrix.astype(dtype).astype(matrix.dtype)
    integers, scales = _integers(matrix)
    groups = integers.reshape(*scales.shape[:1], _GROUP, -1) * scales[:, None]
    return groups.reshape(integers.shape)[: len(matrix)]


def attends_in_place(k: jax.Array) -> bool:
    """Whether `attend_in_place` takes a cache with keys k [B, K, D, S]."""
    return k.dtype == jnp.float32 and k.shape[2] % _WIDTH == 0 and k.shape[3] % _WIDTH == 0


def attend_in_place(  # noqa: PLR0913 (what the kernel takes)
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    past: tuple[jax.Array, jax.Array],
    lengths: jax.Array,
    counts: jax.Array,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Appends counts int32[B] of k, v [B, T, K, D] to each row of the past, and attends to all that it holds.

    q [B, T, N, D], which like k is rotated first by angles given as their cosines and sines [B, T, D / 2];
    past: keys [B, K, D, S] and values [B, K, S, D] with lengths int32[B] valid slots, all float32; what does
    not fit is dropped. Among the new tokens attention is causal, or as mask bool[T, T] says. Returns
    y [B, T, N, D], 0 beyond counts, and the past.
    """
    if mask is None:
        mask = jnp.zeros((0, 0), bool)
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, *past)]
    call = jax.ffi.ffi_call(_target("attend"), results, input_output_aliases={5: 1, 6: 2})
    y, keys, values = call(q, k, v, *angles, *past, lengths, counts, mask)
    return y, (keys, values)


def attends_within(dtype: str, head_dim: int) -> bool:
    """Whether `attend_within` takes heads like these."""
    return dtype == "float32" and head_dim % _WIDTH == 0


@jax.custom_vjp
def attend_within(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """Causal attention within segments int32[B, T]: q [B, T, N, D], k and v [B, T, K, D] -> [B, T, N, D].

    float32, D a multiple of 32. Segment 0 is padding; its output is 0.
    """
    return _attend_within(q, k, v, segments)[0]


def _attend_within(q, k, v, segments):
    """`attend_within` and what its gradient needs."""
    length = q.shape[1]
    *padded, segments = (_whole_panels(x) for x in (q, k, v, segments))
    q, k, v = padded
    results = [
        jax.ShapeDtypeStruct(q.shape, q.dtype),
        jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), q.dtype),
    ]
    call = jax.ffi.ffi_call(_target("attend_within"), results)
    # Remat "dots" keeps what has this name.
    kept = [checkpoint_name(x, "attention") for x in call(q, _panels(k), v, segments)]
    return kept[0][:, :length], (q, k, v, segments, *kept)


def _attend_within_gradient(residuals, gradient):
    """The gradients of q, k and v, from that of y [B, T, N, D]."""
    q, k, v, segments, y, log_sums = residuals
    length = gradient.shape[1]
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    call = jax.ffi.ffi_call(_target("attend_within_gradient"), results)
    gradient = _whole_panels(gradient)
    found = call(q, k, v, _panels(k), _panels(v), segments, y, log_sums, gradient)
    return *(x[:, :length] for x in found), None


attend_within.defvjp(_attend_within, _attend_within_gradient)


def _whole_panels(x: jax.Array) -> jax.Array:
    """x [B, T, ...] with T padded to a multiple of 32."""
    missing = -x.shape[1] % _WIDTH
    return jnp.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2))) if missing else x


def _panels(x: jax.Array) -> jax.Array:
    """x [B, T, K, D] -> [B, K, T / 32, D, 32]."""
    b, t, heads, depth = x.shape
    return x.reshape(b, t // _WIDTH, _WIDTH, heads, depth).transpose(0, 3, 1, 4, 2)


def available() -> bool:
    """Whether the kernels can be had here: JAX on a CPU, and a C++ compiler."""
    return jax.default_backend() == "cpu" and _library() is not None


@functools.cache
def _target(function: str) -> str:
    """Name of a kernel in XLA: with its version, since compiled programs are kept."""
    library = _library()
    assert library is not None, "`available` was not asked"
    name = f"bua_jax.{library.stem}.{function}"
    pointer = getattr(ctypes.cdll.LoadLibrary(str(library)), function)
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(pointer), platform="cpu")
    return name


@functools.cache
def _library() -> Path | None:
    """The compiled kernels; None, after a notice, where they cannot be compiled or loaded."""
    folder = Path.home() / ".cache" / "bua_jax"
    version = hashlib.sha256(
        b"\0".join(
            [
                *(path.read_bytes() for path in (_SOURCE, _HEADER)),
                jaxlib.__version__.encode(),
                _processor().encode(),
            ]
        )
    )
    library = folder / f"cpu-{version.hexdigest()[:16]}.so"
    slower = "training and decoding on this CPU will take up to twice as long"
    if not files.is_whole(library) and not _made(library, slower):
        return None
    try:
        ctypes.cdll.LoadLibrary(str(library))
    except OSError as error:  # such as of storage from which nothing may be executed
        notice(f"{library.name} was not loaded ({error}): {slower}")
        return None
    return library


def _made(library: Path, slower: str) -> bool:
    """Whether the library could be made; if not, a notice says why and what is `slower` for it."""
    if library.exists():
        notice(f"{library} was cut or altered (or is of an older version): compiled anew")
    named = os.environ.get("CXX")
    names = [named] if named else ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        notice(f"no C++ compiler ({', '.join(names)}): {slower}")
        return False
    if problem := _compile(compiler, library):
        notice(f"{_SOURCE.name} was not compiled ({problem}): {slower}")
        return False
    return True


def _compile(compiler: str, library: Path) -> str:
    """Makes the library; returns what went wrong, if anything did."""
    flags = ["-O3", "-march=native", "-std=c++17", "-w", "-shared", "-fPIC", "-pthread"]
    include = f"-I{jax.ffi.include_dir()}"
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            built = Path(scratch) / library.name
            command = [compiler, *flags, include, str(_SOURCE), "-o", str(built)]
            with waiting(f"compiling {_SOURCE.name}"):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{compiler}: {done.stderr.strip()[-300:]}"
            built.replace(library)
        files.write_hash(library)
    except (OSError, WriteError) as error:
        return str(error)
    return ""


_FEATURES = ("flags", "Features")  # lines of /proc/cpuinfo: x86's and ARM's


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines: Any = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform()
    return platform.machine() + next((line for line in lines if line.startswith(_FEATURES)), "")
