"""The same step by transformers + PEFT and torch's optimizer, in float32: the quantities of `ours`.

The base as a directory, the exported adapter and the encoder's states go in. The projector is written once
more in torch, and reductions are the plain loops of `plain`: neither library has them.
"""

import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.agreement import plain
from bua_jax.agreement.ours import Arrays, Stage
from bua_jax.basics.errors import ConfigError
from bua_jax.interop import huggingface, peft
from bua_jax.models.lora import MODULE_OF


def libraries() -> tuple[Any, Any, Any]:
    """(torch, transformers, peft). Raises `ConfigError` where one is not installed."""
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


def peft_model(stage: Stage, base: Path) -> Any:
    """transformers' model of a directory in float32 with the stage's adapter, as PEFT loads it."""
    torch, transformers, peft_ = libraries()
    lora = stage.model.llm.lora
    assert lora is not None
    with tempfile.TemporaryDirectory() as folder:
        adapter = stage.variables["adapter"]
        peft.save(folder, adapter, lora, base=str(base), base_hash="", card="")
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return peft_.PeftModel.from_pretrained(model, folder, is_trainable=True).eval()


def _project(torch: Any, leaves: Mapping[str, Any], prefix: str, states: Any) -> Any:
    """The projector in torch's words: states [B, S, D] -> [B, S, H]."""
    functional, of = torch.nn.functional, lambda name: leaves[f"projector/{prefix}{name}"]
    x = functional.layer_norm(states, states.shape[-1:], of("norm/scale"), of("norm/bias"), 1e-6)
    x = functional.gelu(x @ of("hidden/kernel") + of("hidden/bias"), approximate="tanh")
    return x @ of("out/kernel") + of("out/bias")


def embedded(torch: Any, stage: Stage, model: Any, leaves: Mapping[str, Any], batch: Arrays) -> Any:
    """[B, T, H]: the model's embeddings, and projected states in the places of the soft token."""
    tokens = torch.tensor(batch["tokens"]).long()
    embeddings = model.get_input_embeddings()(tokens)
    if "states" not in batch:
        return embeddings
    states = torch.tensor(batch["states"], dtype=embeddings.dtype)
    if stage.model.soft_tokens == "pooled":
        last = torch.tensor(batch["event_segments"] > 0).sum(1) - 1
        states = states[torch.arange(len(last)), last][:, None].expand_as(states)
    views = ["", "recalled/"] if "projector/recalled/norm/scale" in leaves else [""]
    projected = torch.cat([_project(torch, leaves, view, states) for view in views], 1)
    here = tokens == stage.model.soft_id
    index = torch.where(here, torch.tensor(batch["soft_index"]).long(), 0)
    index = torch.where(index < 0, states.shape[1] - 1 - index, index)[:, :, None]
    vectors = torch.gather(projected, 1, index.expand(-1, -1, projected.shape[-1]))
    return torch.where(here[:, :, None], vectors, embeddings)


def trained_leaves(stage: Stage, model: Any) -> dict[str, list[Any]]:
    """By our names the parameters of PEFT that together are ours: of each layer, transposed."""
    lora, inner = stage.model.llm.lora, model.base_model.model.model
    assert lora is not None
    found: dict[str, list[Any]] = {}
    for name in lora.targets:
        module = MODULE_OF[name]
        for part in ("A", "B"):
            pairs = [getattr(getattr(layer, module), f"{name}_proj") for layer in inner.layers]
            weights = [getattr(pair, f"lora_{part}")["default"].weight for pair in pairs]
            found[f"adapter/layers/{module}/{name}_proj/{part.lower()}"] = weights
    if lora.tokens:
        delta = model.get_input_embeddings().token_adapter.trainable_tokens_delta
        found["adapter/rows"] = [delta["default"]]
    return found


def as_ours(name: str, values: list[np.ndarray]) -> np.ndarray:
    """What `trained_leaves` parted, or its gradients, in one array of ours."""
    return values[0] if name == "adapter/rows" else np.stack([value.T for value in values])


def _watched(stage: Stage, model: Any, run: Any) -> tuple[Any, Arrays]:
    """(what run() returns, what modules computed meanwhile), by the quantities' names."""
    inner, seen = model.base_model.model.model, {}
    first = inner.layers[0]
    modules = {"norm": first.input_layernorm, "attention": first.self_attn}
    modules |= {f"projection {n}": getattr(first.self_attn, f"{n}_proj") for n in "qkv"}
    modules |= {f"layer {n}": layer for n, layer in enumerate(inner.layers, 1)}

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, out: Any) -> None:
            seen[name] = (out[0] if isinstance(out, tuple) else out).detach()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    out = run()
    for hook in hooks:
        hook.remove()
    q, k = (seen[f"projection {n}"] for n in "qk")
    width = stage.model.llm.config.head_dim
    heads = [y.reshape(*y.shape[:2], -1, width).transpose(1, 2) for y in (q, k)]
    angles = inner.rotary_emb(q, (q[:, :, 0] * 0).long() + q.new_tensor(range(q.shape[1])).long())
    rotate = sys.modules[type(first.self_attn).__module__].apply_rotary_pos_emb
    turned = (y.transpose(1, 2) for y in rotate(*heads, *angles))
    seen |= dict(zip(("rotation q", "rotation k"), turned, strict=True))
    found = {name: value.numpy() for name, value in seen.items()}
    for name in (name for name in found if name.startswith("layer")):
        wide = np.float64(found[name])
        eps = stage.model.llm.config.rms_norm_eps
        found[name] = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps)
    return out, found


def updates(stage: Stage, recipe: Mapping[str, Any], gradient: Arrays) -> Arrays:
    """What torch makes of a gradient by names: clipped, and AdamW's first update at the peak rate."""
    torch, _, _ = libraries()
    given = stage.trained
    leaves = {n: torch.tensor(np.float64(given[n])).requires_grad_() for n in gradient}
    before = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    for name, value in gradient.items():
        leaves[name].grad = torch.tensor(np.float64(value))
    bound = recipe["clip_norm"]
    if recipe["unit_gradient"]:  # torch has no such thing: made longer first, it is always cut
        for leaf in leaves.values():
            leaf.grad *= 1e6
    torch.nn.utils.clip_grad_norm_(leaves.values(), bound)
    found = {f"clipped {name}": leaf.grad.numpy().copy() for name, leaf in leaves.items()}
    optimizer = adamw(torch, leaves.items(), recipe)
    optimizer.step()
    moved = {n: (leaf.detach() - before[n]).numpy() for n, leaf in leaves.items()}
    return found | {f"update {name}": value for name, value in moved.items()}


def adamw(torch: Any, leaves: Iterable[tuple[str, Any]], recipe: Mapping[str, Any]) -> Any:
    """torch's AdamW at the peak rates; each leaf by its name decays or does not."""
    groups = []
    for name, leaf in leaves:
        decays = name.rsplit("/", 1)[-1] in plain.DECAYED
        rate = recipe["rate"] * recipe["rates"].get(name.split("/")[0], 1.0)
        decay = recipe["weight_decay"] if decays else 0.0
        groups.append({"params": [leaf], "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, eps=1e-8)


def theirs(stage: Stage, recipe: Mapping[str, Any], batch: Arrays, reference: Arrays) -> Arrays:
    """All quantities of a batch with one dialogue to a row; the optimizer gets the reference's gradient."""
    torch, _, _ = libraries()
    with tempfile.TemporaryDirectory() as base:  # as the run holds it: files may be another type's
        huggingface.save(base, stage.model.llm.config, stage.variables["base"])
        model, given = peft_model(stage, Path(base)), stage.trained
    projector = {n: v for n, v in given.items() if n.startswith("projector/")}
    leaves = {name: torch.tensor(value).requires_grad_() for name, value in projector.items()}
    embeddings = embedded(torch, stage, model, leaves, batch)
    mask = torch.tensor(batch["segments"] > 0).long()
    out, seen = _watched(stage, model, lambda: model(inputs_embeds=embeddings, attention_mask=mask))
    supervised = batch["round_ids"] > 0
    row, token = np.nonzero(supervised)
    logits = out.logits[row, token - 1]
    labels = torch.tensor(batch["tokens"][row, token]).long()
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    found = {"supervised": np.float64(supervised), "embedding": embeddings.detach().numpy(), **seen}
    found |= {"logits": logits.detach().numpy(), "nll": nll.detach().numpy()}
    for name, value in plain.losses(nll, recipe, batch).items():
        found[f"loss {name}"] = value.detach().numpy()
    parts = trained_leaves(stage, model) if "adapter" in stage.trains else {}
    used = leaves if "projector" in stage.trains else {}
    flat = {f"{name} {i}": leaf for name, of in parts.items() for i, leaf in enumerate(of)}
    single, found["kinds"] = plain.gradients(torch, nll, {**used, **flat}, recipe, batch)
    gradient = {name: single[name] for name in used}
    gradient |= {
        n: as_ours(n, [single[f"{n} {i}"] for i in range(len(of))]) for n, of in parts.items()
    }
    found |= {f"gradient {name}": value for name, value in gradient.items()}
    prefix = "gradient "
    same = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    return found | updates(stage, recipe, same)
