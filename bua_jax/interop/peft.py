"""Adapters as PEFT folders: adapter_config.json, adapter_model.safetensors, and a model card.

PEFT's layout is A [rank, in] and B [out, rank] per layer and projection; ours is stacked over layers
and transposed; rows of the embedding (`trainable_token_indices`) are as they are. The tensors' file also
holds a hash over them, its other metadata and the config file, so that a folder of ours that was altered is
not used.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.basics import files
from bua_jax.basics.errors import CheckpointError, DataError, MismatchError
from bua_jax.interop.model_config import neutral
from bua_jax.interop.tensors import check_finite, open_safetensors, write_safetensors
from bua_jax.models.lora import MODULE_OF, LoraConfig, kernel_shapes
from bua_jax.models.qwen2_config import Qwen2Config

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PLAIN: dict[str, Any] = {  # fields of PEFT's LoraConfig that change the maths, and what is ours
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "modules_to_save": None,
    "exclude_modules": None,
    # Not these, which change the base's own weights: pissa, olora, corda, loftq, lora_ga.
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
    "task_type": "CAUSAL_LM",
}
_READ = {"peft_type", "r", "lora_alpha", "target_modules", "trainable_token_indices"}
_WITHOUT_EFFECT = {  # of training or of bookkeeping, or with an effect beside another field only
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config"),
    *("inference_mode", "layers_pattern", "lora_dropout", "megatron_core", "peft_version"),
    *("qalora_group_size", "revision"),
}


_WRITTEN = (  # of `_PLAIN`
    *("bias", "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"),
)


_ROWS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"


def _key(layer: int, name: str, part: str) -> str:
    return f"base_model.model.model.layers.{layer}.{MODULE_OF[name]}.{name}_proj.lora_{part}.weight"


def _content(tensors: dict[str, np.ndarray], metadata: Mapping[str, str], config: str) -> str:
    rest = {k: v for k, v in metadata.items() if k != "sha256"}
    text = files.sha256_arrays(tensors) + json.dumps(rest, sort_keys=True) + config
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    folder: str | Path,
    adapter: Mapping[str, Any],
    lora: LoraConfig,
    *,
    base: str,
    base_hash: str,
    card: str,
    revision: str | None = None,
) -> None:
    """Writes a PEFT folder.

    adapter: as `models.lora.init` makes it; base: name or path of the model that it belongs to, which
    PEFT's `AutoPeftModel` loads, in its `revision` on the hub; base_hash: `huggingface.tree_hash` of
    the base; card: README.md.
    """
    folder = Path(folder)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(f"{name}_proj" for name in lora.targets),
        "inference_mode": True,
        **{key: _PLAIN[key] for key in _WRITTEN},
        **({"trainable_token_indices": list(lora.tokens)} if lora.tokens else {}),
    }
    tensors: dict[str, np.ndarray] = {}
    for name in lora.targets:
        pair = adapter["layers"][MODULE_OF[name]][f"{name}_proj"]
        for part in ("A", "B"):
            stacked = np.asarray(jax.device_get(pair[part.lower()]))
            for layer, value in enumerate(stacked):
                tensors[_key(layer, name, part)] = np.ascontiguousarray(value.T)
    if lora.tokens:
        tensors[_ROWS] = np.asarray(jax.device_get(adapter["rows"]))
    text = json.dumps(config, indent=2) + "\n"
    metadata = {"format": "pt", "base": base_hash}
    metadata["sha256"] = _content(tensors, metadata, text)
    files.write_text(folder / "README.md", card)
    files.write_text(folder / CONFIG, text)
    with files.atomic_write(folder / TENSORS) as temporary:
        write_safetensors(temporary, tensors, metadata)


def _read_config(path: Path) -> tuple[LoraConfig, str]:
    """(what the adapter is, text of the file). Raises `CheckpointError` for what we can't compute."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; expected a PEFT folder.")
    try:
        text = path.read_text(encoding="utf-8")
        values = files.read_json(path)
    except (DataError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from error
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        raise CheckpointError(f"{path} describes no LoRA adapter (peft_type is not LORA).")
    for key, value in values.items():
        expected = _PLAIN.get(key)
        legal = expected if isinstance(expected, tuple) else (expected,)
        if key in _READ or key in _WITHOUT_EFFECT or neutral(value) or value in legal:
            continue
        known = f"only {' or '.join(map(repr, legal))}" if key in _PLAIN else "and not known here"
        raise CheckpointError(
            f"{path}: {key}={value!r} is not supported, {known}: it can change what is computed."
        )
    named = values.get("target_modules")
    targets = {
        part.rsplit(".", 1)[-1].removesuffix("_proj")
        for part in (named if isinstance(named, list) else [])
        if isinstance(part, str)
    }
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if (
        not isinstance(rank, int)
        or not isinstance(alpha, int | float)
        or isinstance(rank, bool)
        or isinstance(alpha, bool)
        or abs(alpha) > 1e9
    ):
        raise CheckpointError(f"{path}: r={rank!r} and lora_alpha={alpha!r}, expected numbers.")
    try:
        order = [*(t for t in MODULE_OF if t in targets), *sorted(targets - MODULE_OF.keys())]
        return LoraConfig(rank, float(alpha), tuple(order), _tokens(path, values)), text
    except ValueError as error:
        raise CheckpointError(f"{path}: target_modules={named!r}. {error}") from error


def _tokens(path: Path, values: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids whose rows of the embedding an adapter holds, in the order of its rows."""
    said: Any = values.get("trainable_token_indices") or []
    found: Any = said.get("embed_tokens") if isinstance(said, dict) and len(said) == 1 else said
    whole = isinstance(found, list) and all(type(i) is int and i >= 0 for i in found)
    if not whole or len(set(found)) < len(found):
        raise CheckpointError(
            f"{path}: trainable_token_indices={said!r}, expected different token ids, of embed_tokens alone."
        )
    return tuple(found)


def _wanted(path: Path, lora: LoraConfig, config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors. Raises `CheckpointError` for a token that there is not."""
    wanted: dict[str, tuple[int, ...]] = {}
    shapes = kernel_shapes(config)
    for name in lora.targets:
        fan_in, fan_out = shapes[name]
        for layer in range(config.num_layers):
            wanted[_key(layer, name, "A")] = (lora.rank, fan_in)
            wanted[_key(layer, name, "B")] = (fan_out, lora.rank)
    if lora.tokens:
        wanted[_ROWS] = (len(lora.tokens), config.hidden_size)
        if (last := max(lora.tokens)) >= config.vocab_size:
            raise CheckpointError(
                f"{path} does not fit the model: it holds the embedding of token {last}, and there are "
                f"{config.vocab_size} tokens."
            )
    return wanted


def load(
    folder: str | Path, config: Qwen2Config, *, base_hash: str | None = None
) -> tuple[LoraConfig, dict[str, Any]]:
    """(config, adapter) of a PEFT folder for a model of `config`; float32.

    Raises `CheckpointError` if the folder is damaged, holds something else than plain LoRA on the
    seven projections and rows of the embedding, or does not fit the model; `MismatchError` if it records
    another base than `base_hash`. Folders that PEFT wrote record neither hash nor base and are checked by
    shape alone.
    """
    folder = Path(folder)
    lora, text = _read_config(folder / CONFIG)
    path = folder / TENSORS
    if not path.is_file():
        others = ", ".join(p.name for p in sorted(folder.glob("adapter_model.*")))
        hint = f" Only safetensors are read, not {others}." if others else ""
        raise CheckpointError(f"There is no file {path}.{hint}")
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in tensors.items():
        check_finite(path, name, value)
    if metadata.keys() - {"format"} and metadata.get("sha256") != _content(tensors, metadata, text):
        raise CheckpointError(f"{folder} was altered or damaged after it was written.")
    if base_hash is not None and metadata.get("base", base_hash) != base_hash:
        raise MismatchError(
            f"{folder} was trained with the base {metadata['base']}, but this one is {base_hash}. "
            "Load it with the base that it belongs to."
        )
    tree: dict[str, Any] = {}
    wanted = _wanted(path, lora, config)
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [k for k in wanted.keys() & tensors.keys() if tensors[k].shape != wanted[k]]
    if missing or extra or wrong:
        shown = [f"{k} {tensors[k].shape}, expected {wanted[k]}" for k in sorted(wrong)[:3]]
        raise CheckpointError(
            f"{path} does not fit the model: missing {missing[:3]} ({len(missing)}), unexpected "
            f"{extra[:3]} ({len(extra)}), of another shape {shown} ({len(wrong)})."
        )
    for name in lora.targets:
        pair = {
            part.lower(): jnp.asarray(
                np.stack([tensors[_key(i, name, part)].T for i in range(config.num_layers)]),
                jnp.float32,
            )
            for part in ("A", "B")
        }
        tree.setdefault(MODULE_OF[name], {})[f"{name}_proj"] = pair
    if not lora.tokens:
        return lora, {"layers": tree}
    order = np.argsort(lora.tokens)
    lora = dataclasses.replace(lora, tokens=tuple(sorted(lora.tokens)))
    return lora, {"layers": tree, "rows": jnp.asarray(tensors[_ROWS][order], jnp.float32)}
