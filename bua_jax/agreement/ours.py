"""A training step of this package, opened up: the quantities of `quantities.QUANTITIES`, and its recipe."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from bua_jax.dialogue.prompts import WITHOUT_ENCODER
from bua_jax.feed.packing import PackingPlan
from bua_jax.interop.huggingface import flatten
from bua_jax.models import aligned, qwen2
from bua_jax.models.aligned import Aligned
from bua_jax.models.encoders.base import encode_events
from bua_jax.models.qwen2 import Qwen2
from bua_jax.training import losses, optimizer
from bua_jax.training.dialogues import UNITS, Dialogues, TrainSettings, counted, kind_weights
from bua_jax.training.step import make_gradients

Arrays = dict[str, Any]


class Stage(NamedTuple):
    """A model, what a stage trains of it, and how."""

    model: Aligned
    variables: Mapping[str, Any]
    trains: tuple[str, ...]
    settings: TrainSettings
    stop: int  # id of the token that ends an answer

    @property
    def trained(self) -> Arrays:
        """The arrays beside the base, by name: PART/NAME."""
        parts = ("projector", "adapter")
        return flatten({n: self.variables[n] for n in parts if n in self.variables})


def computable(stage: Stage) -> Stage:
    """The same in an attention for rows of any length: others take neither those nor all types."""
    llm = stage.model.llm
    config = llm.config
    if config.attention != "cpu":
        config = dataclasses.replace(config, attention="xla")
    model = dataclasses.replace(stage.model, llm=Qwen2(config, llm.lora))
    return stage._replace(model=model)


def recipe(stage: Stage) -> dict[str, Any]:
    """All that `plain` must know beside arrays, as JSON."""
    config, lora, how = stage.model.llm.config, stage.model.llm.lora, stage.settings.optimizer
    assert lora is not None
    return {
        "layers": config.num_layers,
        "head_dim": config.head_dim,
        "theta": config.rope_theta,
        "eps": config.rms_norm_eps,
        "tied": config.tie_word_embeddings,
        "lora_scale": lora.scale,
        "lora_tokens": list(lora.tokens),
        "soft_id": stage.model.soft_id,
        "stop_id": stage.stop,
        "soft_tokens": stage.model.soft_tokens,
        "loss": stage.settings.loss,
        "beta": stage.settings.length_beta,
        "kind_weights": kind_weights(stage.settings.kind_weights).tolist(),
        "trains": list(stage.trains),
        "clip_norm": how.clip_norm,
        "unit_gradient": how.unit_gradient,
        "weight_decay": how.weight_decay,
        "rate": how.peak_lr,
        "rates": dict(how.rates),
    }


def states(stage: Stage, batch: Arrays) -> Arrays:
    """What the projector is given, float[B, S, D], as the batch's `states`; nothing without soft tokens."""
    model = stage.model
    if model.soft_tokens in WITHOUT_ENCODER:
        return {}
    assert model.encoder is not None
    seen = (jnp.asarray(batch[n]) for n in ("events", "event_segments", "event_positions"))
    output = encode_events(model.encoder, stage.variables["encoder"], *seen)
    found = output.items if model.soft_tokens == "item" else output.states
    return {"states": np.asarray(found, np.float32)}


def _by_layer(stage: Stage, x: jax.Array, rows: Mapping[str, jax.Array]) -> Arrays:
    """From the embeddings [B, T, H] on: the first layer's parts, and each layer's output over its rms."""
    config, lora = stage.model.llm.config, stage.model.llm.lora
    block = qwen2.Block(config, lora)
    trees = {"params": stage.variables["base"]["layers"]}
    trees["lora"] = stage.variables["adapter"]["layers"]

    @jax.jit
    def layer(variables: Any, x: jax.Array) -> Any:
        out, seen = block.apply(
            variables,
            x,
            rows["positions"],
            rows["segments"],
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return out[0], seen["intermediates"]

    found: Arrays = {}
    for n in range(config.num_layers):
        x, seen = layer(jax.tree.map(lambda leaf, n=n: leaf[n], trees), x)
        if n == 0:
            found |= _first(stage, seen, rows)
        wide = np.asarray(x, np.float64)
        scale = np.sqrt((wide**2).mean(-1, keepdims=True) + config.rms_norm_eps)
        found[f"layer {n + 1}"] = wide / scale
    return found


def _first(stage: Stage, seen: Any, rows: Mapping[str, jax.Array]) -> Arrays:
    """What the first layer computed on the way."""
    config, attention = stage.model.llm.config, seen["self_attn"]
    angles = qwen2.rope_angles(rows["positions"], config.head_dim, config.rope_theta)
    found = {"norm": seen["input_layernorm"]["__call__"][0]}
    found |= {f"projection {n}": attention[f"{n}_proj"]["__call__"][0] for n in "qkv"}
    for name in "qk":
        y = found[f"projection {name}"]
        found[f"rotation {name}"] = qwen2.rope(y.reshape(*y.shape[:2], -1, config.head_dim), angles)
    return found | {"attention": attention["__call__"][0][0]}


def _losses(stage: Stage, nll: jax.Array, rows: Mapping[str, jax.Array]) -> Arrays:
    """Every reduction of nll [B, T]."""
    found = {}
    for name in losses.LOSSES:
        settings = dataclasses.replace(stage.settings, loss=name)
        counts = counted(settings, rows)
        found[f"loss {name}"] = losses.numerator(nll, counts) / jnp.sum(counts.denominators)
    return found


def _plan(rows: Mapping[str, jax.Array]) -> PackingPlan:
    count, length = rows["tokens"].shape
    room = int(jnp.max(jnp.sum(rows["round_ids"] > 0, axis=1)))
    return PackingPlan(length, rows["events"].shape[1], count, 1, 1, room, 1)


def gradients(stage: Stage, batch: Arrays) -> Arrays:
    """Of the stage's loss, and products of those of its parts by round kind, by the step that trains."""
    rows = {name: jnp.asarray(value) for name, value in batch.items()}
    settings = dataclasses.replace(stage.settings, balancer="equal", balancer_unit="round")
    problem = Dialogues(stage.model, _plan(rows), settings)
    trainable, frozen = optimizer.partition(stage.variables, stage.trains)
    run, each = jax.jit(make_gradients(problem, 1)), jnp.eye(len(UNITS["round"]))
    _, parts, _ = run(trainable, frozen, rows, each, jax.random.key(0))
    named = [flatten(part) for part in parts]  # they are linear in the units' weights
    whole = {name: np.sum([part[name] for part in named], axis=0) for name in named[0]}
    flat = [np.concatenate([x.ravel() for x in part.values()]) for part in named[1:]]
    wide = np.stack(flat).astype(np.float64)
    found: Arrays = {"kinds": wide @ wide.T}
    return found | {f"gradient {name}": value for name, value in whole.items()}


def updates(stage: Stage, gradient: Arrays) -> Arrays:
    """What our optimizer makes of a gradient by names: clipped, and the first update at the peak rate."""
    how = dataclasses.replace(stage.settings.optimizer, initial_lr=stage.settings.optimizer.peak_lr)
    trainable, _ = optimizer.partition(stage.variables, stage.trains)
    names = {name: jnp.asarray(value, jnp.float32) for name, value in gradient.items()}
    given = unflatten_dict(names, sep="/")
    found: Arrays = {}
    for name, transform in (
        ("clipped", optimizer.bounded(how)),
        ("update", optimizer.make_optimizer(trainable, how, 100)),
    ):
        update = jax.jit(transform.update)
        moved, _ = update(given, transform.init(trainable), trainable)
        found |= {f"{name} {key}": value for key, value in flatten(moved).items()}
    return found


def forward(stage: Stage, batch: Arrays) -> Arrays:
    """From tokens to losses, in the order of computation."""
    model, variables = stage.model, stage.variables
    rows = {name: jnp.asarray(value) for name, value in batch.items()}
    supervised = batch["round_ids"] > 0
    row, token = np.nonzero(supervised)
    room = int(supervised.sum(1).max())

    @jax.jit
    def run(variables: Any, rows: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = aligned.input_embeddings(model, variables, rows)
        hidden = aligned.hidden(model, variables, x, rows["positions"], rows["segments"])
        logits = aligned.unembed(model, variables, hidden[row, token - 1])
        nll = aligned.supervised_nll(model, variables, rows, room=room, chunk=room)
        return x, logits, nll

    embeddings, logits, nll = run(variables, rows)
    found: Arrays = {"supervised": np.float64(supervised), "embedding": embeddings}
    found |= _by_layer(stage, embeddings, rows)
    found |= {"logits": logits, "nll": nll[row, token]}
    found |= jax.jit(functools.partial(_losses, stage))(nll, rows)
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def ours(stage: Stage, batch: Arrays, reference: Mapping[str, Any] | None = None) -> Arrays:
    """All quantities of a batch, in their order; those of the optimizer where `reference` has gradients."""
    found = forward(stage, batch) | gradients(stage, batch)
    prefix = "gradient "
    given = {k: v for k, v in (reference or {}).items() if k.startswith(prefix)}
    if given:
        found |= updates(stage, {k.removeprefix(prefix): v for k, v in given.items()})
    return {name: np.asarray(value, np.float64) for name, value in found.items()}
