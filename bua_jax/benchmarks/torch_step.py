"""The peer of `bench train`: a LoRA step of transformers + PEFT, in a process without jax.

The same weights, adapter, tokens, loss, AdamW and clipping as `step`; the base is in the type of
its files and PEFT keeps the adapter in float32. Attention is torch's `scaled_dot_product_attention`,
causal without a mask, since rows hold one dialogue each.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks.timing import peak_mib
from bua_jax.benchmarks.worker import serve


def _losses(model: Any, base: Any, supervised: int) -> dict[str, Callable[[Any], Any]]:
    """(rows of tokens) -> loss of their last `supervised`: logits everywhere (plain), or only there."""
    import torch

    def plain(part: Any) -> Any:
        labels = part.clone()
        labels[:, :-supervised] = -100
        return model(input_ids=part, labels=labels, use_cache=False).loss

    def at_supervised(part: Any) -> Any:
        states = base.model(input_ids=part, use_cache=False).last_hidden_state
        logits = base.lm_head(states[:, -supervised - 1 : -1])
        labels = part[:, -supervised:]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    return {"plain": plain, "supervised": at_supervised}


def build(job: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Calls "step" (-> loss), "compilations", "peak_mib", "device_peak_mib".

    job: as in `train.peer_job`. Raises `ConfigError` without torch, or on a GPU that torch can't use.
    """
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # compiling is measured too
    try:
        import peft
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(f"{error}; pip install torch transformers peft") from error
    if job["platform"] == "gpu" and not torch.cuda.is_available():
        raise ConfigError("this torch cannot use the GPU; install its CUDA build")
    device = "cuda" if job["platform"] == "gpu" else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA's pool has
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")  # as in JAX
    folder = Path(job["folder"])
    base = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation="sdpa"
    )
    model = peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    model = model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    rates = {"lr": job["learning_rate"], "weight_decay": job["weight_decay"]}
    optimizer = torch.optim.AdamW(trained, **rates, fused=True)
    tokens = torch.from_numpy(np.load(folder / "tokens.npy")).long().to(device)
    kind = "supervised" if job["supervised_logits"] else "plain"
    loss_of: Any = _losses(model, base, job["supervised"])[kind]
    if job["compiled"]:
        loss_of = torch.compile(loss_of, dynamic=False)
    # microbatch m has rows m, m + M, ..., as ours
    parts = [tokens[m :: job["microbatches"]] for m in range(job["microbatches"])]

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in parts:
            loss = loss_of(part) / len(parts)  # microbatches have equally many supervised tokens
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, job["clip_norm"])
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(total)

    def compilations() -> int:
        return torch._dynamo.utils.counters["stats"]["unique_graphs"] if job["compiled"] else 0

    def device_peak_mib() -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0

    return {
        "step": step,
        "compilations": compilations,
        "peak_mib": peak_mib,
        "device_peak_mib": device_peak_mib,
    }


if __name__ == "__main__":
    serve(build)
