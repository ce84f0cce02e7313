"""The mesh, the table of specs, and that a sharded step computes what one device computes."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bua_jax.errors import ConfigError
from bua_jax.models import lora
from bua_jax.models.lora import LoraConfig
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.training import sharding
from bua_jax.training.loop import make_optimizer, partition
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.state import create
from tests.helpers import ROOT
from tests.training import tiny

# Change only together with RULES, line by line: replicated kernels are gigabytes at 72B.
GOLDEN = {
    "base/embed_tokens/embedding": P("tensor", "fsdp"),
    "base/lm_head/kernel": P("fsdp", "tensor"),
    "base/norm/scale": P(),
    "base/layers/input_layernorm/scale": P(),
    "base/layers/post_attention_layernorm/scale": P(),
    "base/layers/self_attn/q_proj/kernel": P(None, "fsdp", "tensor"),
    "base/layers/self_attn/q_proj/bias": P(None, "tensor"),
    "base/layers/self_attn/k_proj/kernel": P(None, "fsdp", "tensor"),
    "base/layers/self_attn/k_proj/bias": P(None, "tensor"),
    "base/layers/self_attn/v_proj/kernel": P(None, "fsdp", "tensor"),
    "base/layers/self_attn/v_proj/bias": P(None, "tensor"),
    "base/layers/self_attn/o_proj/kernel": P(None, "tensor", "fsdp"),
    "base/layers/mlp/gate_proj/kernel": P(None, "fsdp", "tensor"),
    "base/layers/mlp/up_proj/kernel": P(None, "fsdp", "tensor"),
    "base/layers/mlp/down_proj/kernel": P(None, "tensor", "fsdp"),
    "adapter/layers/self_attn/q_proj/a": P(None, "fsdp", None),
    "adapter/layers/self_attn/q_proj/b": P(None, None, "tensor"),
    "adapter/layers/self_attn/k_proj/a": P(None, "fsdp", None),
    "adapter/layers/self_attn/k_proj/b": P(None, None, "tensor"),
    "adapter/layers/self_attn/v_proj/a": P(None, "fsdp", None),
    "adapter/layers/self_attn/v_proj/b": P(None, None, "tensor"),
    "adapter/layers/self_attn/o_proj/a": P(None, "tensor", None),
    "adapter/layers/self_attn/o_proj/b": P(None, None, "fsdp"),
    "adapter/layers/mlp/gate_proj/a": P(None, "fsdp", None),
    "adapter/layers/mlp/gate_proj/b": P(None, None, "tensor"),
    "adapter/layers/mlp/up_proj/a": P(None, "fsdp", None),
    "adapter/layers/mlp/up_proj/b": P(None, None, "tensor"),
    "adapter/layers/mlp/down_proj/a": P(None, "tensor", None),
    "adapter/layers/mlp/down_proj/b": P(None, None, "fsdp"),
}


def paths(tree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return ["/".join(map(sharding._name, path)) for path, _ in leaves]


def test_golden_specs() -> None:
    """Of nano (tied head) and Qwen2.5-7B (a head of its own): every parameter, and nothing else."""
    tokens, found = jnp.ones((1, 2), jnp.int32), set()
    for name in ("nano", "qwen2.5-7b"):
        config = PRESETS[name]
        key = jax.random.key(0)
        base = jax.eval_shape(Qwen2(config).init, key, tokens)["params"]
        adapter = jax.eval_shape(lambda k, c=config: lora.init(k, LoraConfig(), c), key)
        found |= set(paths({"base": base, "adapter": adapter}))
    assert {path: sharding.spec_of(path) for path in found} == GOLDEN


def test_moments_lie_with_their_parameters() -> None:
    _, variables = tiny.model()
    trainable, _ = partition(variables, ("projector", "adapter"))
    state = create(trainable, make_optimizer(trainable, OptimizerSettings(), 4), 8)
    mesh = sharding.make_mesh("1")
    placed = jax.device_put(state, sharding.shardings(state, mesh))
    moments = [p for p in paths(placed.opt_state) if p.endswith("q_proj/b")]
    assert len(moments) == 2
    assert all(sharding.spec_of(p) == P(None, None, "tensor") for p in moments)


def test_a_path_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="how to shard base/layers/router/kernel"):
        sharding.shardings({"base": {"layers": {"router": {"kernel": jnp.ones(2)}}}}, _mesh())


def _mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh("1x1x1")


@pytest.mark.parametrize(
    ("text", "shape"), [("8", (1, 8, 1)), ("2x4x1", (2, 4, 1)), (1, (1, 1, 1))]
)
def test_mesh_of_a_config(text, shape) -> None:
    assert sharding.parse_mesh(text) == shape


@pytest.mark.parametrize("text", ["", "0", "2x2", "axb", "-1", "1x1x1x1"])
def test_mesh_typos(text: str) -> None:
    with pytest.raises(ConfigError, match=r"8 or 2x2x2"):
        sharding.parse_mesh(text)


def test_too_few_devices() -> None:
    with pytest.raises(ConfigError, match=r"mesh='4096' needs 4096 devices, but there are"):
        sharding.make_mesh("4096")


def test_rows_are_padded_to_microbatches() -> None:
    batch = {"tokens": np.ones((3, 5), np.int32), "events": np.ones((3, 2, 4), np.int32)}
    padded = sharding.shard_batch(batch, _mesh(), microbatches=2)
    assert padded["tokens"].shape == (4, 5)
    assert padded["events"].shape == (4, 2, 4)
    assert padded["tokens"][:3].all()
    assert not padded["tokens"][3].any()


SCRIPT = """
import json
import jax, jax.numpy as jnp
from bua_jax.feed.packing import batches
from bua_jax.models import quantization
from bua_jax.training import loop, sharding
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.state import create
from tests.training import tiny

model, variables = tiny.model()
records = tiny.records(60)
plan = tiny.plan(records, batch_dialogues=20)
trainable, frozen = loop.partition(variables, ("projector", "adapter"))
optimizer = loop.make_optimizer(trainable, OptimizerSettings(clip_norm=1e9), 4)
batch = next(batches(records, plan, 0))
results = {}
for kind, text, microbatches in (
    ("none", "1", 1), ("none", "8", 1), ("none", "2x2x2", 2), ("int8", "1", 1), ("int8", "2x2x2", 1)
):
    frozen = {**frozen, "base": quantization.quantize(variables["base"], kind)}
    mesh = sharding.make_mesh(text)
    settings = loop.TrainSettings(microbatches=microbatches)
    gradient = loop.make_gradient(model, plan, settings)
    with jax.set_mesh(mesh):
        placed = jax.device_put(trainable, sharding.shardings(trainable, mesh))
        rest = jax.device_put(frozen, sharding.shardings(frozen, mesh))
        data = sharding.shard_batch(batch, mesh, microbatches)
        value, count, grads, _ = jax.jit(gradient)(placed, rest, data, jnp.ones(9))
    q = jax.tree.leaves(rest["base"]["layers"]["self_attn"]["q_proj"]["kernel"])[0]
    text = text if kind == "none" else f"{kind} {text}"
    results[text] = {
        "loss": float(value), "count": float(count), "devices": len(q.sharding.device_set),
        "shard": q.addressable_shards[0].data.shape, "rows": data["tokens"].shape[0],
        "row_shard": data["tokens"].addressable_shards[0].data.shape[0],
    }
    grads = jax.device_get(grads)
    if text.endswith(" 1") or text == "1":
        one = grads
    results[text]["difference"] = tiny.relative(grads, one)
print(json.dumps(results))
"""


def test_eight_devices_compute_what_one_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
            "--xla_backend_optimization_level=0",  # compiles in half the time
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["1"]["devices"] == results["int8 1"]["devices"] == 1
    assert results["int8 1"]["loss"] != results["1"]["loss"]
    expected = {"8": [2, 2, 16], "2x2x2": [2, 8, 8], "int8 2x2x2": [2, 8, 8]}
    for text, shard in expected.items():
        many, one = results[text], results["int8 1" if "int8" in text else "1"]
        assert many["devices"] == 8
        assert many["shard"] == shard  # of q_proj's kernel [2, 16, 16]
        assert many["rows"] % 8 == 0
        assert many["row_shard"] == many["rows"] // (8 if text == "8" else 4)
        assert many["count"] == one["count"]
        assert abs(many["loss"] - one["loss"]) <= 1e-5 * one["loss"]
        assert many["difference"] <= 1e-5  # float32 sums in another order
