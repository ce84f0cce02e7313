"""Hugging Face directories (config.json + safetensors) and trees of arrays as safetensors files."""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from safetensors.numpy import save_file

from bua_jax.basics import files
from bua_jax.basics.errors import CheckpointError
from bua_jax.interop.model_config import read_config, write_config
from bua_jax.interop.tensors import (
    Stored,
    check_finite,
    find_tensors,
    open_safetensors,
    write_safetensors,
)
from bua_jax.models.lora import MODULE_OF
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel.sharding import to_host

_HEAD, _TABLE = "lm_head.weight", "model.embed_tokens.weight"
Tree = dict[str, Any]
Placement = Callable[[Tree], Tree]  # shapes -> where each array goes


def _key_table(config: Qwen2Config) -> list[tuple[str, tuple[str, ...], tuple[int, ...], bool]]:
    """(Hugging Face key, with {} for the layer; path in our tree; its HF shape; transposed)."""
    h, i, d = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_heads * d, config.num_kv_heads * d
    outs = {
        "q": (q, h),
        "k": (kv, h),
        "v": (kv, h),
        "o": (h, q),
        "gate": (i, h),
        "up": (i, h),
        "down": (h, i),
    }
    table: list[tuple[str, tuple[str, ...], tuple[int, ...], bool]] = [
        (_TABLE, ("embed_tokens", "embedding"), (config.vocab_size, h), False),
        ("model.norm.weight", ("norm", "scale"), (h,), False),
    ]
    if not config.tie_word_embeddings:
        table.append((_HEAD, ("lm_head", "kernel"), (config.vocab_size, h), True))
    for name in ("input_layernorm", "post_attention_layernorm"):
        table.append((f"model.layers.{{}}.{name}.weight", ("layers", name, "scale"), (h,), False))
    for name, shape in outs.items():
        module = MODULE_OF[name]
        key = f"model.layers.{{}}.{module}.{name}_proj"
        path = ("layers", module, f"{name}_proj")
        table.append((f"{key}.weight", (*path, "kernel"), shape, True))
        if config.qkv_bias and name in "qkv":
            table.append((f"{key}.bias", (*path, "bias"), shape[:1], False))
    return table


def expected_tensors(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor that a model of this configuration has."""
    found: dict[str, tuple[int, ...]] = {}
    for key, _, shape, _ in _key_table(config):
        for layer in range(config.num_layers) if "{}" in key else (0,):
            found[key.format(layer)] = shape
    return found


def _reader(folder: Path, config: Qwen2Config) -> Callable[[str], np.ndarray]:
    """Reads a tensor by name. Raises `CheckpointError` if they are not those that config.json asks for.

    The files' headers bound the sizes of config.json before anything is made of those sizes.
    """
    tensors = find_tensors(folder)
    if config.num_layers > len(tensors):
        raise CheckpointError(
            f"{folder}: config.json says num_hidden_layers={config.num_layers}, but the files hold "
            f"{len(tensors)} tensors."
        )
    expected = expected_tensors(config)
    if config.tie_word_embeddings and (head := tensors.pop(_HEAD, None)):
        _check_tied(folder, head, tensors.get(_TABLE))
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    extra = [name for name in extra if not name.endswith("rotary_emb.inv_freq")]
    if missing or extra:
        raise CheckpointError(
            f"{folder} does not fit its config.json: missing {missing[:5]} ({len(missing)}), "
            f"unexpected {extra[:5]} ({len(extra)})."
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tensors[name].shape}, expected {shape}."
            )
    return lambda name: tensors[name].read()


def _check_tied(folder: Path, head: Stored, table: Stored | None) -> None:
    """Raises `CheckpointError` if a head that config.json ties to the table has values of its own."""
    if table is None or head.shape != table.shape or not np.array_equal(head.read(), table.read()):
        raise CheckpointError(
            f"{folder}: config.json says tie_word_embeddings=true, but {_HEAD} is another tensor than "
            f"{_TABLE}. Set it to false if the head was trained, else take the tensor out."
        )


def read_tensors(folder: Path, config: Qwen2Config) -> Iterator[tuple[str, np.ndarray]]:
    """(name, value) of a directory's tensors, one at a time. Raises `CheckpointError` as `load` does."""
    tensor = _reader(folder, config)
    for name in expected_tensors(config):
        yield name, tensor(name)


def load(
    folder: str | Path, dtype: str = "float32", placement: Placement | None = None
) -> tuple[Qwen2Config, Tree]:
    """Loads a Qwen2 or Llama directory: (config, params for `Qwen2(config).apply({"params": ...})`).

    placement: where each array goes, as a function of the tree of their shapes; by default the first
    device. Large tensors go there one by one, so the host never holds more than one of them.
    Raises `CheckpointError` naming missing, extra or mis-shaped tensors; nothing is half-loaded.
    """
    folder = Path(folder)
    config = read_config(folder, dtype)
    tensor = _reader(folder, config)
    table = _key_table(config)
    layers = range(config.num_layers)
    shapes: Tree = {}
    for key, path, shape, transposed in table:
        ours = shape[::-1] if transposed else shape
        ours = (config.num_layers, *ours) if "{}" in key else ours
        _set(shapes, path, jax.ShapeDtypeStruct(ours, jnp.dtype(dtype)))
    places = placement(shapes) if placement else None
    params: Tree = {}
    for key, path, _, transposed in table:
        place, whole = _get(places, path), _get(shapes, path)
        if math.prod(whole.shape) <= _SMALL:
            each = [tensor(key.format(n)) for n in layers] if "{}" in key else [tensor(key)]
            each = [(one.T if transposed else one).astype(whole.dtype) for one in each]
            value = jax.device_put(np.stack(each) if "{}" in key else each[0], place)
        elif "{}" in key:
            value = _empty(whole.shape, whole.dtype, place)
            for n in layers:
                value = _with_layer(value, tensor(key.format(n)), n, transposed, place)
                value.block_until_ready()  # or the host would hold what is still on its way
        else:
            value = _placed(tensor(key), whole.dtype, transposed, place)
        _set(params, path, value)
    return config, params


_SMALL = 2**22  # values up to which layers are stacked on the host: to compile that takes longer


def _at(place: Sharding | None, value: jax.Array) -> jax.Array:
    return value if place is None else jax.lax.with_sharding_constraint(value, place)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "place"))
def _empty(shape, dtype, place):
    return _at(place, jnp.zeros(shape, dtype))


@functools.partial(jax.jit, static_argnames=("dtype", "transposed", "place"))
def _placed(value, dtype, transposed, place):
    return _at(place, (value.T if transposed else value).astype(dtype))


@functools.partial(jax.jit, static_argnames=("transposed", "place"), donate_argnames="stack")
def _with_layer(stack, value, layer, transposed, place):
    value = (value.T if transposed else value).astype(stack.dtype)
    return _at(place, jax.lax.dynamic_update_index_in_dim(stack, value, layer, 0))


def _get(tree: Tree | None, path: tuple[str, ...]) -> Any:
    value: Any = tree
    for part in path:
        value = value[part] if value is not None else None
    return value


def _set(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def tensors_of(config: Qwen2Config, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters by Hugging Face's names and in its shapes, on the host."""
    tensors: dict[str, np.ndarray] = {}
    for key, path, _, transposed in _key_table(config):
        array = np.asarray(_get(dict(params), path))
        for n in range(config.num_layers) if "{}" in key else (None,):
            one = array if n is None else array[n]
            tensors[key.format(n)] = np.ascontiguousarray(one.T if transposed else one)
    return tensors


def save(folder: str | Path, config: Qwen2Config, params: Mapping[str, Any]) -> None:
    """Writes config.json and model.safetensors, each atomically; `load` gives the same arrays back."""
    folder = Path(folder)
    tensors = tensors_of(config, params)
    with files.atomic_write(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_config(folder, config)


def flatten(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A nested dict of arrays as one dict: names joined by slashes, arrays on the host."""
    leaves = _leaves(tree)
    return {key: np.ascontiguousarray(jax.device_get(value)) for key, value in leaves.items()}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            flat |= _leaves(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def tree_hash(tree: Mapping[str, Any]) -> str:
    """Short SHA-256 of a nested dict of arrays: names, types, shapes, values."""
    return files.sha256_arrays(_leaves(tree), to_host)


def save_tree(path: str | Path, tree: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes a nested dict of arrays with its metadata and a hash over both, atomically."""
    flat = flatten(tree)
    with files.atomic_write(path) as temporary:
        write_safetensors(temporary, flat, {**metadata, "sha256": _content(flat, metadata)})


def _content(flat: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of arrays and metadata, without the hash that stands among these."""
    rest = {name: value for name, value in metadata.items() if name != "sha256"}
    text = files.sha256_arrays(flat) + json.dumps(rest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_tree(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """Reads what `save_tree` wrote: (tree, metadata).

    Raises `CheckpointError` if the file is missing, truncated or altered, before anything is used.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("sha256") != _content(flat, metadata):
        raise CheckpointError(
            f"{path} was altered or damaged after it was written: its hash differs."
        )
    for name, value in flat.items():
        check_finite(path, name, value)
    tree: Tree = {}
    for name, value in flat.items():
        _set(tree, tuple(name.split("/")), jax.device_put(value))
    return tree, metadata
