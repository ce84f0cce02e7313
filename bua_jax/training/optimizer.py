"""What each stage trains, and how: the stage table is data, and every leaf must be covered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import parameter_overview
from rich.table import Table

from bua_jax.basics.console import err
from bua_jax.basics.errors import ConfigError
from bua_jax.training.stage_table import STAGE_TABLE

PARTS = ("encoder", "projector", "base", "adapter", "teacher", "heads", "policy")
_LINES = 40  # of the table of trained arrays, at most
MATRICES = ("kernel", "embedding", "a", "b")  # leaves that decay; biases and norm scales do not


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with warm-up and cosine (Appendix G); rates per step."""

    peak_lr: float = 5e-5
    initial_lr: float = 1e-6
    final_lr: float = 1e-6
    warmup_share: float = 0.03
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    unit_gradient: bool = False  # its norm is always clip_norm, not at most
    rates: Mapping[str, float] = field(default_factory=dict)  # multiples of the rate, by part
    paused: tuple[str, ...] = ()  # parts that stay as they are where a batch gives them no gradient


def trained_parts(stage: str, *, full_finetuning: bool = False) -> tuple[str, ...]:
    """Parts that a stage trains; full fine-tuning trains the base in the adapter's place."""
    if stage not in STAGE_TABLE:
        raise ConfigError(f"There is no stage {stage!r}; there are {', '.join(STAGE_TABLE)}.")
    parts = STAGE_TABLE[stage]
    return tuple("base" if full_finetuning and g == "adapter" else g for g in parts)


def partition(
    variables: Mapping[str, Any], parts: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits variables into (trainable, frozen).

    Raises `ConfigError` for a part that matches nothing, for variables of no known part, and for
    half-precision leaves, in which an update at these learning rates is lost by rounding.
    """
    unknown = sorted(set(variables) - set(PARTS))
    if unknown:
        raise ConfigError(f"No rule says whether {unknown} are trained; known are {PARTS}.")
    for part in parts:
        leaves = jax.tree.leaves(variables.get(part, {}))
        if not leaves:
            raise ConfigError(f"The stage trains {part!r}, but the model has no such parameters.")
        half = {str(x.dtype) for x in leaves if jnp.dtype(x.dtype).itemsize < 4}
        if half:
            raise ConfigError(
                f"The stage trains {part!r}, whose parameters are {', '.join(sorted(half))}: "
                "updates would be rounded away. Set --config.model.dtype=float32."
            )
    trainable = {g: variables[g] for g in parts}
    return trainable, {g: v for g, v in variables.items() if g not in parts}


def schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """Linear warm-up from initial_lr to peak_lr, then cosine to final_lr at step `steps`."""
    warmup = max(1, round(settings.warmup_share * steps))
    return optax.warmup_cosine_decay_schedule(
        settings.initial_lr, settings.peak_lr, warmup, max(steps, warmup + 1), settings.final_lr
    )


def decayed(tree: Any) -> Any:
    """True on the leaves that weight decay applies to (stacked layers hide a leaf's own rank)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in MATRICES, tree)


def pausing(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, but where all gradients are exactly 0: then no update, nor one of its moments.

    As of parameters that torch is told to need no gradient; Adam's moments alone would move them on.
    """

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        there = jnp.any(jnp.stack([jnp.any(g != 0) for g in jax.tree.leaves(gradients)]))

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(there, x, y), new, old)

        updates, after = inner.update(gradients, state, params)
        return chosen(updates, jax.tree.map(jnp.zeros_like, updates)), chosen(after, state)

    return optax.GradientTransformation(inner.init, update)


def bounded(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Scales a gradient over all its leaves: to the norm `clip_norm`, or to that at most."""
    if settings.unit_gradient:
        return optax.normalize_by_update_norm(settings.clip_norm, eps=1e-20)
    return optax.clip_by_global_norm(settings.clip_norm)


def make_optimizer(
    trainable: Mapping[str, Any],
    settings: OptimizerSettings,
    steps: int,
    decays: Callable[[Any], Any] = decayed,
) -> optax.GradientTransformation:
    """One transform per trained part; frozen parts are not in `trainable` and have no moments.

    decays: of a part's tree, True on the leaves that weight decay applies to.
    """

    def adamw(part: str) -> optax.GradientTransformation:
        rate, multiple = schedule(settings, steps), settings.rates.get(part, 1.0)
        scaled = rate if multiple == 1 else lambda step: multiple * rate(step)
        if part not in settings.paused:
            return optax.adamw(scaled, weight_decay=settings.weight_decay, mask=decays)
        decay = optax.add_decayed_weights(settings.weight_decay, decays)
        inner = pausing(optax.chain(optax.scale_by_adam(), decay))
        return optax.chain(inner, optax.scale_by_learning_rate(scaled))  # the rate goes on

    labels = {part: jax.tree.map(lambda _, g=part: g, tree) for part, tree in trainable.items()}
    return optax.chain(
        bounded(settings),
        optax.multi_transform({part: adamw(part) for part in trainable}, labels),
    )


def print_parts(variables: Mapping[str, Any], parts: tuple[str, ...], name: str) -> None:
    """Prints which parts are trained, with parameter counts; name: of the problem."""
    table = Table(title=f"{name}: what is trained")
    for column in ("part", "parameters", "trained"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for part in filter(variables.__contains__, PARTS):
        count = sum(x.size for x in jax.tree.leaves(variables[part]))
        table.add_row(part, f"{count:,}", "yes" if part in parts else "no")
    err.print(table)


def print_trained(trainable: dict[str, Any], name: str) -> None:
    """Prints every trained array, and how many parameters they have together."""
    overview = parameter_overview.get_parameter_overview(
        trainable, include_stats=False, max_lines=_LINES
    )
    err.print(f"{name} trains\n{overview}")
