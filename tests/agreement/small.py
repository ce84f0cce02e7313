"""A tiny stage 2 on made dialogues, and what `plain` needs to compute the same."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bua_jax.agreement import ours, plain
from bua_jax.agreement.ours import Stage
from bua_jax.interop import huggingface
from bua_jax.training.dialogues import TrainSettings
from bua_jax.training.optimizer import OptimizerSettings
from tests.support import tiny

# An untied head, so that a wrongly tied one is another; the rate's size is of no matter to what is compared.
CONFIG = dataclasses.replace(tiny.QWEN, tie_word_embeddings=False, rope_theta=1e4)
STOP = 1  # ends each answer of `tiny.records`
SETTINGS = TrainSettings(
    length_beta=0.5,
    kind_weights="summary=0.5,prediction=2",
    optimizer=OptimizerSettings(peak_lr=1e-2, clip_norm=0.05, rates={"projector": 0.5}),
)


def stage(dtype: str = "float32", settings: TrainSettings = SETTINGS) -> Stage:
    """Random variables; the base alone is of that type."""
    model, variables = tiny.model(dataclasses.replace(CONFIG, dtype=dtype))
    variables = {n: tree if n == "base" else _float32(tree) for n, tree in variables.items()}
    return Stage(model, variables, ("projector", "adapter"), settings, STOP)


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def batch_of(one: Stage, n: int = 6) -> dict[str, Any]:
    """Packed rows, with the encoder's states."""
    rows = dict(tiny.rows_of(tiny.records(n), 60, 40))
    return rows | ours.states(one, rows)


def base_of(one: Stage, folder: Path) -> dict[str, Any]:
    """The base by Hugging Face's names, read from a file of ours."""
    huggingface.save(folder, one.model.llm.config, one.variables["base"])
    return plain.read_safetensors(folder / "model.safetensors")
