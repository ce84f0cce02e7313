"""Mesh (data, fsdp, tensor) and which axis of which array goes where, in one table."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bua_jax.basics.errors import ConfigError
from bua_jax.parallel.rows import ROW_AXES
from bua_jax.parallel.shape import parse_mesh

AXES = ("data", "fsdp", "tensor")
# (path, spec): the first match wins. Kernels are [layers, in, out]; column-parallel projections
# split their outputs over tensor, row-parallel ones their inputs. What is small is replicated.
RULES: tuple[tuple[str, P], ...] = (
    (r"base/embed_tokens/embedding", P("tensor", "fsdp")),
    (r"base/lm_head/kernel", P("fsdp", "tensor")),
    (r"base/layers/\w+/(q|k|v|gate|up)_proj/kernel(/qvalue|/scale)?", P(None, "fsdp", "tensor")),
    (r"base/layers/\w+/(q|k|v)_proj/bias", P(None, "tensor")),
    (r"base/layers/\w+/(o|down)_proj/kernel(/qvalue|/scale)?", P(None, "tensor", "fsdp")),
    (r"base/(layers/\w+|norm)/scale", P()),
    (r"base/labels", P()),  # vectors of labels, of methods that read them alone
    (r"adapter/layers/\w+/(q|k|v|gate|up)_proj/a", P(None, "fsdp", None)),
    (r"adapter/layers/\w+/(q|k|v|gate|up)_proj/b", P(None, None, "tensor")),
    (r"adapter/layers/\w+/(o|down)_proj/a", P(None, "tensor", None)),
    (r"adapter/layers/\w+/(o|down)_proj/b", P(None, None, "fsdp")),
    (r"adapter/rows|projector/.*", P()),
    (r"(encoder|heads|policy)/.*", P()),
    (r"weighting(/.*)?", P()),  # a balancer's state, K or K x K numbers
    (r"weights|validation|key", P()),  # of a train state
)


def make_mesh(text: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that the config names, over `devices`, by default those of all processes.

    Raises `ConfigError` if there are fewer devices, or more of several processes, all of which must
    take part.
    """
    shape = parse_mesh(text)
    processes = jax.process_count() if devices is None else 1
    devices = jax.devices() if devices is None else devices
    count = int(np.prod(shape))
    if count > len(devices):
        raise ConfigError(f"mesh={text!r} needs {count} devices, but there are {len(devices)}.")
    if count < len(devices) and processes > 1:
        raise ConfigError(
            f"mesh={text!r} is of {count} devices, but the {processes} processes have {len(devices)} "
            f"and must all take part: for example --config.execution.mesh={len(devices)}."
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count])


def own_mesh(text: str) -> Mesh:
    """The mesh for what one process does alone: the config's, or its own devices if it is one of several."""
    if jax.process_count() == 1:
        return make_mesh(text)
    return make_mesh(str(jax.local_device_count()), jax.local_devices())


def several_processes(mesh: Mesh) -> bool:
    """Whether the mesh is of devices of several processes, which then do all on it together."""
    return len({device.process_index for device in mesh.devices.flat}) > 1


def spec_of(path: str) -> P:
    """PartitionSpec of an array by its path, which ends in `part/.../leaf`.

    Moments of the optimizer carry the path of their parameter at the end of theirs. Raises
    `ConfigError` for a path without a rule, rather than replicating what may be large.
    """
    for pattern, spec in RULES:
        if re.search(rf"(^|/){pattern}$", path):
            return spec
    raise ConfigError(f"No rule in bua_jax/parallel/sharding.py says how to shard {path}.")


def _name(key: Any) -> str:
    """Of a step in a tree: a dict's key, a named tuple's field, or an index."""
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))


def _fitting(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The spec without axes that do not divide the array."""
    axes = [
        axis if axis is not None and shape[i] % mesh.shape[axis] == 0 else None
        for i, axis in enumerate(spec)
    ]
    return P(*axes)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings of variables or of a train state, in a tree of the same shape."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec = spec_of("/".join(map(_name, path))) if np.ndim(leaf) else P()
        return NamedSharding(mesh, _fitting(spec, np.shape(leaf), mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def place(tree: Any, places: Any) -> Any:
    """Puts arrays where a tree of shardings, or one for all, says: each process puts down its own part.

    Every process holds the same values, on its host or devices, or they lie on the mesh already.
    """

    def one(value: Any, where: NamedSharding) -> jax.Array:
        spread = isinstance(value, jax.Array) and not value.is_fully_addressable
        if spread or where.is_fully_addressable:
            return jax.device_put(value, where)
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, where, lambda index: host[index])

    if isinstance(places, NamedSharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(one, tree, places)


def to_host(tree: Any) -> Any:
    """Numpy arrays of a tree; parts that other processes hold are gathered, so all have to ask."""

    def one(value: Any) -> np.ndarray:
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            return multihost_utils.process_allgather(value, tiled=True)
        return np.asarray(value)

    return jax.tree.map(one, tree)


def rows_on(mesh: Mesh, rows: int, microbatches: int) -> int:
    """How many rows a batch of `rows` has on the mesh: as many in each microbatch on each device."""
    multiple = microbatches * math.prod(mesh.shape[axis] for axis in ROW_AXES)
    return -(-rows // multiple) * multiple


def shard_batch(
    batch: Mapping[str, Any], mesh: Mesh, microbatches: int = 1
) -> dict[str, jax.Array]:
    """Puts rows on devices, over (data, fsdp).

    Empty rows, which add nothing to a loss, are appended until the rows divide by microbatches and
    devices. Every process makes the whole batch, which is cheap and keeps its rows and their order
    independent of the number of processes, and sends its own devices their rows.
    """
    sharding = NamedSharding(mesh, P(ROW_AXES))

    def put(value: Any) -> jax.Array:
        missing = rows_on(mesh, len(value), microbatches) - len(value)
        widths = [(0, missing)] + [(0, 0)] * (np.ndim(value) - 1)
        return place(np.pad(value, widths) if missing else value, sharding)

    return {key: put(value) for key, value in batch.items()}
