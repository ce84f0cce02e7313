"""Quantised kernels against rounding by hand in float64, and gradients through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.alignment.base_files import NANO
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks.base import compare_base_types
from bua_jax.models import lora, quantization
from bua_jax.models.lora import LoraConfig
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel.sharding import make_mesh, shardings

CONFIG = Qwen2Config(61, 64, 128, 2, 4, 2, 16)
LORA = LoraConfig(rank=4)
# The 16 levels of NormalFloat-4 (Dettmers et al., 2023, appendix E).
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


@pytest.fixture(scope="module")
def base():
    params = Qwen2(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return jax.tree.map(lambda x: x * 3, params)


def kernel(base, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """(plain, quantised and back) of the stacked `down` kernels, float64[L, in, out]."""
    there = quantization.dequantize(quantization.quantize(base, mode), jnp.float32)
    pair = (tree["layers"]["mlp"]["down_proj"]["kernel"] for tree in (base, there))
    first, second = (np.asarray(x, np.float64) for x in pair)
    return first, second


def test_int8_rounds_to_the_nearest_step_of_each_output_channel(base):
    """A step is the channel's largest magnitude over 127.5: half a step of error, in float32."""
    plain, back = kernel(base, "int8")
    step = np.abs(plain).max(1, keepdims=True) / 127.5
    levels = back / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert (np.abs(back - plain) <= step / 2 * (1 + 1e-4)).all()


def test_nf4_takes_the_nearest_level_of_each_block(base):
    plain, back = kernel(base, "nf4")
    blocks = plain.reshape(2, -1, 64, plain.shape[2])
    scale = np.abs(blocks).max(2, keepdims=True)
    nearest = NF4[np.abs(blocks[..., None] / scale[..., None] - NF4).argmin(-1)] * scale
    # Values that lie between two levels to within float32 may go to either.
    difference = np.abs(nearest.reshape(plain.shape) - back)
    assert (difference < 1e-6).mean() > 0.999
    near = np.abs(nearest.reshape(plain.shape) - plain)
    np.testing.assert_allclose(np.abs(back - plain), near, atol=1e-6)


@pytest.mark.parametrize(("mode", "remat"), [("int8", "none"), ("nf4", "full")])
def test_logits_and_gradients_are_those_of_the_rounded_weights(base, mode, remat):
    """Norm of the difference over norm <= 1e-5 in float32; the rounding itself is far above it."""
    model = Qwen2(Qwen2Config(**{**vars(CONFIG), "remat": remat}), LORA)
    adapter = lora.init(jax.random.key(1), LORA, CONFIG)
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    tokens = jax.random.randint(jax.random.key(2), (2, 9), 0, 61)

    def loss(adapter, embeddings, params):
        positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
        segments = jnp.ones((2, 9), jnp.int32)
        variables = {"params": params, "lora": adapter}
        hidden = model.apply(variables, embeddings, positions, segments, method="hidden")
        return jnp.sum(jnp.sin(model.apply(variables, hidden, method="unembed")))

    found = {}
    stored = quantization.quantize(base, mode)
    embeddings = base["embed_tokens"]["embedding"][tokens]
    for name, params in {
        "stored": stored,
        "rounded": quantization.dequantize(stored, jnp.float32),
        "plain": base,
    }.items():
        value, grads = jax.value_and_grad(loss, argnums=(0, 1))(adapter, embeddings, params)
        found[name] = np.concatenate([value[None], *(x.ravel() for x in jax.tree.leaves(grads))])
    norm = np.linalg.norm(found["rounded"])
    assert np.linalg.norm(found["stored"] - found["rounded"]) <= 1e-5 * norm
    assert np.linalg.norm(found["plain"] - found["rounded"]) > 1e-3 * norm


def test_bytes(base):
    """A quarter of float32 and an eighth (two values a byte), with the scales beside them."""
    held = {
        mode: sum(
            leaf.on_device_size_in_bytes()
            for leaf in jax.tree.leaves(quantization.quantize(base, mode)["layers"]["mlp"])
        )
        for mode in quantization.MODES
    }
    values = held["none"] // 4
    assert held["int8"] < values * 1.1
    assert held["nf4"] < values / 2 * 1.2


def test_kernels_keep_their_sharding(base):
    mesh = make_mesh("1")
    placed = shardings({"base": quantization.quantize(base, "nf4")}, mesh)["base"]["layers"]
    stored = placed["mlp"]["down_proj"]["kernel"]
    assert stored.qvalue.spec == placed["self_attn"]["o_proj"]["kernel"].qvalue.spec
    assert tuple(stored.qvalue.spec) == (None, "tensor", "fsdp")


def test_what_can_not_be_quantised(base):
    with pytest.raises(ConfigError, match="'int3' is none of none, int8, nf4"):
        quantization.quantize(base, "int3")
    narrow = Qwen2(Qwen2Config(61, 32, 40, 1, 4, 2, 8)).init(
        jax.random.key(0), jnp.zeros((1, 2), jnp.int32)
    )["params"]
    with pytest.raises(ConfigError, match="multiple of 64 inputs, not"):
        quantization.quantize(narrow, "nf4")
    assert quantization.quantize(narrow, "int8")["norm"] is narrow["norm"]


@pytest.mark.long
def test_the_table_of_base_types():
    """nano in every type: memory falls, the error against float32 rises and is none for itself."""
    found = compare_base_types(NANO, rows=1, length=64, repeats=1)
    sizes = [found[kind]["weights_mib"] for kind in ("float32", "bfloat16", "int8", "nf4")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == sizes[0] / 2
    assert found["float32"]["kl"] == 0 == found["float32"]["max_error"]
    assert 0 < found["int8"]["kl"] < 0.01 < found["nf4"]["kl"] < 0.2
    assert all(values["tokens_per_second"] > 0 for values in found.values())
