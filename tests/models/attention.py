"""What the tests of training's attention kernels share."""

import functools
import json

import jax
import jax.numpy as jnp

from tests.support.helpers import on_eight_devices


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(attention, q, k, v, segments) -> dict[str, jax.Array]:
    """What `attention` gives for tokens that are no padding, and the gradients of a sum of it."""

    def loss(qkv):
        y = attention(*qkv, segments) * (segments > 0)[:, :, None, None]  # NaN * 0 is NaN
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v))
    return {"y": y, **dict(zip("qkv", gradients, strict=True))}


_SCRIPT = """
import importlib, json, sys
import jax
from bua_jax.parallel import sharding
from tests.models.attention import value_and_gradients
from tests.training import tiny

module = importlib.import_module(sys.argv[1])
attention, arrays = getattr(module, sys.argv[2]), module.inputs(4)
alone = jax.device_get(value_and_gradients(attention, *arrays))
for text in ("2x2x2", "1x2x4"):
    mesh = sharding.make_mesh(text)
    with jax.set_mesh(mesh):
        batch = sharding.shard_batch(dict(zip("qkvs", arrays)), mesh)
        found = value_and_gradients(attention, *batch.values())
    print(json.dumps({
        "error": {name: tiny.relative(found[name], alone[name]) for name in alone},
        "shard": found["y"].addressable_shards[0].data.shape}))
"""


def check_meshes(module: str, attention: str, length: int, width: int, tolerance: float) -> None:
    """`attention` of a test module on its `inputs(4)`, 4 heads in 2 groups: meshes give one device's values.

    Rows and heads lie over the mesh; four devices of `tensor` do not divide two groups: heads stay whole.
    """
    both, rows = map(json.loads, on_eight_devices(_SCRIPT, module, attention).splitlines())
    assert both["shard"] == [1, length, 2, width]
    assert rows["shard"] == [2, length, 4, width]
    for found in (both, rows):
        assert max(found["error"].values()) <= tolerance
