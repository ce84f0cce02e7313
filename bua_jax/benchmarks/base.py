"""What a frozen base costs in each of its types: memory, error, speed."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks.timing import alternate, ratio
from bua_jax.dialogue.prompts import encode_dialogue
from bua_jax.dialogue.tasks import Writer, stage2_dialogue
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import history, prediction_windows
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models import lora, quantization
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
