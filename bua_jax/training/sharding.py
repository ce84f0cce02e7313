"""Mesh (data, fsdp, tensor) and which axis of which array goes where, in one table."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bua_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
# (path, spec): the first match wins. Kernels are [layers, in, out]; column-parallel projections
# split their outputs over tensor, row-parallel ones their inputs.
RULES: tuple[tuple[str, P], ...] = (
    (r"base/embed_tokens/embedding", P("tensor", "fsdp")),
    (r"base/lm_head/kernel", P("fsdp", "tensor")),
    (r"base/layers/.*/(q|k|v|gate|up)_proj/kernel", P(None, "fsdp", "tensor")),
    (r"base/layers/.*/(q|k|v)_proj/bias", P(None, "tensor")),
    (r"base/layers/.*/(o|down)_proj/kernel", P(None, "tensor", "fsdp")),
    (r"adapter/layers/.*/(q|k|v|gate|up)_proj/a", P(None, "fsdp", None)),
    (r"adapter/layers/.*/(q|k|v|gate|up)_proj/b", P(None, None, "tensor")),
    (r"adapter/layers/.*/(o|down)_proj/a", P(None, "tensor", None)),
    (r"adapter/layers/.*/(o|down)_proj/b", P(None, None, "fsdp")),
    (r".*", P()),
)


def parse_mesh(text: str) -> tuple[int, int, int]:
    """`"8"` -> (1, 8, 1); `"2x2x2"` -> (2, 2, 2). Raises `ConfigError`."""
    parts = str(text).split("x")
    if not all(p.isdigit() and int(p) > 0 for p in parts) or len(parts) not in (1, 3):
        raise ConfigError(
            f"mesh={text!r} is neither N nor DATAxFSDPxTENSOR, for example 8 or 2x2x2."
        )
    sizes = [int(p) for p in parts]
    return (1, sizes[0], 1) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])


def make_mesh(text: str) -> Mesh:
    """The mesh that the config names. Raises `ConfigError` if there are fewer devices."""
    shape = parse_mesh(text)
    count, devices = int(np.prod(shape)), jax.devices()
    if count > len(devices):
        raise ConfigError(f"mesh={text!r} needs {count} devices, but there are {len(devices)}.")
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count])


def spec_of(path: str) -> P:
    """PartitionSpec of a parameter, by its path `group/.../leaf`."""
    return next(spec for pattern, spec in RULES if re.fullmatch(pattern, path))


def _fitting(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The spec without axes that do not divide the array."""
    axes = [
        axis if axis is not None and shape[i] % mesh.shape[axis] == 0 else None
        for i, axis in enumerate(spec)
    ]
    return P(*axes)


def shardings(variables: Mapping[str, Any], mesh: Mesh) -> Any:
    """NamedShardings of all variables, a tree of the same shape."""

    def one(path, leaf) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        return NamedSharding(mesh, _fitting(spec_of(name), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, variables)


def shard_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Rows over (data, fsdp), where they divide; else replicated."""
    rows = next(iter(batch.values())).shape[0]
    whole = rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
    sharding = NamedSharding(mesh, P(("data", "fsdp")) if whole else P())
    return {key: jax.device_put(value, sharding) for key, value in batch.items()}
