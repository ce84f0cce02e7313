"""What the tests of training's attention kernels share."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.models.kernels.splash import splash_attention
from bua_jax.models.qwen2 import attend
from tests.support.helpers import on_eight_devices

SPLASH_LENGTH = 384  # three blocks


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(attention, q, k, v, segments) -> dict[str, jax.Array]:
    """What `attention` gives for tokens that are no padding, and the gradients of a sum of it."""

    def loss(qkv):
        y = attention(*qkv, segments) * (segments > 0)[:, :, None, None]  # NaN * 0 is NaN
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v))
    return {"y": y, **dict(zip("qkv", gradients, strict=True))}


def splash_inputs(rows: int) -> tuple[jax.Array, ...]:
    """q, k, v of 4 heads in 2 groups, and segments, whose borders are no blocks'; the last row is padding."""
    rng = np.random.default_rng(0)
    shapes = (rows, SPLASH_LENGTH, 4, 8), (rows, SPLASH_LENGTH, 2, 8), (rows, SPLASH_LENGTH, 2, 8)
    segments = np.ones((rows, SPLASH_LENGTH), np.int32)
    segments[:, 150:] = 2
    segments[0, 200:] = 3
    segments[0, 350:] = 0
    segments[-1] = 0
    return *(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes), jnp.asarray(segments)


def interpreted(q, k, v, segments):
    return splash_attention(q, k, v, segments, interpret=True)


def cpu_inputs(
    rows: int, length: int = 70, group: int = 2, width: int = 32
) -> tuple[np.ndarray, ...]:
    """q, k, v of two key heads, and segments: packed with padding, interleaved, one, all padding."""
    rng = np.random.default_rng(0)
    heads = 2 * group, 2, 2
    place = np.arange(length)
    packed = np.where(place < length - 5, place // 37 + 1, 0)
    kinds = [packed, rng.integers(0, 3, length), 0 * place + 1, 0 * place]
    segments = np.stack([kinds[row % len(kinds)] for row in range(rows)]).astype(np.int32)
    arrays = [rng.normal(size=(rows, length, n, width)) for n in heads]
    return *(x.astype(np.float32) for x in arrays), segments


ATTENTIONS = {
    "splash": (interpreted, splash_inputs),
    "cpu": (functools.partial(attend, implementation="cpu"), cpu_inputs),
}


def check_meshes(attention: str, length: int, width: int, tolerance: float) -> None:
    """One of `ATTENTIONS` on four rows of its inputs, 4 heads in 2 groups: meshes give one device's values.

    Rows and heads lie over the mesh; four devices of `tensor` do not divide two groups: heads stay whole.
    """
    both, rows = map(json.loads, on_eight_devices("attend_on_meshes", attention).splitlines())
    assert both["shard"] == [1, length, 2, width]
    assert rows["shard"] == [2, length, 4, width]
    for found in (both, rows):
        assert max(found["error"].values()) <= tolerance
