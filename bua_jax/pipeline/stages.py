"""Steps `encoder`, `stage1`, `stage2`, `stage3`, `joint`: one training run each."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bua_jax.alignment.encoder import FILE, encoder_config, encoder_metadata, encoder_settings
from bua_jax.alignment.parts import TRAINED, Parts, assemble, with_trained
from bua_jax.alignment.warm_start import warm_start, word_targets
from bua_jax.basics import begun
from bua_jax.basics.config import Settings, plain
from bua_jax.basics.console import notice, waiting
from bua_jax.basics.files import write_json
from bua_jax.dialogue.prompts import WITHOUT_ENCODER
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import sample_windows, window_arrays
from bua_jax.feed.packing import PackingPlan, plan_packing
from bua_jax.feed.records import Encoding, check_positions, kept_records
from bua_jax.feed.token_file import TokenFile
from bua_jax.interop.huggingface import save_tree, tree_hash
from bua_jax.models.encoders.base import encode_events
from bua_jax.parallel import processes, sharding
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import load_dialogues
from bua_jax.pipeline.steps import Run, recorded, result_of
from bua_jax.pipeline.windows import load_set
from bua_jax.training.balancers import table
from bua_jax.training.dialogues import Dialogues, TrainSettings, as_good_as_untrained
from bua_jax.training.events import segments_of, train_encoder
from bua_jax.training.loop import fit
from bua_jax.training.optimizer import OptimizerSettings, trained_parts
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.weighting import SCALES

_PADDED = 1.2  # rows on the mesh over those with dialogues, from which on it is said


def build_encoder(run: Run) -> dict[str, Any]:
    """Writes encoder/encoder.safetensors and history.json."""
    store = load_store(run)
    config = encoder_config(run.config, store.catalogue)
    how = run.config.execution
    params, records = train_encoder(
        config,
        store,
        encoder_settings(run.config),
        run.folder("encoder"),
        sharding.make_mesh(how.mesh),
        how.profile,
    )
    digest = tree_hash(params)
    metadata = encoder_metadata(config, store.catalogue, store.fingerprint, digest)
    if processes.is_first():
        save_tree(run.folder("encoder") / FILE, params, metadata)
        write_json(run.folder("encoder") / "history.json", records)
        if records:  # they are read back from metrics.jsonl, which may be damaged
            best = min(records, key=lambda record: record["validation_log_loss"])
            notice(
                f"encoder: validation log-loss {best['validation_log_loss']:.3f}, "
                f"accuracy {best['validation_accuracy']:.1%} (epoch {int(best['epoch'])})"
            )
    return {"encoder": digest}


def load_stage(run: Run, stage: str) -> Parts:
    """The model after a finished stage, as it was trained; how it is computed is today's config's."""
    had, how = recorded(run, stage), run.config.execution
    mesh, trained = sharding.own_mesh(how.mesh), run.file(stage, TRAINED)
    return assemble(had.model, how, run.folder("encoder"), had.seed, mesh, trained=trained)


def train_settings(run_config: Settings, stage: str, plan: PackingPlan) -> TrainSettings:
    """The stage's settings with its length from the dry packing."""
    config = run_config[stage]
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
        length_beta=config.length_beta,
        kind_weights=config.kind_weights,
        balancer=config.balancer,
        balancer_unit=config.balancer_unit,
        balancer_scale=config.balancer_scale,
        profile=run_config.execution.profile,
        gradients_every=run_config.execution.gradients_every,
        seed=run_config.seed,
        optimizer=OptimizerSettings(
            **{k: v for k, v in config.items() if k in names},
            unit_gradient=SCALES[config.balancer_scale].unit_gradient,
        ),
    )


def stage_parts(run_config: Settings, stage: str) -> tuple[str, ...]:
    """What the stage trains; without soft tokens there is no projector, and stage 1 trains nothing."""
    names = trained_parts(stage, full_finetuning=run_config[stage].full_finetuning)
    reads_soft = run_config.model.soft_tokens not in WITHOUT_ENCODER
    return tuple(name for name in names if reads_soft or name != "projector")


def _starts_cold(run: Run) -> bool:
    """Whether the first stage's projector is fresh and the config wants it fitted first."""
    model = run.config.model
    brought = (Path(model.adapter) / "projector.safetensors").is_file() if model.adapter else False
    reads_soft = model.soft_tokens not in WITHOUT_ENCODER
    return model.warm_start and reads_soft and not brought


def build_stage(run: Run, stage: str) -> dict[str, Any]:
    """Trains a stage from the one before it; writes checkpoints, metrics and trained.safetensors."""
    config, store = run.config[stage], load_store(run)
    how, model = run.config.execution, run.config.model
    mesh = sharding.make_mesh(how.mesh)
    parts = assemble(model, how, run.folder("encoder"), run.config.seed, mesh)
    attention = parts.model.llm.config.attention  # what "auto" is here
    if processes.is_first():
        begun.found_out(run.folder(stage), "attention", attention, mix=how.mix)
    before, earlier = next((need for need in run.needs if need in STAGE_TABLE), None), 0
    if before is not None:
        parts = with_trained(parts, run.file(before, TRAINED))
        earlier = result_of(run, before)["all_dialogues"]
    elif _starts_cold(run):
        with waiting("projector: fitting it to the words of events"):
            parts = _warm(run, parts, store)
    names = stage_parts(run.config, stage)
    if not names:
        notice(f"{stage}: without soft tokens there is no projector to train; skipped")
        saved = _save(run, stage, _kept(run, before, parts, names), parts)
        return {"skipped": True, "all_dialogues": earlier, "trained": saved}
    shape = (model.soft_tokens, model.recall, config.row_length)
    records = _records(run, stage, Encoding(store, parts.tokenizer, *shape))
    for found in records.values():
        check_positions(found, parts.model.llm.config.max_positions)
    plan = plan_packing(
        records["train"],
        row_length=config.row_length,
        batch_dialogues=config.batch_dialogues,
        seed=run.config.seed,
        rows_multiple=config.microbatches,
        workers=how.feed_workers,
    )
    settings = train_settings(run.config, stage, plan)
    _say_plan(
        stage,
        len(records["train"]),
        plan,
        settings,
        sharding.rows_on(mesh, plan.rows_per_batch, config.microbatches),
    )
    with jax.set_mesh(mesh):
        trained, measured = fit(
            Dialogues(parts.model, plan, settings, records["train"], records["validation"], stage),
            parts.variables,
            names,
            settings,
            run.folder(stage),
            mesh,
            {"stage": stage, **parts.identity, "settings": _identity(config)},
        )
    count = len(records["train"])
    return {
        **measured,
        "dialogues": count,
        "all_dialogues": earlier + count,
        "attention": attention,
        "trained": _save(run, stage, {**_kept(run, before, parts, names), **trained}, parts),
    }


def _identity(config: Any) -> Any:
    """A stage's settings, and the hash of its balancer where that is a file."""
    return {**plain(config), **table.identity(config.balancer)}


def _say_plan(
    stage: str, dialogues: int, plan: PackingPlan, settings: TrainSettings, on_mesh: int
) -> None:
    """Prints how long the stage is; and where devices have little to do: on_mesh rows lie on them."""
    notice(
        f"{stage}: {dialogues} dialogues in {plan.steps_per_epoch:.0f} steps per epoch, "
        f"{plan.rows_per_batch} rows of {plan.row_length} tokens ({plan.fill:.0%} filled), "
        f"{settings.total_steps} steps"
    )
    for kind, weight in as_good_as_untrained(settings.kind_weights).items():
        notice(
            f"{stage}: {kind} weighs {weight:g} by kind_weights, so it is as good as not trained"
        )
    if on_mesh > _PADDED * plan.rows_per_batch:
        notice(
            f"{stage}: the mesh computes {on_mesh} rows a step, {on_mesh - plan.rows_per_batch} of them "
            "empty. Fewer devices are as fast, or a batch that fills them: raise "
            f"--config.{stage}.batch_dialogues, or lower --config.{stage}.row_length (both are part of "
            "what is trained)."
        )


def _records(run: Run, stage: str, encoding: Encoding) -> dict[str, TokenFile]:
    """The stage's dialogues as tokens, by split, written once."""
    dialogues = load_dialogues(run, stage, encoding.store)
    with processes.first_alone():
        return {
            split: kept_records(
                run.folder(stage) / f"tokens_{split}.arrow",
                [d for d in dialogues if d.split == split],
                encoding,
            )
            for split in ("train", "validation")
        }


def _save(run: Run, stage: str, trained: dict[str, Any], parts: Parts) -> str:
    """Writes trained.safetensors, by one process; returns the hash of what is in it."""
    trained = sharding.to_host(trained)
    if processes.is_first():
        save_tree(run.folder(stage) / TRAINED, trained, parts.identity)
    return tree_hash(trained)


def _warm(run: Run, parts: Parts, store: EventStore) -> Parts:
    """A fresh projector fitted to the words of training users' events."""
    whole = load_set(run, "train", store).windows
    settings = run.config.methods.bua
    windows = sample_windows(whole, settings.warm_windows, run.config.seed)
    arrays = window_arrays(store, windows, length=run.config.windows.prediction_history)
    fields, segments = arrays["fields"], segments_of(arrays["n_events"], arrays["fields"].shape[1])
    positions = np.broadcast_to(np.arange(segments.shape[1]), segments.shape)
    assert parts.model.encoder is not None
    encode = jax.jit(functools.partial(encode_events, parts.model.encoder))
    output = encode(parts.variables["encoder"], fields, segments, positions)
    real = segments > 0
    states = output.items if run.config.model.soft_tokens == "item" else output.states
    targets = word_targets(
        sharding.to_host(parts.variables["base"]["embed_tokens"]["embedding"]).astype(np.float32),
        parts.tokenizer,
        store.catalogue,
        fields[real],
        np.asarray(output.logits)[real],
        recall=parts.model.recall > 0,
    )
    fitted = functools.partial(
        warm_start,
        states=np.asarray(states)[real],
        steps=settings.warm_steps,
        batch=settings.warm_batch,
        peak_lr=settings.warm_lr,
    )
    params = dict(parts.variables["projector"])
    second = params.pop("recalled", None)
    params, explained = fitted(params, targets=targets[0])
    notice(f"projector: starts from words, {explained:.0%} of their variance explained")
    if second is not None:
        second, explained = fitted(second, targets=targets[1])
        notice(f"second soft tokens: {explained:.0%} of what the encoder expects explained")
        params["recalled"] = second
    return dataclasses.replace(parts, variables={**parts.variables, "projector": params})


def _kept(run: Run, before: str | None, parts: Parts, trained: tuple[str, ...]) -> dict[str, Any]:
    """What the stage does not train of projector, adapter, and a base that the stage before it trained."""
    tuned = before is not None and "base" in stage_parts(recorded(run, before), before)
    kept = ("projector", "adapter", *["base"] * tuned)
    return {n: parts.variables[n] for n in kept if n not in trained}
