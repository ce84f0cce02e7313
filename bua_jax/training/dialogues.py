"""Packed dialogues as a problem of the loop: their loss by tasks or round kinds, and what is logged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS
from bua_jax.feed.batches import Batches, fixed_batches
from bua_jax.feed.packing import THREADS, PackingPlan, plan_for
from bua_jax.models.aligned import Aligned, supervised_nll
from bua_jax.parallel import sharding
from bua_jax.parallel.rows import row_shards
from bua_jax.training import losses, optimizer, weighting
from bua_jax.training.problem import Batch, LoopSettings, Scalars, Sum, Terms, means

_CHUNK = 1024  # supervised tokens per vocabulary projection of a device, about
UNITS = {"task": ("none", *TASKS), "round": ("none", *ROUND_KINDS)}
"""What can have a weight of its own (`task_weight_unit`), by id; 0 is none."""
_IDS = {"task": "tasks", "round": "kinds"}  # the batch's array of them

DialogueSums = metrics.Collection.create(
    kind=means(len(ROUND_KINDS) + 1).from_output("kind"),  # of tokens, by round kind
    task=means(len(TASKS) + 1).from_output("task"),  # of dialogues, by task
    tokens=Sum.from_output("tokens"),
    supervised=Sum.from_output("supervised"),
)


@dataclass(frozen=True)
class TrainSettings(LoopSettings):
    """How a stage is trained."""

    loss: str = "round_balanced"
    task_weights: bool = False
    task_weight_unit: str = "task"  # task or round (its kind): what has an EMA loss and a weight
    task_weight_alpha: float = 1.0
    task_weight_decay: float = 0.9
    task_weight_floor: float = 0.05


def batch_losses(
    model: Aligned, variables: Mapping[str, Any], batch: Batch, plan: PackingPlan
) -> tuple[jax.Array, losses.DialogueLosses]:
    """nll float32[B, T] and the loss of every dialogue."""
    rows = max(1, len(batch["tokens"]) // row_shards())  # of a device
    chunks = -(-plan.max_supervised * rows // _CHUNK)
    chunk = -(-plan.max_supervised // chunks)  # equal chunks waste less than full ones
    nll = supervised_nll(model, variables, batch, room=plan.max_supervised, chunk=chunk)
    return nll, losses.dialogue_losses(nll, batch["round_ids"], batch["segments"], batch["tasks"])


def statistics(nll: jax.Array, per_dialogue: losses.DialogueLosses, batch: Batch) -> Any:
    """The batch's `DialogueSums`."""
    return DialogueSums.single_from_model_output(
        kind=losses.by_group(nll, batch["kinds"], len(ROUND_KINDS)),
        task=losses.by_task(per_dialogue, len(TASKS)),
        tokens=jnp.sum(batch["segments"] > 0),
        supervised=jnp.sum(batch["round_ids"] > 0),
    )


def make_evaluation(model: Aligned, plan: PackingPlan) -> Callable[..., Any]:
    """(variables, batch) -> `DialogueSums`; to be jitted once."""

    def evaluate_batch(variables: Mapping[str, Any], batch: Batch) -> Any:
        nll, per_dialogue = batch_losses(model, variables, batch, plan)
        return statistics(nll, per_dialogue, batch)

    return evaluate_batch


def evaluate(
    evaluate_batch: Callable[..., Any],
    variables: Mapping[str, Any],
    validation: Sequence[Batch],
) -> Scalars:
    """Validation losses: per round kind, per task and in total."""
    sums = jax.device_get([evaluate_batch(variables, batch) for batch in validation])
    return named(jax.tree.map(lambda *x: np.sum(x, axis=0), *sums), "validation")


def named(sums: Any, prefix: str) -> Scalars:
    """Mean loss by round kind and task, and over all dialogues, of `DialogueSums` on the host."""
    kinds, tasks = sums.kind.compute(), sums.task.compute()
    scalars = {
        f"{prefix}/kind/{name}": float(kinds[i])
        for i, name in enumerate(ROUND_KINDS, 1)
        if sums.kind.count[i] > 0
    }
    for i, name in enumerate(TASKS, 1):
        if sums.task.count[i] > 0:
            scalars[f"{prefix}/task/{name}"] = float(tasks[i])
    for name, mean in (("round_balanced", sums.task), ("token_mean", sums.kind)):
        scalars[f"{prefix}/{name}"] = float(mean.total.sum() / max(mean.count.sum(), 1))
    return scalars


@dataclass(frozen=True)
class Dialogues:
    """The problem of a stage (`training.problem.Problem`)."""

    model: Aligned
    plan: PackingPlan
    settings: TrainSettings
    records: Sequence[TokenRecord] = ()
    validation_records: Sequence[TokenRecord] = ()
    name: str = "training"

    items = "tokens"
    advice = "Check the dialogues with: python -m bua_jax.annotate --show=3."

    @property
    def units(self) -> tuple[str, ...]:
        return UNITS[self.settings.task_weight_unit]

    @property
    def balancer(self) -> weighting.Balancer:
        s = self.settings
        if not s.task_weights:
            return weighting.equal()
        return weighting.learning_speed(
            s.task_weight_alpha, s.task_weight_decay, s.task_weight_floor
        )

    @property
    def objective(self) -> str:
        return self.settings.loss

    @property
    def feed(self) -> Mapping[str, int]:
        return {"threads": THREADS, "workers": self.plan.workers}

    def data(self) -> Batches:
        return Batches(self.records, self.plan, self.settings.seed)

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        nll, per_dialogue = batch_losses(self.model, variables, batch, self.plan)
        unit = self.settings.task_weight_unit
        pairs = [
            losses.LOSSES[self.settings.loss](
                nll, batch["round_ids"], batch["segments"], weights[batch[_IDS[unit]]]
            )
            for weights in rows
        ]
        sums = statistics(nll, per_dialogue, batch)
        of_units = sums.kind if unit == "round" else sums.task
        units = jnp.stack([of_units.total, of_units.count])
        return jnp.stack([total for total, _ in pairs]), Terms(pairs[0][1], units, sums)

    def empty(self) -> Any:
        return DialogueSums.empty()

    def scalars(self, sums: Any, prefix: str) -> Scalars:
        share = {f"{prefix}/supervised_share": float(sums.supervised.total / sums.tokens.total)}
        return {**named(sums, prefix), **share}

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        own = plan_for(self.validation_records, self.plan)
        of_batch = jax.jit(
            make_evaluation(self.model, own), out_shardings=sharding.replicated(mesh)
        )
        data = [
            sharding.shard_batch(batch, mesh)
            for batch in fixed_batches(self.validation_records, own)
        ]
        return lambda variables: evaluate(of_batch, variables, data)

    def decayed(self, tree: Any) -> Any:
        return optimizer.decayed(tree)
