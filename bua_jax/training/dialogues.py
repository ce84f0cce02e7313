"""Packed dialogues as a problem of the loop: their loss by tasks or round kinds, and what is logged."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import LARGEST_REAL
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS, kind_id
from bua_jax.feed.batches import Batches, fixed_batches
from bua_jax.feed.packing import THREADS, PackingPlan, plan_for
from bua_jax.models.aligned import Aligned, TokenLoss, supervised_nll
from bua_jax.parallel import sharding
from bua_jax.parallel.rows import row_shards
from bua_jax.training import losses, optimizer
from bua_jax.training.balancers import table
from bua_jax.training.problem import Batch, Data, LoopSettings, Scalars, Sum, Terms, means
from bua_jax.training.weighting import SCALES, Balancer

_CHUNK = 1024  # supervised tokens per vocabulary projection of a device, about
UNITS = {"task": ("none", *TASKS), "round": ("none", *ROUND_KINDS)}
"""What can have a weight of its own (`balancer_unit`), by id; 0 is none."""
_IDS = {"task": "tasks", "round": "kinds"}  # the batch's array of them
_SCALARS = {"task": "task", "round": "kind"}  # what their losses are called

DialogueSums = metrics.Collection.create(
    kind=means(len(ROUND_KINDS) + 1).from_output("kind"),  # of tokens, by round kind
    task=means(len(TASKS) + 1).from_output("task"),  # of dialogues, by task
    loss=means(1).from_output("loss"),  # the stage's own, but for the mean over kinds
    tokens=Sum.from_output("tokens"),
    supervised=Sum.from_output("supervised"),
)


@dataclass(frozen=True)
class TrainSettings(LoopSettings):
    """How a stage is trained."""

    loss: str = "round_balanced"
    length_beta: float = 1.0
    kind_weights: str = ""
    balancer: str = "equal"
    balancer_unit: str = "task"  # task or round (its kind): what has a loss and a weight of its own
    balancer_scale: str = "own"  # key of `weighting.SCALES`


def kind_weights(text: str) -> np.ndarray:
    """float[kinds + 1], by id, of `KIND=WEIGHT,...`; the others weigh 1. Raises `ConfigError`."""
    weights = np.ones(len(ROUND_KINDS) + 1)
    for item in filter(None, text.split(",")):
        kind, _, value = item.partition("=")
        if kind not in ROUND_KINDS:
            raise ConfigError(f"{kind!r} is none of the round kinds {', '.join(ROUND_KINDS)}")
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= LARGEST_REAL:
            raise ConfigError(f"{kind}={value!r}: expected a finite number from 0")
        weights[kind_id(kind)] = weight
    if not weights[1:].any():
        raise ConfigError("all round kinds weigh 0, so there is nothing to train on")
    return weights


def as_good_as_untrained(text: str) -> dict[str, float]:
    """The kinds that static weights leave less than a thousandth of the largest, with their weights."""
    weights = kind_weights(text)[1:]
    small = weights < weights.max() / 1000
    return {kind: float(w) for kind, w, s in zip(ROUND_KINDS, weights, small, strict=True) if s}


def batch_losses(
    model: Aligned,
    variables: Mapping[str, Any],
    batch: Batch,
    plan: PackingPlan,
    loss: TokenLoss | None = None,
) -> tuple[jax.Array, losses.DialogueLosses]:
    """nll float32[B, T], or another loss of the supervised tokens, and the loss of every dialogue."""
    rows = max(1, len(batch["tokens"]) // row_shards())  # of a device
    chunks = -(-plan.max_supervised * rows // _CHUNK)
    chunk = -(-plan.max_supervised // chunks)  # equal chunks waste less than full ones
    size = {"room": plan.max_supervised, "chunk": chunk}
    nll = supervised_nll(model, variables, batch, loss=loss, **size)
    return nll, losses.dialogue_losses(nll, batch["round_ids"], batch["segments"], batch["tasks"])


def counted(settings: TrainSettings, batch: Batch) -> losses.Counted:
    """What the tokens of a whole batch count in the stage's loss."""
    return losses.count(
        settings.loss,
        batch["round_ids"],
        batch["segments"],
        batch["kinds"],
        beta=settings.length_beta,
        static=kind_weights(settings.kind_weights),
    )


def statistics(
    nll: jax.Array, per_dialogue: losses.DialogueLosses, counts: losses.Counted, batch: Batch
) -> Any:
    """The batch's `DialogueSums`."""
    own = losses.numerator(nll, counts), jnp.sum(counts.denominators)
    return DialogueSums.single_from_model_output(
        loss=jnp.stack(own)[:, None],
        kind=losses.by_id(nll, batch["kinds"], len(ROUND_KINDS)),
        task=losses.by_task(per_dialogue, len(TASKS)),
        tokens=jnp.sum(batch["segments"] > 0),
        supervised=jnp.sum(batch["round_ids"] > 0),
    )


def make_evaluation(
    model: Aligned, plan: PackingPlan, settings: TrainSettings, loss: TokenLoss | None = None
) -> Callable[..., Any]:
    """(variables, batch) -> `DialogueSums`; to be jitted once."""

    def evaluate_batch(variables: Mapping[str, Any], batch: Batch) -> Any:
        nll, per_dialogue = batch_losses(model, variables, batch, plan, loss)
        return statistics(nll, per_dialogue, counted(settings, batch), batch)

    return evaluate_batch


def evaluate(
    evaluate_batch: Callable[..., Any],
    variables: Mapping[str, Any],
    validation: Sequence[Batch],
    settings: TrainSettings,
) -> Scalars:
    """Validation losses: per round kind, per task and in total."""
    sums = jax.device_get([evaluate_batch(variables, batch) for batch in validation])
    return named(jax.tree.map(lambda *x: np.sum(x, axis=0), *sums), "validation", settings)


def named(sums: Any, prefix: str, settings: TrainSettings) -> Scalars:
    """Mean loss by round kind and task, and over all dialogues, of `DialogueSums` on the host.

    `loss` is the stage's own with all units weighing 1; the mean over kinds is of all batches' tokens.
    """
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
    scalars[f"{prefix}/loss"] = float(sums.loss.total[0] / max(sums.loss.count[0], 1e-30))
    if losses.LOSSES[settings.loss].over == "kinds":
        static = np.where(sums.kind.count > 0, kind_weights(settings.kind_weights), 0)
        whole = np.nansum(static * kinds) / max(static.sum(), 1e-30)
        scalars[f"{prefix}/loss"] = float(whole)
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
    token_loss: TokenLoss | None = None  # in place of the negative log-likelihood

    objective, items = "loss", "tokens"
    advice = "Check the dialogues with: python -m bua_jax.annotate --show=3."

    @property
    def units(self) -> tuple[str, ...]:
        return UNITS[self.settings.balancer_unit]

    @functools.cached_property
    def balancer(self) -> Balancer:
        return SCALES[self.settings.balancer_scale].of(table.balancer(self.settings.balancer))

    @property
    def feed(self) -> Mapping[str, int]:
        return {"threads": THREADS, "workers": self.plan.workers}

    def data(self) -> Data:
        return Batches(self.records, self.plan, self.settings.seed)

    def prepared(self, batch: Batch) -> Batch:
        return {**batch, **counted(self.settings, batch)._asdict()}

    def validated(self, scalars: Scalars) -> np.ndarray:
        of = f"validation/{_SCALARS[self.settings.balancer_unit]}"
        return np.array([scalars.get(f"{of}/{name}", np.nan) for name in self.units])

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        nll, per_dialogue = batch_losses(self.model, variables, batch, self.plan, self.token_loss)
        counts = losses.Counted(batch["shares"], batch["denominators"])
        ids = batch[_IDS[self.settings.balancer_unit]]
        totals = [losses.numerator(nll, counts, weights[ids]) for weights in rows]
        return jnp.stack(totals), Terms(
            jnp.sum(counts.denominators),
            losses.by_unit(nll, counts, ids, len(self.units)),
            statistics(nll, per_dialogue, counts, batch),
        )

    def empty(self) -> Any:
        return DialogueSums.empty()

    def scalars(self, sums: Any) -> Scalars:
        share = {"train/supervised_share": float(sums.supervised.total / sums.tokens.total)}
        return {**named(sums, "train", self.settings), **share}

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        own = plan_for(self.validation_records, self.plan)
        of_batch = jax.jit(
            make_evaluation(self.model, own, self.settings, self.token_loss),
            out_shardings=sharding.replicated(mesh),
        )
        data = [
            sharding.shard_batch(batch, mesh)
            for batch in fixed_batches(self.validation_records, own)
        ]
        return lambda variables: evaluate(of_batch, variables, data, self.settings)

    def decayed(self, tree: Any) -> Any:
        return optimizer.decayed(tree)
