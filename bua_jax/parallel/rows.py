"""How the rows of a batch lie on the mesh of `jax.set_mesh`: over (data, fsdp)."""

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

ROW_AXES = ("data", "fsdp")


def row_shards() -> int:
    """How many devices share the rows of a batch; 1 without a mesh."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(axis, 1) for axis in ROW_AXES)


def row_and_head_axes(rows: int, heads: int) -> tuple[tuple[str, ...] | None, str | None]:
    """The axes of the mesh over which `rows` and `heads` lie; None for what they do not divide."""
    tensor = jax.sharding.get_abstract_mesh().shape["tensor"]
    return (
        None if rows % row_shards() else ROW_AXES,
        None if heads % tensor else "tensor",
    )


def attend_by_shards(
    attend: Callable[..., jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    """attend(q [B,T,N,D], k and v [B,T,K,D], segments int32[B,T]) on every device for its rows and heads.

    For attention by kernels: the partitioner cannot look into them, and would gather all rows everywhere.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return attend(q, k, v, segments)
    rows, heads = row_and_head_axes(q.shape[0], k.shape[2])
    of_all = PartitionSpec(rows, None, heads)
    shards = (of_all, of_all, of_all, PartitionSpec(rows))
    return jax.shard_map(attend, in_specs=shards, out_specs=of_all, check_vma=False)(
        q, k, v, segments
    )


def by_rows(x: jax.Array) -> jax.Array:
    """x [B, ...], its rows kept over `ROW_AXES` if a mesh is set and divides them.

    Without it the partitioner spreads activations over the features instead, as the kernels are,
    and sums products of all rows over all devices rather than gather a kernel.
    """
    if x.shape[0] % row_shards() or jax.sharding.get_abstract_mesh().empty:
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROW_AXES, *free))
