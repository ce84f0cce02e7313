"""bua_jax against transformers + PEFT (torch) on a trained run: hidden states, logits, losses, gradients.

The same base directory, the exported adapter, and a batch of the run's own validation dialogues go
through both. The encoder is ours on both sides: what is compared starts at its states.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.bases import base_folder
from bua_jax.alignment.parts import Parts
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.prompts import WITHOUT_ENCODER
from bua_jax.feed.batches import one_per_row
from bua_jax.feed.records import Encoding, token_records
from bua_jax.interop import huggingface, peft
from bua_jax.models import aligned
from bua_jax.models.encoders.base import encode_events
from bua_jax.models.lora import MODULE_OF
from bua_jax.models.qwen2 import Qwen2
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import load_dialogues
from bua_jax.pipeline.finished import finished_stage, load
from bua_jax.pipeline.steps import Run
from bua_jax.training.losses import round_balanced_loss, token_mean_loss

Arrays = dict[str, np.ndarray]
LOSSES = {"round_balanced": round_balanced_loss, "token_mean": token_mean_loss}


def batch_of(run: Path, parts: Parts, dialogues: int) -> Arrays:
    """The first validation dialogues of stage 2, one to a row; values as in `feed.packing`."""
    config = ConfigDict(finished_stage(run)[1]["config"])
    whole = Run(config, run)
    store = load_store(whole)
    chosen = [d for d in load_dialogues(whole, "stage2", store) if d.split == "validation"]
    length = config.stage2.row_length
    shape = (config.model.soft_tokens, config.model.recall, length)
    records = token_records(chosen[:dialogues], Encoding(store, parts.tokenizer, *shape))
    return one_per_row(records, max(len(record.tokens) for record in records))


def ours(parts: Parts, batch: Arrays) -> Arrays:
    """Hidden states by layer (normalised), logits, losses and gradients of this package."""
    llm, variables = parts.model.llm, parts.variables
    config = llm.config
    if config.attention != "cpu":  # others take neither rows of any length nor, of cuDNN's, float32
        config = dataclasses.replace(config, attention="xla")
    model = dataclasses.replace(parts.model, llm=Qwen2(config, llm.lora))
    rows = {key: jnp.asarray(value) for key, value in batch.items()}
    embeddings = aligned.input_embeddings(model, variables, rows)
    states = aligned.hidden(model, variables, embeddings, rows["positions"], rows["segments"])
    found = {"logits": np.asarray(aligned.unembed(model, variables, states))}
    if model.soft_tokens not in WITHOUT_ENCODER:
        assert model.encoder is not None
        seen = rows["events"], rows["event_segments"], rows["event_positions"]
        output = encode_events(model.encoder, variables["encoder"], *seen)
        found["states"] = np.asarray(output.items if model.soft_tokens == "item" else output.states)
    for depth in range(1, config.num_layers):
        cut = Qwen2(dataclasses.replace(config, num_layers=depth), llm.lora)
        layers = jax.tree.map(lambda x, d=depth: x[:d], variables["base"]["layers"])
        ones = jnp.ones_like(variables["base"]["norm"]["scale"])
        base = {**variables["base"], "layers": layers, "norm": {"scale": ones}}
        adapter = jax.tree.map(lambda x, d=depth: x[:d], variables["adapter"]["layers"])
        shallow = dataclasses.replace(model, llm=cut)
        some = {**variables, "base": base, "adapter": {"layers": adapter}}
        part = aligned.hidden(shallow, some, embeddings, rows["positions"], rows["segments"])
        found[f"layer {depth}"] = np.asarray(part)
    trained = {g: variables[g] for g in ("projector", "adapter")}
    room = int(np.max(np.sum(batch["round_ids"] > 0, axis=1)))

    def loss(trained: Mapping[str, Any], name: str) -> jax.Array:
        nll = aligned.supervised_nll(model, {**variables, **trained}, rows, room=room, chunk=room)
        total, count = LOSSES[name](nll, rows["round_ids"], rows["segments"])
        return total / count

    for name in LOSSES:
        value, gradient = jax.jit(jax.value_and_grad(functools.partial(loss, name=name)))(trained)
        found[f"loss {name}"] = np.asarray(value)
        if name == "round_balanced":
            found |= {f"gradient {k}": v for k, v in huggingface.flatten(gradient).items()}
    return found


def _torch() -> tuple[Any, Any, Any]:
    try:
        import peft as peft_
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"parity needs torch, transformers and PEFT ({error}). Install them: "
            "pip install torch transformers peft."
        ) from error
    return torch, transformers, peft_


def _torch_projector(torch: Any, params: Mapping[str, Any], states: Any) -> tuple[Any, Any]:
    """(projected states, parameters by our names): the projector written once more, in torch.

    states [B, S, D] -> [B, S, H], or [B, 2 S, H] where there is a second projection.
    """
    leaves = {
        name: torch.tensor(np.asarray(value), requires_grad=True)
        for name, value in huggingface.flatten(params).items()
    }
    functional = torch.nn.functional

    def project(view: str) -> Any:
        norm = leaves[f"{view}norm/scale"], leaves[f"{view}norm/bias"]
        x = functional.layer_norm(states, states.shape[-1:], *norm, eps=1e-6)
        x = x @ leaves[f"{view}hidden/kernel"] + leaves[f"{view}hidden/bias"]
        x = functional.gelu(x, approximate="tanh")
        return x @ leaves[f"{view}out/kernel"] + leaves[f"{view}out/bias"]

    views = ["", "recalled/"] if "recalled" in params else [""]
    return torch.cat([project(view) for view in views], 1), leaves


def _mean_losses(torch: Any, nll: Any, round_ids: np.ndarray) -> dict[str, Any]:
    """Eq. 5 and the token mean, dialogue by dialogue in plain loops."""
    dialogues = []
    for values, rounds in zip(nll, torch.tensor(round_ids), strict=True):
        means = [values[rounds == r].mean() for r in sorted(set(rounds.tolist()) - {0})]
        if means:
            dialogues.append(torch.stack(means).mean())
    supervised = torch.tensor(round_ids) > 0
    return {
        "round_balanced": torch.stack(dialogues).mean(),
        "token_mean": nll[supervised].mean(),
    }


def theirs(parts: Parts, base: Path, batch: Arrays, states: np.ndarray | None) -> Arrays:
    """The same of transformers + PEFT, from the base's directory and an exported adapter."""
    torch, transformers, peft_ = _torch()
    shape = parts.model.llm.lora
    assert shape is not None
    with tempfile.TemporaryDirectory() as folder:
        adapter = parts.variables["adapter"]
        peft.save(folder, adapter, shape, base=str(base), base_hash="", card="")
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = peft_.PeftModel.from_pretrained(model, folder, is_trainable=True).eval()
    tokens = torch.tensor(batch["tokens"]).long()
    embeddings = model.get_input_embeddings()(tokens)
    leaves: dict[str, Any] = {}
    if states is not None:
        seen = torch.tensor(states)
        if parts.model.soft_tokens == "pooled":
            last = torch.tensor(batch["event_segments"]).sum(1) - 1
            seen = seen[torch.arange(len(last)), last][:, None].expand_as(seen)
        projected, leaves = _torch_projector(torch, parts.variables["projector"], seen)
        index = torch.tensor(batch["soft_index"]).long()[:, :, None]
        index = torch.where(tokens[:, :, None] == parts.model.soft_id, index, 0)
        index = torch.where(index < 0, states.shape[1] - 1 - index, index)
        vectors = torch.gather(projected, 1, index.expand(-1, -1, projected.shape[-1]))
        embeddings = torch.where(tokens[:, :, None] == parts.model.soft_id, vectors, embeddings)
    out = model(
        inputs_embeds=embeddings,
        attention_mask=torch.tensor(batch["segments"] > 0).long(),
        output_hidden_states=True,
    )
    log_p = torch.log_softmax(out.logits[:, :-1], -1)
    nll = -torch.gather(log_p, 2, tokens[:, 1:, None])[..., 0]
    losses = _mean_losses(torch, nll, batch["round_ids"][:, 1:])
    losses["round_balanced"].backward()
    found = {"logits": out.logits.detach().numpy()}
    eps = parts.model.llm.config.rms_norm_eps
    for depth in range(1, parts.model.llm.config.num_layers):
        raw = out.hidden_states[depth].detach().numpy()
        found[f"layer {depth}"] = raw / np.sqrt((raw**2).mean(-1, keepdims=True) + eps)
    found |= {f"loss {name}": value.detach().numpy() for name, value in losses.items()}
    found |= {f"gradient projector/{name}": leaf.grad.numpy() for name, leaf in leaves.items()}
    layers = model.base_model.model.model.layers
    for name in shape.targets:
        pairs = [getattr(getattr(layer, MODULE_OF[name]), f"{name}_proj") for layer in layers]
        for part in ("A", "B"):
            weights = [getattr(pair, f"lora_{part}")["default"].weight.grad for pair in pairs]
            key = f"gradient adapter/layers/{MODULE_OF[name]}/{name}_proj/{part.lower()}"
            found[key] = np.stack([weight.numpy().T for weight in weights])
    if shape.tokens:
        trained = model.get_input_embeddings().token_adapter.trainable_tokens_delta["default"]
        found["gradient adapter/rows"] = trained.grad.numpy()
    return found


def differences(one: Arrays, two: Arrays, valid: np.ndarray) -> dict[str, float]:
    """What to hold against the tolerance; hidden states and logits at `valid` tokens [B, T] only.

    Layers and logits: largest absolute difference; kl: mean over tokens, in nats; top1: share of tokens
    whose best logit differs; losses: absolute; gradients: norm of the difference over the norm.
    """
    found: dict[str, float] = {}
    for name in (name for name in one if name in two):
        x, y = np.float64(one[name]), np.float64(two[name])
        if name.startswith("gradient"):
            found[name] = float(np.linalg.norm(x - y) / max(float(np.linalg.norm(y)), 1e-12))
        elif name.startswith("loss"):
            found[name] = float(abs(x - y))
        else:
            found[name] = float(np.abs(x - y)[valid].max())
    log_p, log_q = (
        np.asarray(jax.nn.log_softmax(a["logits"][valid].astype(np.float32))) for a in (two, one)
    )
    found["kl"] = float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())
    found["top1"] = float((log_p.argmax(-1) != log_q.argmax(-1)).mean())
    return found


def compare(run: str | Path, output: str | Path, *, dialogues: int = 8) -> dict[str, float]:
    """Runs both on `dialogues` validation dialogues; writes batch and reference into `output`.

    `batch.safetensors` holds token ids, `soft_index`, rounds and the encoder's states, and
    `reference.safetensors` what transformers + PEFT made of it: enough to check another framework
    without this package. Raises `ConfigError` without torch, `MismatchError` without a finished stage.
    """
    run, output = Path(run), Path(output)
    _torch()
    parts = load(run).parts
    batch = batch_of(run, parts, dialogues)
    mine = ours(parts, batch)
    base = base_folder(ConfigDict(finished_stage(run)[1]["config"]["model"]))
    reference = theirs(parts, base, batch, mine.get("states"))
    inputs = {**batch, **({"states": mine["states"]} if "states" in mine else {})}
    huggingface.save_tree(output / "batch.safetensors", inputs, parts.identity)
    huggingface.save_tree(output / "reference.safetensors", reference, parts.identity)
    return differences(mine, reference, batch["segments"] > 0)
