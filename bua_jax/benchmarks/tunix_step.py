"""The peer of `bench train` that is in JAX too: a LoRA step of tunix, in a process of its own.

tunix' Qwen2 and its loader, qwix' LoRA, and the jitted step of tunix' `PeftTrainer` with its default loss;
the same weights, adapter, tokens, AdamW and clipping as `step`. What tunix leaves as it is by default
stays so: no remat, logits at all positions, one-hot targets, scores of all pairs.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks.step import count_compilations, device_peak_mib
from bua_jax.benchmarks.timing import peak_mib
from bua_jax.benchmarks.worker import serve
from bua_jax.interop import huggingface, peft
from bua_jax.models.qwen2_config import Qwen2Config

_STEP = "jit(_train_step)"  # the name that JAX gives it


def _load_base(folder: Path, sizes: Qwen2Config) -> Any:
    """tunix' Qwen2 with the folder's weights; its q, k and v biases are zero where the folder has none.

    So it stands in for tunix' Llama3, which rotates by its default theta whatever its config says.
    """
    from tunix.models.qwen2 import model, params

    config = model.ModelConfig(
        num_layers=sizes.num_layers,
        vocab_size=sizes.vocab_size,
        embed_dim=sizes.hidden_size,
        hidden_dim=sizes.intermediate_size,
        num_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        num_kv_heads=sizes.num_kv_heads,
        rope_theta=sizes.rope_theta,
        norm_eps=sizes.rms_norm_eps,
        use_tied_embedding=sizes.tie_word_embeddings,
    )
    # the other mode fails where a tensor is missing; this one leaves its shape
    base = params.create_model_from_safe_tensors(str(folder), config, mode="original")
    for layer in base.layers if not sizes.qkv_bias else ():
        for bias in (layer.attn.q_bias, layer.attn.k_bias, layer.attn.v_bias):
            bias.set_value(jnp.zeros(bias.shape))
    return base


def _set_adapter(model: Any, adapter: Mapping[str, Any]) -> None:
    """Sets qwix' LoRA parameters, whose kernels have heads as axes: a [..., rank], b [rank, ...].

    adapter: as `peft.load` gives it, a [layers, in, rank] and b [layers, rank, out].
    """
    for module, projections in adapter["layers"].items():
        owner, kernel = ("attn", "w") if module == "self_attn" else (module, "kernel")
        for name, pair in projections.items():
            for part, values in pair.items():
                for layer, value in zip(model.layers, values, strict=True):
                    projection = getattr(getattr(layer, owner), name)
                    variable = getattr(projection, f"{kernel}_lora_{part}")
                    variable.set_value(value.reshape(variable.shape))


def _model_input(batch: Any) -> dict[str, jax.Array]:
    """What tunix' model takes of a batch in which no token is padding."""
    from tunix.sft import utils

    valid = jnp.ones(batch.input_tokens.shape, bool)
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": utils.build_positions_from_mask(valid),
        "attention_mask": utils.make_causal_attn_mask(valid),
    }


def build(job: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Calls "step" (-> loss), "compilations", "peak_mib", "device_peak_mib".

    job: as in `train.peer_job`. Raises `ConfigError` without tunix, or for another type than float32.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured too
    try:
        import qwix
        from tunix.sft import peft_trainer
    except ImportError as error:
        raise ConfigError(f"{error}; pip install google-tunix") from error
    if job["dtype"] != "float32":  # its adapter has the base's type, so updates would be rounded
        raise ConfigError(f"its adapter would be {job['dtype']}; only float32 is compared")
    folder, microbatches = Path(job["folder"]), job["microbatches"]
    sizes = huggingface.read_config(folder)
    lora, adapter = peft.load(folder / "adapter", sizes)
    base = _load_base(folder, sizes)
    provider = qwix.LoraProvider(
        module_path=f".*({'|'.join(lora.targets)})_proj", rank=lora.rank, alpha=lora.alpha
    )
    model = qwix.apply_lora_to_model(base, provider, **base.get_model_input(), rngs=nnx.Rngs(0))
    _set_adapter(model, adapter)

    tokens = np.load(folder / "tokens.npy")
    answer = np.arange(tokens.shape[1]) >= tokens.shape[1] - job["supervised"]
    # microbatch m has rows m, m + M, ..., as ours
    parts = [tokens[m::microbatches] for m in range(microbatches)]
    batches = [
        jax.device_put(peft_trainer.TrainingInput(part, np.broadcast_to(answer, part.shape)))
        for part in parts
    ]

    optimizer = optax.chain(
        optax.clip_by_global_norm(job["clip_norm"]),
        optax.adamw(job["learning_rate"], weight_decay=job["weight_decay"]),
    )
    accumulated = microbatches if microbatches > 1 else None
    settings = peft_trainer.TrainingConfig(
        eval_every_n_steps=1, gradient_accumulation_steps=accumulated
    )
    trainer = peft_trainer.PeftTrainer(model, optimizer, settings)
    trainer.with_gen_model_input_fn(_model_input)
    compilations = count_compilations(_STEP)
    train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)  # as its train() does

    def step() -> float:
        losses = [train_step(batch)[0] for batch in batches]
        jax.block_until_ready(nnx.state(model, nnx.LoRAParam))
        return float(np.mean([np.asarray(loss) for loss in losses]))

    return {
        "step": step,
        "compilations": compilations,
        "peak_mib": peak_mib,
        "device_peak_mib": device_peak_mib,
    }


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others share the device
    serve(build)
