"""A trained run as files for other software: a PEFT folder, or a merged Hugging Face directory."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from bua_jax.alignment.bases import base_folder
from bua_jax.alignment.encoder import FILE
from bua_jax.alignment.parts import TRAINED, Parts
from bua_jax.basics.claims import claimed
from bua_jax.basics.console import in_markdown
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.files import check_folder, read_json, write_json
from bua_jax.interop import chat, huggingface, peft
from bua_jax.interop.tensors import open_safetensors
from bua_jax.models import lora, quantization
from bua_jax.models.qwen2 import Qwen2
from bua_jax.pipeline.evaluate import METRICS
from bua_jax.pipeline.finished import load, stage_of

_SHOWN = ("rec_w", "prec_w", "overall", "log_loss", "n")


def _soft_ids(parts: Parts) -> dict[str, int]:
    tokenizer = parts.tokenizer
    return {"start": tokenizer.soft_start, "soft": tokenizer.soft, "end": tokenizer.soft_end}


def _card(run: Path, record: dict[str, Any], parts: Parts, base: str) -> str:
    """README.md: what the adapter is, of what it was made, how well it does; record: of its stage."""
    config, identity = record["config"], parts.identity
    rows = {
        "base": f"{base} (hash {identity['base']})",
        "data": f"{in_markdown(config['data']['name'])}, fingerprint {identity['data']}",
        "seed": config["seed"],
        "LoRA": identity["lora"],
        "soft tokens": f"{identity['soft_tokens']}, recall {identity['recall']}; ids {_soft_ids(parts)}",
        "behaviours": in_markdown(", ".join(parts.catalogue.behaviours)),
    }
    if (path := run / "evaluation" / METRICS).is_file():
        found = read_json(path)
        if values := found["prediction"].get("bua"):
            rows["test users"] = ", ".join(f"{name} {values[name]:.4g}" for name in _SHOWN)
            rows["signature"] = f"`{found['signature']}`"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [bua, lora]
---
# Behavior Understanding Alignment: LoRA adapter and projector

Trained with bua_jax {record["versions"]["bua_jax"]}, up to {record["step"]}. The adapter expects soft tokens
in the user turn, which `encoder.safetensors` and `projector.safetensors` make from a history of events;
it was not trained on text alone.

| | |
|---|---|
{table}
"""


def base_name(model: ConfigDict, folder: Path) -> tuple[str, str | None]:
    """What others call the base of a run, and its revision: its hub id, its path from here where it lies
    below, else the name of its folder or file.

    Never an absolute path, which would tell of this machine and lead nowhere on another.
    """
    given, below = Path(model.path), folder.resolve()
    if "@" in model.path and not given.exists():
        name, _, revision = model.path.rpartition("@")
        return name, revision
    if below.is_relative_to(Path.cwd()):
        return str(below.relative_to(Path.cwd())), None
    return given.stem if given.suffix == ".gguf" else below.name, None


def export(
    run: str | Path,
    output: str | Path,
    *,
    merge: bool = False,
    base: str = "",
    take_over: bool = False,
) -> dict[str, float]:
    """Writes the last finished stage of `run`, or a stage by its own folder, into the empty folder `output`.

    A PEFT folder with a model card; with `merge` a Hugging Face directory whose kernels hold the
    adapter (added in float32, rounded once), with the base's tokenizer and the template of our
    dialogues. Encoder, projector, the soft tokens' ids and where an answer ends lie beside them. base:
    what PEFT and the card call the base; `base_name` if empty. take_over: see `basics.claims`. Returns
    what merging changes (`merge_difference`), nothing without `merge`. Raises `ConfigError` if `output`
    holds anything and, without `merge`, for a run that trained the base itself, `MismatchError` if `run`
    holds no finished stage, `ClaimedError` if another process writes there.
    """
    run, output = Path(run), Path(output)
    with claimed(output, take_over=take_over):
        return _export(run, output, merge, base)


def _export(run: Path, output: Path, merge: bool, base: str) -> dict[str, float]:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is not an empty folder. Choose another --output.")
    check_folder(output, f"--output={output}")
    stage, record = stage_of(run)
    parts = load(run).parts
    if not merge:
        _check_base(stage / TRAINED)
    shape, variables = parts.model.llm.lora, parts.variables
    assert shape is not None
    model = ConfigDict(record["config"]["model"])
    folder = base_folder(model)
    base, revision = (base, None) if base else base_name(model, folder)
    difference: dict[str, float] = {}
    if merge:
        llm = parts.model.llm
        plain = quantization.dequantize(variables["base"], llm.config.dtype)
        huggingface.save(output, llm.config, lora.merge(plain, variables["adapter"], shape))
        chat.save_tokenizer(output, parts.tokenizer, folder)
        difference = merge_difference(llm, plain, variables["adapter"])
    else:
        peft.save(
            output,
            variables["adapter"],
            shape,
            base=base,
            revision=revision,
            base_hash=parts.identity["base"],
            card=_card(run, record, parts, base),
        )
    chat.save_generation(output, parts.tokenizer)
    projector = {"projector": variables["projector"]}
    huggingface.save_tree(output / "projector.safetensors", projector, parts.identity)
    shutil.copyfile(stage / record["folders"]["encoder"] / FILE, output / FILE)
    write_json(output / "soft_tokens.json", _soft_ids(parts))
    return difference


def _check_base(trained: Path) -> None:
    """Raises `ConfigError` for a stage's file with a base in it, which a PEFT folder cannot hold."""
    with open_safetensors(trained) as file:
        whole = any(name.startswith("base/") for name in file.keys())  # noqa: SIM118
    if whole:
        raise ConfigError(
            "The run trained the base itself (full_finetuning), and an adapter beside the old base is "
            "another model. Add --merge."
        )


def merge_difference(llm: Qwen2, base: Any, adapter: Any) -> dict[str, float]:
    """Largest difference that merging makes to any logit of 128 random tokens, per type of the base.

    The types are those of the weights and activations; the unmerged adapter stays in float32.
    """
    assert llm.lora is not None
    tokens = jax.random.randint(jax.random.key(0), (1, 128), 0, llm.config.vocab_size)
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(llm.config, dtype=dtype, attention="xla")  # takes both types
        model = Qwen2(config, llm.lora)
        cast = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), base)
        apart: Any = model.apply({"params": cast, "lora": adapter}, tokens)
        one = Qwen2(model.config)
        merged: Any = one.apply({"params": lora.merge(cast, adapter, llm.lora)}, tokens)
        found[dtype] = float(jnp.abs(apart.astype(jnp.float32) - merged.astype(jnp.float32)).max())
    return found
