"""The mesh, the table of specs, and that a sharded step computes what one device computes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from bua_jax.basics.errors import ConfigError
from bua_jax.models import lora, projector, quantization
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.models.lora import LoraConfig
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.parallel import sharding
from bua_jax.parallel.shape import parse_mesh
from bua_jax.training import weighting
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer, partition
from bua_jax.training.state import create
from tests.support import tiny
from tests.support.helpers import ROOT, on_eight_devices

GOLDEN = ROOT / "tests" / "parallel" / "golden_specs.txt"
HEADER = """\
# PartitionSpec of every array that training has: replicated kernels are gigabytes at 72B. Written by
#   python -m tests.parallel.test_sharding
# after a change of RULES; read the difference line by line before you commit it.
"""
LIMIT = {"float32": 1e-5, "float64": 1e-8}


def paths(tree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return ["/".join(map(sharding._name, path)) for path, _ in leaves]


def golden() -> str:
    """A line per array of models with a tied and an own head, a quantised one, and what else there is."""
    key, tokens = jax.random.key(0), jnp.ones((1, 2), jnp.int32)
    encoder, trees = EncoderConfig(kind="behavegpt", num_behaviours=37, slots_per_day=48), {}
    for name in ("nano", "qwen2.5-7b"):
        config = PRESETS[name]
        base = jax.eval_shape(Qwen2(config).init, key, tokens)["params"]
        table = base["embed_tokens"]["embedding"]
        trees[name] = {
            "base": base,
            "adapter": jax.eval_shape(lambda k, c=config: lora.init(k, LoraConfig(), c), key),
            "projector": jax.eval_shape(
                lambda k, t: projector.init(k, encoder.state_dim, t), key, table
            ),
        }
    trees["encoder"] = {
        "encoder": jax.eval_shape(
            build(encoder).init, key, jnp.ones((1, 2, 4), jnp.int32), tokens, tokens
        )["params"]
    }
    int8 = jax.eval_shape(lambda base: quantization.quantize(base, "int8"), base)
    trees["qwen2.5-7b in int8"] = {"base": {"layers": int8["layers"]}}
    trees["training"] = {"weighting": weighting.init(9)}
    lines = []
    for name, tree in trees.items():
        lines.append(f"\n{name}\n")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            path = "/".join(map(sharding._name, path))
            spec = sharding.spec_of(path) if leaf.ndim else P()
            lines.append(
                f"{path} {list(leaf.shape)}: {', '.join(map(str, spec)) or 'replicated'}\n"
            )
    return HEADER + "".join(lines)


def test_golden_specs() -> None:
    assert golden() == GOLDEN.read_text()


def test_moments_lie_with_their_parameters() -> None:
    model, variables = tiny.model()
    trainable, _ = partition(variables, ("projector", "adapter"))
    problem = Dialogues(model, tiny.plan(tiny.records(4)), TrainSettings(balancer="appendix_k"))
    state = create(problem, trainable, make_optimizer(trainable, OptimizerSettings(), 4))
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
    assert parse_mesh(text) == shape


@pytest.mark.parametrize("text", ["", "0", "2x2", "axb", "-1", "1x1x1x1"])
def test_mesh_typos(text: str) -> None:
    with pytest.raises(ConfigError, match=r"8 or 2x2x2"):
        parse_mesh(text)


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


def compare(cases: dict[str, list[tuple[str, str, int]]]) -> tuple[list[dict], dict]:
    """What one device and meshes of eight fake ones compute: (a record per case, the control)."""
    printed = on_eight_devices(
        "gradients_on_meshes", json.dumps(cases), timeout=1800
    )  # the long test's
    *results, control = map(json.loads, printed.splitlines())
    return results, control


def check(cases: dict[str, list[tuple[str, str, int]]]) -> None:
    results, control = compare(cases)
    assert len(results) == sum(map(len, cases.values()))
    bases = {(dtype, kind) for dtype, some in cases.items() for kind, *_ in some}
    assert len({found["alone"] for found in results}) == len(bases)  # int8 is not float32
    for found in results:
        dtype, _, text, microbatches = found["case"]
        data, fsdp, tensor = parse_mesh(text)
        assert found["devices"] == data * fsdp * tensor, found
        assert found["shard"] == [2, 16 // fsdp, 16 // tensor], found  # of q_proj's kernel
        assert found["rows"] % (data * fsdp * microbatches) == 0, found
        assert found["row_shard"] == found["rows"] // (data * fsdp), found
        assert found["same_count"], found
        assert found["loss"] <= LIMIT[dtype], found
        assert found["gradient"] <= LIMIT[dtype], found
    assert control["right"] <= LIMIT["float32"]
    assert control["wrong"] > 1000 * LIMIT["float32"]


def test_a_mesh_computes_what_one_device_does() -> None:
    """A selection; the long test has every mesh with two of three numbers of microbatches."""
    check(
        {
            "float32": [("none", "2x2x2", 2), ("int8", "2x2x2", 1)],
            "float64": [("none", "2x1x4", 4)],
        }
    )


@pytest.mark.long
def test_every_mesh_computes_what_one_device_does() -> None:
    sizes = (1, 2, 4, 8)
    meshes = [f"{d}x{f}x{t}" for d in sizes for f in sizes for t in sizes if d * f * t in sizes]
    assert len(meshes) == 20
    counts = (1, 2, 4)
    cases = [
        [("none", text, counts[(i + shift) % 3]) for i, text in enumerate(meshes)]
        for shift in (0, 1)
    ]
    check(dict(zip(("float32", "float64"), cases, strict=True)))


if __name__ == "__main__":
    GOLDEN.write_text(golden())
