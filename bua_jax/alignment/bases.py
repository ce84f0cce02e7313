"""The language models that things are aligned with: found, loaded and hashed once per process."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from bua_jax.alignment.base_files import NANO
from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice, waiting
from bua_jax.basics.errors import ConfigError
from bua_jax.interop import gguf, hub, huggingface
from bua_jax.interop.tokenizer import HFTokenizer, load_tokenizer
from bua_jax.models import quantization
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel.sharding import shardings


class Base(NamedTuple):
    """A language model's own weights; never written to, so that all that share it may."""

    config: Qwen2Config
    params: Any  # quantised as the config wants
    digest: str  # of the weights as they are stored
    tokenizer: HFTokenizer


def base_folder(config: Settings) -> Path:
    """The language model's Hugging Face directory: local, converted from GGUF, or from the hub.

    Raises `ConfigError` if the config does not say, or names nothing that exists.
    """
    if config.name not in PRESETS:
        raise ConfigError(f"model={config.name!r} is none of {', '.join(PRESETS)}.")
    path = Path(config.path)
    if not config.path and config.name == "nano":
        return NANO
    if config.path and path.is_dir():
        return path
    if path.suffix == ".gguf" and path.is_file():
        return gguf.directory(path)
    if "@" in config.path:
        return _of_hub(config.path)
    said = f"There is no {path}. " if config.path else ""
    script = " launch/fetch_smollm2.sh fetches it." if config.name == "smollm2-135m" else ""
    raise ConfigError(
        f"{said}The weights of {config.name} are not shipped: give a Hugging Face directory "
        "(config.json, tokenizer.json, *.safetensors), a .gguf file or a hub id NAME@REVISION with "
        f"--config.model.path=...{script}"
    )


@functools.cache
def _of_hub(name: str) -> Path:
    """The local copy of NAME@REVISION; once, a notice where that is no commit and may become another base."""
    folder, (repository, _, revision) = hub.snapshot(name), name.rpartition("@")
    if revision != folder.name:
        notice(
            f"config.model.path={name!r} names a branch or tag, which may come to hold other weights. What "
            f"it holds now is --config.model.path={repository}@{folder.name}"
        )
    return folder


def load_base(config: Settings, mesh: Mesh | None = None) -> Base:
    """The base of a config (its part `model`), spread over `mesh`; the last one stays for who asks next.

    Raises `CheckpointError` or `ConfigError`.
    """
    folder = base_folder(config)
    return _load(folder, _stamps(folder), config.dtype, config.base_quantization, mesh)


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells that a file of a directory was changed."""
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@functools.lru_cache(maxsize=1)
def _load(
    folder: Path,
    stamps: tuple[tuple[str, int, int], ...],  # a changed file is another base
    dtype: str,
    mode: str,
    mesh: Mesh | None,
) -> Base:
    placement = (lambda shapes: shardings({"base": shapes}, mesh)["base"]) if mesh else None
    with waiting(f"loading {folder.name}"):
        config, params = huggingface.load(folder, dtype, placement)
    with waiting(f"hashing {folder.name}"):
        digest = huggingface.tree_hash(params)
    tokenizer = load_tokenizer(folder, config.vocab_size)
    return Base(config, quantization.quantize(params, mode), digest, tokenizer)
