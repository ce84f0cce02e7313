"""Hugging Face directories (config.json + safetensors) and trees of arrays as safetensors files."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bua_jax.basics import files
from bua_jax.basics.errors import CheckpointError, DataError
from bua_jax.models.lora import MODULE_OF
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.parallel.sharding import to_host

Tree = dict[str, Any]
Placement = Callable[[Tree], Tree]  # shapes -> where each array goes
_ARCHITECTURES = {"Qwen2ForCausalLM": True, "LlamaForCausalLM": False}  # name -> qkv bias


def read_config(folder: str | Path, dtype: str = "float32") -> Qwen2Config:
    """`Qwen2Config` of a directory's config.json.

    Raises `CheckpointError` for other architectures, a damaged file, or a field that is missing or no
    number, by name.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; expected a Hugging Face directory.")
    values = _json_object(path)
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise CheckpointError(f"{path}: architecture {name!r} is none of {known}.")
    rope = values.get("rope_parameters") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    scaled = values.get("rope_scaling") or rope.get("rope_type", "default") != "default"
    if scaled or values.get("use_sliding_window"):
        raise CheckpointError(f"{path}: rope scaling and sliding windows are not supported.")

    def number(key: str, kind: type, default: Any = None) -> Any:
        found = values.get(key, default)
        found = default if found is None else found
        fits = isinstance(found, kind) or (kind is float and isinstance(found, int))
        if isinstance(found, bool) or not fits or not 0 < found < 2**40:
            expected = "a positive integer" if kind is int else "a positive number"
            raise CheckpointError(f"{path}: {key} is {found!r}, expected {expected}.")
        return found

    def flag(key: str, default: bool) -> bool:
        found = values.get(key, default)
        if not isinstance(found, bool):
            raise CheckpointError(f"{path}: {key} is {found!r}, expected true or false.")
        return found

    heads, hidden = number("num_attention_heads", int), number("hidden_size", int)
    try:
        return Qwen2Config(
            vocab_size=number("vocab_size", int),
            hidden_size=hidden,
            intermediate_size=number("intermediate_size", int),
            num_layers=number("num_hidden_layers", int),
            num_heads=heads,
            num_kv_heads=number("num_key_value_heads", int, heads),
            head_dim=number("head_dim", int, hidden // heads),
            rope_theta=float(number("rope_theta", float, rope.get("rope_theta", 1e4))),
            rms_norm_eps=number("rms_norm_eps", float),
            tie_word_embeddings=flag("tie_word_embeddings", False),
            qkv_bias=flag("attention_bias", _ARCHITECTURES[name]),
            max_positions=number("max_position_embeddings", int, 32768),
            dtype=dtype,
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` if the file is damaged or holds something else."""
    try:
        values = files.read_json(path)
    except (DataError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return values


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
        ("model.embed_tokens.weight", ("embed_tokens", "embedding"), (config.vocab_size, h), False),
        ("model.norm.weight", ("norm", "scale"), (h,), False),
    ]
    if not config.tie_word_embeddings:
        table.append(("lm_head.weight", ("lm_head", "kernel"), (config.vocab_size, h), True))
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


def _tensors(folder: Path) -> dict[str, Path]:
    """Tensor name -> file. Raises `CheckpointError` for missing or damaged files and duplicates."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = _json_object(index).get("weight_map")
        named = set(named.values()) if isinstance(named, dict) else {None}
        if not all(isinstance(name, str) and name == Path(name).name for name in named):
            raise CheckpointError(f"{index} has no weight_map from tensors to files beside it.")
        paths = sorted(folder / name for name in named)
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        other = ", ".join(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt")])
        hint = f" Only safetensors are read, not {other}." if other else ""
        raise CheckpointError(f"{folder} has no *.safetensors.{hint}")
    found: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"{path} is named in {index.name} but missing.")
        with open_safetensors(path) as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors handle is no dict)
                if name in found:
                    raise CheckpointError(
                        f"Tensor {name} is in {found[name].name} and {path.name}."
                    )
                found[name] = path
    return found


def open_safetensors(path: Path) -> Any:
    """A safetensors file for numpy. Raises `CheckpointError` if it is damaged or none."""
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}).") from error


def _read(path: Path, name: str) -> np.ndarray:
    with open_safetensors(path) as file:
        try:
            return file.get_tensor(name)
        except (SafetensorError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: tensor {name} can't be read ({error}).") from error


def _reader(folder: Path, config: Qwen2Config) -> Callable[[str], np.ndarray]:
    """Reads a tensor by name. Raises `CheckpointError` if they are not those that config.json asks for."""
    tensors, expected = _tensors(folder), expected_tensors(config)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    extra = [name for name in extra if not name.endswith("rotary_emb.inv_freq")]
    if missing or extra:
        raise CheckpointError(
            f"{folder} does not fit its config.json: missing {missing[:5]} ({len(missing)}), "
            f"unexpected {extra[:5]} ({len(extra)})."
        )

    def tensor(name: str) -> np.ndarray:
        value, shape = _read(tensors[name], name), expected[name]
        if value.shape != shape:
            raise CheckpointError(f"{folder}: {name} has shape {value.shape}, expected {shape}.")
        return value

    return tensor


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
    device. Tensors go there one by one, so the host never holds more than one of them.
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
        if "{}" in key:
            value = _empty(whole.shape, whole.dtype, place)
            for n in layers:
                value = _with_layer(value, tensor(key.format(n)), n, transposed, place)
                value.block_until_ready()  # or the host would hold what is still on its way
        else:
            value = _placed(tensor(key), whole.dtype, transposed, place)
        _set(params, path, value)
    return config, params


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


def save(folder: str | Path, config: Qwen2Config, params: Mapping[str, Any]) -> None:
    """Writes config.json and model.safetensors, each atomically; `load` gives the same arrays back."""
    folder = Path(folder)
    tensors: dict[str, np.ndarray] = {}
    for key, path, _, transposed in _key_table(config):
        array = np.asarray(_get(dict(params), path))
        for n in range(config.num_layers) if "{}" in key else (None,):
            one = array if n is None else array[n]
            tensors[key.format(n)] = np.ascontiguousarray(one.T if transposed else one)
    with files.atomic_write(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_config(folder, config)


def write_config(folder: str | Path, config: Qwen2Config) -> None:
    """Writes a config.json that `read_config` and transformers read."""
    files.write_json(
        Path(folder) / "config.json",
        {
            "architectures": ["Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"],
            "model_type": "qwen2" if config.qkv_bias else "llama",
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
            "rope_theta": config.rope_theta,
            "rms_norm_eps": config.rms_norm_eps,
            "tie_word_embeddings": config.tie_word_embeddings,
            "max_position_embeddings": config.max_positions,
            "hidden_act": "silu",
            "torch_dtype": str(jnp.dtype(config.dtype)),
        },
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """A nested dict of arrays as one dict: names joined by slashes, arrays on the host."""
    leaves = _leaves(tree, prefix)
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
    content = hashlib.sha256(
        (files.sha256_arrays(flat) + _canonical(metadata)).encode()
    ).hexdigest()
    with files.atomic_write(path) as temporary:
        save_file(flat, temporary, metadata={**metadata, "sha256": content})


def _canonical(metadata: Mapping[str, str]) -> str:
    return json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True)


def load_tree(path: str | Path) -> tuple[Tree, dict[str, str]]:
    """Reads what `save_tree` wrote: (tree, metadata).

    Raises `CheckpointError` if the file is missing, truncated or altered, before anything is used.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    with open_safetensors(path) as file:
        metadata = dict(file.metadata() or {})
        names = list(file.keys())
        flat = {name: file.get_tensor(name) for name in names}
    content = hashlib.sha256(
        (files.sha256_arrays(flat) + _canonical(metadata)).encode()
    ).hexdigest()
    if metadata.get("sha256") != content:
        raise CheckpointError(
            f"{path} was altered or damaged after it was written: its hash differs."
        )
    tree: Tree = {}
    for name, value in flat.items():
        _set(tree, tuple(name.split("/")), jnp.asarray(value))
    return tree, metadata
