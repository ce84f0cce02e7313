"""What packing is worth here: how full rows are, and stage-2 steps packed beside padded."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.base_files import NANO
from bua_jax.benchmarks.step import OurStep
from bua_jax.benchmarks.timing import alternate, ratios
from bua_jax.benchmarks.train import Shape, random_variables
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.events.simulate import simulated_store
from bua_jax.feed.batches import Batches, one_per_row
from bua_jax.feed.packing import PackingPlan, plan_packing
from bua_jax.feed.records import Encoding, token_records
from bua_jax.interop.tokenizer import load_tokenizer
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.pipeline.dialogues import SETS, portions, write_portion, writer_of
from bua_jax.pipeline.stages import stage_parts, train_settings
from bua_jax.pipeline.windows import draw_set
from bua_jax.planning.step import abstract_model

_ROW_LENGTHS = (1024, 2048, 4096, 8192)
_POPULATION = (60, 40, 1)  # people, days, seed of the dialogues


def stage2_records(config: ConfigDict, sizes: Qwen2Config, dialogues: int) -> list[TokenRecord]:
    """Stage-2 dialogues of a simulated population, in nano's tokens."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.windows.train = dialogues
    store = simulated_store(*_POPULATION)
    sets = {name: draw_set(config.windows, store, name) for name in SETS}
    tokenizer = load_tokenizer(NANO, sizes.vocab_size)
    writer, model = writer_of(config, store), config.model
    shape = (model.soft_tokens, model.recall, config.stage2.row_length)
    encoding = Encoding(store, tokenizer, *shape)
    wanted = [one for one in portions(config, sets) if (one.stage, one.split) == (2, "train")]
    written = [dialogue for one in wanted for dialogue in write_portion(config, writer, one)[0]]
    return token_records(written, encoding)


def packing_fill(records: Sequence[TokenRecord], seed: int) -> list[dict[str, float]]:
    """The share of rows of 1,024 to 8,192 tokens that is not padding."""
    mean = float(np.mean([len(record.tokens) for record in records]))
    found = []
    for length in _ROW_LENGTHS:
        plan = plan_packing(records, row_length=length, batch_dialogues=1, seed=seed)
        row = {"row_length": length, "mean_dialogues": length / mean, "fill": plan.fill}
        found.append(row)
    return found


def _padded(
    records: Sequence[TokenRecord], plan: PackingPlan, count: int, seed: int
) -> tuple[PackingPlan, dict[str, np.ndarray]]:
    """(shapes, batch) of `count` drawn dialogues, one to a row as long as the longest of all."""
    longest = max(len(record.tokens) for record in records)
    rows = one_per_row(records, longest)
    shapes = dataclasses.replace(
        plan,
        row_length=longest,
        event_length=rows["events"].shape[1],
        rows_per_batch=count,
        dialogues_per_row=1.0,
        max_supervised=int(np.max(np.sum(rows["round_ids"] > 0, axis=1))),
        fill=float(np.mean([len(record.tokens) for record in records])) / longest,
    )
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    return shapes, {key: value[chosen] for key, value in rows.items()}


def compare_packing(
    shape: Shape, records: Sequence[TokenRecord], repeats: int
) -> list[dict[str, Any]]:
    """Stage-2 dialogues per second: packed as in training, and one to a row as long as the longest.

    Encoder and projector take part. Both batches have as many dialogues as the model's config says,
    the packed one on average.
    """
    config, stage = shape.config, shape.config.stage2
    plan = plan_packing(
        records,
        row_length=stage.row_length,
        batch_dialogues=stage.batch_dialogues,
        seed=config.seed,
        rows_multiple=shape.microbatches,
    )
    packed = next(Batches(records, plan, config.seed))
    several = min(stage.batch_dialogues, len(records)) // shape.microbatches * shape.microbatches
    padded_plan, padded = _padded(records, plan, several, config.seed)
    soft = load_tokenizer(NANO, shape.sizes.vocab_size).soft
    model, shapes = abstract_model(config, shape.sizes, soft)
    variables = jax.tree.map(jnp.asarray, random_variables(shapes, 0))
    settings = dataclasses.replace(
        train_settings(config, "stage2", plan), microbatches=shape.microbatches
    )
    runs: list[Callable[[], Any]] = []
    rows: list[dict[str, Any]] = []
    for name, one, batch in (
        ("packed", plan, packed),
        ("padded", padded_plan, padded),
    ):
        step = OurStep(model, variables, stage_parts(config, "stage2"), one, settings)
        runs.append(functools.partial(step, step.place(batch)))
        rows.append(
            {
                "batch": name,
                "rows": one.rows_per_batch,
                "row_length": one.row_length,
                "fill": one.fill,
                "dialogues": one.rows_per_batch * one.dialogues_per_row,
            }
        )
    seconds = alternate(repeats, *runs)
    each = [np.asarray(s) / row["dialogues"] for s, row in zip(seconds, rows, strict=True)]
    for row, times, per_dialogue in zip(rows, seconds, each, strict=True):
        row["seconds"] = float(np.median(times))
        row["dialogues_per_second"] = float(1 / np.median(per_dialogue))
        row |= ratios(per_dialogue, each[0])
    return rows
