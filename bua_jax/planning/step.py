"""The training step of a stage with abstract arguments: nothing of a model's size is ever allocated."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from bua_jax.alignment.encoder import encoder_config
from bua_jax.alignment.parts import compose, lora_of
from bua_jax.basics.errors import ConfigError
from bua_jax.events.schema import Catalogue
from bua_jax.feed.packing import PackingPlan
from bua_jax.models import lora, projector, quantization
from bua_jax.models.aligned import Aligned
from bua_jax.models.kernels.splash import SMALLEST_BLOCK
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel import sharding
from bua_jax.parallel.rows import ROW_AXES
from bua_jax.pipeline.stages import stage_parts, train_settings
from bua_jax.training.dialogues import Dialogues
from bua_jax.training.optimizer import make_optimizer, partition
from bua_jax.training.state import create
from bua_jax.training.step import make_step, zero_sums

_BEHAVIOURS = 37  # labels of the paper's Behavior set, where the config names none
_LABEL_TOKENS = 4  # about as many of their own a label is spelled with


@dataclass(frozen=True)
class Lowered:
    """A step before it is compiled, and the bytes per device of what it is given, by part."""

    step: jax.stages.Lowered
    given: dict[str, int]


def abstract_model(
    config: ConfigDict, sizes: Qwen2Config | None = None, soft_id: int | None = None
) -> tuple[Aligned, dict[str, Any]]:
    """The model of a run's config, and its variables as shapes. Raises `ConfigError`.

    sizes: of the language model, by default its preset's; soft_id: by default the last token.
    """
    model, how = config.model, config.execution
    if model.name not in PRESETS:
        raise ConfigError(f"model={model.name!r} is none of {', '.join(PRESETS)}.")
    llm = dataclasses.replace(
        sizes or PRESETS[model.name],
        dtype=model.dtype,
        remat=how.remat,
        attention=how.attention,
    )
    labels = config.data.get("behaviours") or tuple(f"behaviour {i}" for i in range(_BEHAVIOURS))
    catalogue = Catalogue(tuple(labels), config.data.get("slots_per_day", 48), True)
    encoder = encoder_config(config, catalogue)
    spelled = min(llm.vocab_size, _LABEL_TOKENS * len(catalogue.behaviours))
    adapter = lora_of(model, tuple(range(spelled)))
    soft_id = llm.vocab_size - 1 if soft_id is None else soft_id
    aligned = compose(model, config.execution, llm, adapter, encoder, soft_id)

    def variables() -> dict[str, Any]:
        key, ones = jax.random.key(0), jnp.ones((1, 4), jnp.int32)
        assert aligned.encoder is not None
        fields = jnp.ones((1, 4, 4), jnp.int32)
        tokens = jnp.ones((1, SMALLEST_BLOCK), jnp.int32)  # a row that all attention takes
        base = aligned.llm.init(key, tokens)["params"]
        table = base["embed_tokens"]["embedding"]
        return {
            "base": quantization.quantize(base, model.base_quantization),
            "encoder": aligned.encoder.init(key, fields, ones, ones)["params"],
            "projector": projector.init(key, encoder.state_dim, table, recall=aligned.recall > 0),
            "adapter": lora.init(key, adapter, llm, table),
        }

    return aligned, jax.eval_shape(variables)


def _placed(tree: Any, placement: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, placement
    )


def _bytes(tree: Any) -> int:
    """Of the shard that one device holds."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _batch(plan: PackingPlan, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What `feed.batches.Batches` gives, as `sharding.shard_batch` places it."""
    rows = NamedSharding(mesh, P(ROW_AXES))

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((plan.rows_per_batch, *shape), jnp.int32, sharding=rows)

    names = ("tokens", "segments", "positions", "round_ids", "kinds", "tasks", "soft_index")
    return {
        **{name: array(plan.row_length) for name in names},
        "events": array(plan.event_length, 4),
        "event_segments": array(plan.event_length),
        "event_positions": array(plan.event_length),
    }


def _trained(config: ConfigDict, stage: str) -> tuple[str, ...]:
    parts = stage_parts(config, stage)
    if not parts:
        raise ConfigError(f"{stage} trains nothing without soft tokens, so there is no plan.")
    return parts


def lower_step(
    config: ConfigDict,
    stage: str,
    model: Aligned,
    variables: Mapping[str, Any],
    plan: PackingPlan,
    mesh: Mesh,
) -> Lowered:
    """`training.loop.fit`'s step, for batches of `plan` on `mesh`."""
    trainable, frozen = partition(variables, _trained(config, stage))
    settings = train_settings(config, stage, plan)
    optimizer = make_optimizer(trainable, settings.optimizer, settings.total_steps)
    problem = Dialogues(model, plan, settings)
    state = jax.eval_shape(lambda tree: create(problem, tree, optimizer), trainable)
    placement, everywhere = sharding.shardings(state, mesh), sharding.replicated(mesh)
    state, frozen = _placed(state, placement), _placed(frozen, sharding.shardings(frozen, mesh))
    sums = jax.eval_shape(lambda: zero_sums(problem))
    sums = _placed(sums, jax.tree.map(lambda _: everywhere, sums))
    batch = _batch(plan, mesh)
    step = jax.jit(
        make_step(problem, optimizer, settings.microbatches),
        donate_argnums=(0, 3),
        out_shardings=(placement, everywhere),
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = step.lower(state, frozen, batch, sums)
    everything = {**frozen, **state.trainable}
    given = {part: _bytes(everything[part]) for part in everything}
    return Lowered(
        lowered, {**given, "optimizer state": _bytes(state.opt_state), "batch": _bytes(batch)}
    )
