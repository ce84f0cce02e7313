"""A whole aligned model of a few thousand parameters, and random dialogues for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS
from bua_jax.feed.packing import PackingPlan, plan_packing
from bua_jax.models import lora
from bua_jax.models.aligned import Aligned
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.models.lora import LoraConfig
from bua_jax.models.projector import Projector
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

SOFT = 3
QWEN = Qwen2Config(
    vocab_size=48,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_positions=256,
)
LORA = LoraConfig(rank=2, alpha=4.0)
ENCODER = EncoderConfig(
    kind="behavegpt", num_behaviours=5, slots_per_day=24, dim=2, num_layers=1, num_heads=2
)


def model(config: Qwen2Config = QWEN) -> tuple[Aligned, dict[str, Any]]:
    """The model and random variables (shapes from the modules, values from numpy: no compiling)."""
    aligned = Aligned(
        Qwen2(config, LORA), build(ENCODER), Projector(config.hidden_size), "sequence", SOFT
    )
    key, ones = jax.random.key(0), jnp.ones((1, 4), jnp.int32)
    fields = jnp.ones((1, 4, 4), jnp.int32)

    def shapes() -> dict[str, Any]:
        base = aligned.llm.init(key, ones)["params"]
        return {
            "base": base,
            "encoder": aligned.encoder.init(key, fields, ones, ones)["params"],
            "projector": aligned.projector.init(key, jnp.ones((1, ENCODER.state_dim)))["params"],
            "adapter": lora.init(key, LORA, config),
        }

    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = rng.normal(size=leaf.shape)
        name = path[-1].key
        if name == "scale":
            values = 1 + 0.1 * noise
        elif name in ("bias", "embedding"):
            values = 0.3 * noise
        else:  # kernels, and a and b of the adapter: both non-zero, so that both have a gradient
            values = 0.5 * noise * leaf.shape[-2] ** -0.5
        return jnp.asarray(values, leaf.dtype)

    return aligned, jax.tree_util.tree_map_with_path(draw, jax.eval_shape(shapes))


def records(n: int, seed: int = 0) -> list[TokenRecord]:
    """Dialogues of one to three rounds about two to six events; answers follow the behaviours."""
    rng = np.random.default_rng(seed)
    return [_record(rng) for _ in range(n)]


def _record(rng: np.random.Generator) -> TokenRecord:
    length = int(rng.integers(2, 7))
    sizes = (7, ENCODER.slots_per_day, ENCODER.num_places, ENCODER.num_behaviours)
    events = np.stack([rng.integers(0, size, length) for size in sizes], 1).astype(np.int32)
    task = int(rng.integers(1, len(TASKS) + 1))
    tokens: list[int] = [2, *[SOFT] * length, 4]
    round_ids = [0] * len(tokens)
    kinds = [0] * len(tokens)
    for number in range(1, int(rng.integers(1, 4)) + 1):
        question = rng.integers(5, 20, int(rng.integers(1, 4))).tolist()
        if number == 3:
            question = [SOFT, *question]  # the last event again
        answer = [*(20 + events[: int(rng.integers(1, 8)), 3]).tolist(), 1]
        kind = int(rng.integers(1, len(ROUND_KINDS) + 1))
        tokens += question + answer
        round_ids += [0] * len(question) + [number] * len(answer)
        kinds += [0] * len(question) + [kind] * len(answer)
    soft_index = np.zeros(len(tokens), int)
    placeholders = np.flatnonzero(np.asarray(tokens) == SOFT)
    soft_index[placeholders] = [*range(length), length - 1][: len(placeholders)]
    as_int = [np.asarray(x, np.int32) for x in (tokens, round_ids, kinds, soft_index)]
    return TokenRecord(*as_int, events, task)


def plan(of: Sequence[TokenRecord], **changes: Any) -> PackingPlan:
    settings = {"row_length": 64, "batch_dialogues": 8, "seed": 0} | changes
    return plan_packing(of, **settings)


def relative(a: Any, b: Any) -> float:
    """Norm of the difference over the norm, over all leaves."""

    def norm(tree: Any) -> float:
        return float(np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(tree))))

    return norm(jax.tree.map(lambda x, y: np.float64(x) - np.float64(y), a, b)) / norm(b)


def rows_of(
    records: Sequence[TokenRecord], row_length: int, events: int
) -> Mapping[str, np.ndarray]:
    """Packs by hand: as many records to a row as fit, in their order."""
    rows: list[list[TokenRecord]] = [[]]
    for record in records:
        if sum(len(r.tokens) for r in rows[-1]) + len(record.tokens) > row_length:
            rows.append([])
        rows[-1].append(record)
    keys = ("tokens", "segments", "positions", "round_ids", "kinds", "tasks", "soft_index")
    batch = {k: np.zeros((len(rows), row_length), np.int32) for k in keys}
    batch["events"] = np.zeros((len(rows), events, 4), np.int32)
    batch |= {
        k: np.zeros((len(rows), events), np.int32) for k in ("event_segments", "event_positions")
    }
    for i, row in enumerate(rows):
        at = at_event = 0
        for number, record in enumerate(row, 1):
            part = slice(at, at := at + len(record.tokens))
            batch["tokens"][i, part] = record.tokens
            batch["segments"][i, part] = number
            batch["positions"][i, part] = np.arange(len(record.tokens))
            batch["round_ids"][i, part] = record.round_ids
            batch["kinds"][i, part] = record.kinds
            batch["tasks"][i, part] = record.task
            batch["soft_index"][i, part] = record.soft_index + at_event
            part = slice(at_event, at_event := at_event + len(record.events))
            batch["events"][i, part] = record.events
            batch["event_segments"][i, part] = number
            batch["event_positions"][i, part] = np.arange(len(record.events))
    return batch
