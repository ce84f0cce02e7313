"""What a base costs in each of its types, and decoding in each type of weights: memory, error, speed."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks.decode import (
    following_logits,
    generate,
    step_seconds,
    stream_bandwidth,
    text_model,
)
from bua_jax.benchmarks.timing import alternate, ratio
from bua_jax.decoding.cache import Weights
from bua_jax.dialogue.prompts import encode_dialogue
from bua_jax.dialogue.tasks import Writer, stage2_dialogue
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history, prediction_windows
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models import lora, quantization
from bua_jax.models.aligned import Aligned
from bua_jax.models.kernels.cpu import WEIGHT_TYPES
from bua_jax.models.lora import LoraConfig
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

KINDS = ("float32", "bfloat16", "int8", "nf4")  # the quantised ones compute in float32


def dialogue_tokens(tokenizer: HFTokenizer, rows: int, length: int) -> np.ndarray:
    """int32[rows, length]: stage-2 dialogues of a small simulated population, one after another."""
    store = simulated_store(12, 20, 5)
    windows, writer = prediction_windows(store, "train"), Writer(store, training_shares(store))
    tokens: list[int] = []
    for row in range(len(windows)):
        dialogue = stage2_dialogue(writer, "prediction", windows, row, "train")
        seen = history(store, dialogue.start, dialogue.end)
        tokens += encode_dialogue(dialogue, seen, tokenizer, soft_tokens="none").tokens.tolist()
        if len(tokens) >= rows * length:
            return np.asarray(tokens[: rows * length], np.int32).reshape(rows, length)
    raise ConfigError(f"{rows} rows of {length} tokens are more than the population has dialogues.")


def _base(folder: Path, kind: str) -> tuple[Qwen2Config, Any]:
    dtype = "bfloat16" if kind == "bfloat16" else "float32"
    config, base = huggingface.load(folder, dtype)
    mode = kind if kind in quantization.MODES else "none"
    return dataclasses.replace(config, remat="full"), quantization.quantize(base, mode)


def compare_base_types(
    folder: Path, *, rows: int, length: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Per type of the base: weights in MiB, predictions against float32, training speed.

    `max_error` (of a log-probability) and `kl` (nats per token, float32 to this type) are over all tokens;
    `tokens_per_second` is a gradient step of a rank-16 adapter on all projections, the median of
    `repeats` rounds in which the types take turns; `speed` is its median ratio to float32 within a round.
    """
    adapter_config = LoraConfig()
    setups, found, reference = {}, {}, np.zeros(0)
    for kind in KINDS:
        config, base = _base(folder, kind)
        model = Qwen2(config, adapter_config)
        adapter = lora.init(jax.random.key(0), adapter_config, config)
        tokenizer = load_tokenizer(folder, config.vocab_size)
        tokens = jnp.asarray(dialogue_tokens(tokenizer, rows, length))

        def loss(adapter, base, tokens, model=model):
            logits: Any = model.apply({"params": base, "lora": adapter}, tokens[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        apply = jax.jit(lambda base, tokens, model=model: model.apply({"params": base}, tokens))
        logits = np.asarray(jax.nn.log_softmax(apply(base, tokens).astype(jnp.float32)))
        reference = logits if kind == "float32" else reference
        size = sum(leaf.on_device_size_in_bytes() for leaf in jax.tree.leaves(base))
        found[kind] = {
            "weights_mib": size / 2**20,
            "max_error": float(np.abs(logits - reference).max()),
            "kl": float((np.exp(reference) * (reference - logits)).sum(-1).mean()),
        }
        setups[kind] = (jax.jit(jax.grad(loss)), adapter, base, tokens)
    runs = [
        lambda setup=setup: jax.block_until_ready(setup[0](*setup[1:])) for setup in setups.values()
    ]
    seconds = dict(zip(setups, alternate(repeats, *runs), strict=True))
    for kind, values in seconds.items():
        found[kind]["tokens_per_second"] = rows * length / float(np.median(values))
        found[kind]["speed"] = ratio(seconds["float32"], values)
    return found


def compare_weight_types(
    folder: Path, *, batches: Sequence[int], prompt: int, new: int, repeats: int
) -> list[dict[str, float | str | None]]:
    """A decoding step with the weights in each of `WEIGHT_TYPES`, by rows decoded at once.

    `mib` is what a step reads of them, `bandwidth_share` that over what memory streams in the step's time,
    `speed` the median over rounds of float32's seconds, prefill taken off, over this type's. They are None
    where noise hides the steps. `kl` in nats per token, float32 to this type, over stage-2 dialogues; None
    for a preset, whose weights are random.
    """
    model, setups = None, {}
    for kind in WEIGHT_TYPES:
        notice(f"weights in {kind}")
        model, setups[kind] = text_model(folder, weight_dtype=kind)
    assert model is not None
    apart = _apart(folder, model, setups, prompt)
    bandwidth, found = stream_bandwidth(), []
    for batch in batches:
        notice(f"decoding {batch} rows at once")
        vocabulary = min(model.llm.config.vocab_size, 1000)
        tokens = np.random.default_rng(batch).integers(0, vocabulary, (batch, prompt), np.int32)
        runs = [
            functools.partial(generate, model, weights, tokens, count)
            for weights in setups.values()
            for count in (new, 1)
        ]
        seconds = np.asarray(alternate(repeats, *runs))
        added = dict(zip(setups, seconds[::2] - seconds[1::2], strict=True))
        for kind, weights in setups.items():
            size = sum(x.nbytes for x in jax.tree.leaves([weights["layers"], weights["head"]]))
            step = step_seconds(added[kind].tolist(), [0.0] * repeats, new - 1)
            row = {"batch": batch, "weights": kind, "mib": size / 2**20}
            row["tokens_per_second"] = batch / step if step else None
            row["bandwidth_share"] = size / step / bandwidth if step else None
            seen = (added["float32"] > 0).all() and (added[kind] > 0).all()
            row["speed"] = ratio(added["float32"], added[kind]) if seen else None
            found.append({**row, "kl": apart[kind]})
    return found


def _apart(
    folder: Path, model: Aligned, setups: Mapping[str, Weights], length: int
) -> dict[str, float | None]:
    """Nats per token by which each set of weights differs from float32's, over 8 rows of dialogues."""
    if not (folder / "tokenizer.json").exists():
        return dict.fromkeys(setups)
    tokenizer = load_tokenizer(folder, model.llm.config.vocab_size)
    tokens = dialogue_tokens(tokenizer, 8, length)

    def logs(weights: Weights) -> jax.Array:
        return jax.nn.log_softmax(following_logits(model, weights, tokens, length - 1))

    sure = logs(setups["float32"])
    divergence = jax.jit(lambda x: (jnp.exp(sure) * (sure - x)).sum(-1).mean())
    return {kind: float(divergence(logs(weights))) for kind, weights in setups.items()}
