"""Steps `stage1`, `stage2`, `stage3`, `joint`: one training run each."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from bua_jax.console import notice
from bua_jax.feed.packing import PackingPlan, plan_packing
from bua_jax.feed.records import token_records
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import load_dialogues
from bua_jax.pipeline.model import Parts, assemble, save_trained, with_trained
from bua_jax.pipeline.steps import Run, plain
from bua_jax.training import sharding
from bua_jax.training.loop import TrainSettings, train
from bua_jax.training.optimizer import OptimizerSettings, print_groups, trained_groups

TRAINED = "trained.safetensors"


def trained_path(run: Run, stage: str) -> Path:
    """Projector and adapter after a stage."""
    return run.folder(stage) / TRAINED


def load_stage(run: Run, stage: str) -> Parts:
    """The model after a finished stage."""
    parts = assemble(run.config.model, run.folder("encoder"), run.config.seed)
    return with_trained(parts, trained_path(run, stage))


def previous_stage(run: Run, stage: str) -> str | None:
    """The stage whose result this one starts from; joint training starts from scratch."""
    if stage == "joint":
        return None
    earlier = [f"stage{n}" for n in run.config.stages if n < int(stage[-1])]
    return earlier[-1] if earlier else None


def train_settings(run: Run, stage: str, plan: PackingPlan) -> TrainSettings:
    """The stage's settings with its length from the dry packing."""
    config = run.config[stage]
    total = max(1, math.ceil(config.epochs * plan.steps_per_epoch))
    if config.max_steps:
        total = min(total, config.max_steps)
    names = {f.name for f in dataclasses.fields(OptimizerSettings)}
    return TrainSettings(
        loss=config.loss,
        microbatches=config.microbatches,
        total_steps=total,
        evaluate_every=max(1, total // config.evaluations),
        checkpoint_every=max(1, total // config.checkpoints),
        task_weights=config.task_weights,
        task_weight_alpha=config.task_weight_alpha,
        task_weight_decay=config.task_weight_decay,
        task_weight_floor=config.task_weight_floor,
        seed=run.config.seed,
        optimizer=OptimizerSettings(**{k: v for k, v in config.items() if k in names}),
    )


def build_stage(run: Run, stage: str) -> dict[str, Any]:
    """Trains a stage from the one before it; writes checkpoints, metrics and trained.safetensors."""
    config, store = run.config[stage], load_store(run)
    parts = assemble(run.config.model, run.folder("encoder"), run.config.seed)
    before = previous_stage(run, stage)
    if before is not None:
        parts = with_trained(parts, trained_path(run, before))
    groups = trained_groups(stage, full_finetuning=config.full_finetuning)
    if run.config.model.soft_tokens == "none":
        groups = tuple(g for g in groups if g != "projector")
    if not groups:
        notice(f"{stage}: without soft tokens there is no projector to train; skipped")
        save_trained(trained_path(run, stage), _kept(parts, groups), parts.identity)
        return {"skipped": True}
    print_groups(parts.variables, groups, stage)
    dialogues = load_dialogues(run, stage, store)
    records = {
        split: token_records(
            [d for d in dialogues if d.split == split],
            store,
            parts.tokenizer,
            soft_tokens=run.config.model.soft_tokens,
            row_length=config.row_length,
        )
        for split in ("train", "validation")
    }
    plan = plan_packing(
        records["train"],
        row_length=config.row_length,
        batch_dialogues=config.batch_dialogues,
        seed=run.config.seed,
    )
    settings = train_settings(run, stage, plan)
    notice(
        f"{stage}: {len(records['train'])} dialogues in {plan.steps_per_epoch} steps per epoch, "
        f"{plan.rows_per_batch} rows of {plan.row_length} tokens ({plan.fill:.0%} filled), "
        f"{settings.total_steps} steps"
    )
    mesh = sharding.make_mesh(run.config.mesh)
    with jax.set_mesh(mesh):
        trained, measured = train(
            parts.model,
            parts.variables,
            groups,
            records["train"],
            records["validation"],
            plan,
            settings,
            run.folder(stage),
            {"stage": stage, **parts.identity, "settings": plain(config)},
            mesh,
            stage,
        )
    kept = {**_kept(parts, groups), **jax.device_get(trained)}
    save_trained(trained_path(run, stage), kept, parts.identity)
    return {**measured, "dialogues": len(records["train"])}


def _kept(parts: Parts, groups: tuple[str, ...]) -> dict[str, Any]:
    """Projector and adapter as they are, for groups that the stage does not train."""
    return {g: parts.variables[g] for g in ("projector", "adapter") if g not in groups}
