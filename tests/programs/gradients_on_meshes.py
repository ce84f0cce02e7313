"""Loss and gradient of a batch on one device and on meshes of eight, as JSON lines; the control last.

python -m tests.programs.gradients_on_meshes '{"float32": [["none", "2x2x2", 1]]}'

The key is a type, a case the base's quantisation, the mesh and the microbatches.
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.feed.batches import Batches
from bua_jax.models import quantization
from bua_jax.parallel import sharding
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import partition
from bua_jax.training.step import make_gradients
from tests.support import tiny

RECORDS = tiny.records(60)
PLAN = tiny.plan(RECORDS, batch_dialogues=20)


def placed_gradient(dtype: str, kind: str, text: str, microbatches: int):
    """(function of a batch that gives value, count and gradient; the frozen part; the mesh)."""
    model, variables = tiny.model(dataclasses.replace(tiny.QWEN, dtype=dtype))
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
    variables["base"] = quantization.quantize(variables["base"], kind)
    trainable, frozen = partition(variables, ("projector", "adapter"))
    mesh = sharding.make_mesh(text)
    gradients = make_gradients(Dialogues(model, PLAN, TrainSettings()), microbatches)
    trainable, frozen = (
        sharding.place(x, sharding.shardings(x, mesh)) for x in (trainable, frozen)
    )
    compiled = jax.jit(gradients)
    ones, key = jnp.ones((1, 9), dtype), jax.random.key(0)

    def run(batch: Any) -> Any:
        with jax.set_mesh(mesh):
            found = jax.device_get(compiled(trainable, frozen, batch, ones, key))
        (value,), (gradient,), terms = found
        return value, terms.denominator, gradient

    return run, frozen, mesh


def compare(dtype: str, case: list[Any], batch: Any, alone: Any) -> dict[str, Any]:
    """How far a case is from what one device computes, and how its arrays lie."""
    kind, text, microbatches = case
    run, frozen, mesh = placed_gradient(dtype, kind, text, microbatches)
    with jax.set_mesh(mesh):
        data = sharding.shard_batch(batch, mesh, microbatches)
    found, (value, count, gradient) = run(data), alone
    q = jax.tree.leaves(frozen["base"]["layers"]["self_attn"]["q_proj"]["kernel"])[0]
    rows = data["tokens"]
    return {
        "case": [dtype, *case],
        "alone": float(value),
        "same_count": bool(found[1] == count),
        "loss": tiny.relative(found[0], value),
        "gradient": tiny.relative(found[2], gradient),
        "devices": len(q.sharding.device_set),
        "shard": q.addressable_shards[0].data.shape,
        "rows": rows.shape[0],
        "row_shard": rows.addressable_shards[0].data.shape[0],
    }


def negative_control(dtype: str, batch: Any, alone: Any) -> dict[str, Any]:
    """Every device divides by its own count: that must differ."""
    _, count, gradient = alone
    rows = sharding.shard_batch(batch, sharding.make_mesh("8x1x1"))
    run, _, _ = placed_gradient(dtype, "none", "1", 1)
    parts = [
        run({k: np.asarray(x.addressable_shards[i].data) for k, x in rows.items()})
        for i in range(8)
    ]
    wrong = jax.tree.map(lambda *x: sum(x) / 8, *[grads for _, _, grads in parts])
    scaled = [jax.tree.map(lambda x, n=n: x * n, grads) for _, n, grads in parts]
    right = jax.tree.map(lambda *x: sum(x) / count, *scaled)
    return {"wrong": tiny.relative(wrong, gradient), "right": tiny.relative(right, gradient)}


def main() -> None:
    batch = next(Batches(RECORDS, PLAN, 0))
    batch = {key: value[: len(batch["tokens"]) // 8 * 8 + 3] for key, value in batch.items()}
    control: dict[str, Any] = {}
    for dtype, cases in json.loads(sys.argv[1]).items():
        with jax.enable_x64(dtype == "float64"):
            alone = {}
            for kind in {kind for kind, *_ in cases}:
                run, _, mesh = placed_gradient(dtype, kind, "1", 1)
                with jax.set_mesh(mesh):
                    alone[kind] = run(sharding.shard_batch(batch, mesh, 1))
            for case in cases:
                print(json.dumps(compare(dtype, case, batch, alone[case[0]])))
            if dtype == "float32":
                control = negative_control(dtype, batch, alone["none"])
    print(json.dumps(control))


if __name__ == "__main__":
    main()
