"""GGUF files (llama.cpp's format) of Qwen2 and Llama models, converted once to a Hugging Face directory,
and the way back for llama.cpp itself.

The container and the block formats are read and written by the `gguf` package (extra `gguf`). What is
ours: the names, the configuration, the order of Llama's q/k rows, and the tokenizer from the metadata.
"""

import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import AddedToken, decoders, models

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import CheckpointError, DataError
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import PRE_TOKENIZERS
from bua_jax.models.qwen2_config import Qwen2Config

TENSOR_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q5_K", "Q6_K")
_READ = {  # metadata of the architecture; beside what is not set or changes nothing, no other may be
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base"),
    *("rope.dimension_count", "rope.scaling.type", "tensor_data_layout"),
}
_NEUTRAL = {  # values that change nothing
    "attention.causal": True,
    "rope.scale_linear": 1,
    "rope.scaling.factor": 1,
    "rope.scaling.attn_factor": 1,
    "logit_scale": 1,
}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # token types; unused and padding ones are others
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def directory(path: str | Path, cache: str | Path | None = None) -> Path:
    """A Hugging Face directory with the weights (float32), tokenizer and chat template of a GGUF file.

    Converted on first use into `cache` (default: ~/.cache/bua_jax/gguf), under the hash
    of the file's content. Raises `CheckpointError` if the file is damaged, of another
    architecture or of a block format that is not read; nothing is left behind then.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    cache = Path(cache) if cache else Path.home() / ".cache" / "bua_jax" / "gguf"
    folder = cache / files.sha256_file(path)
    if folder.is_dir():
        if _is_whole(folder):
            return folder
        notice(f"{folder} was cut or altered (or is of an older version): converted anew")
        shutil.rmtree(folder)
    metadata, tensors = _open(path)
    config = _config(path, metadata, tensors)
    notice(f"{path.name}: converting to safetensors in {folder}")
    temporary = cache / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir(parents=True)
    try:
        _write_weights(temporary, path, config, metadata["general.architecture"], tensors)
        huggingface.write_config(temporary, config)
        _tokenizer(path, metadata).save(str(temporary / "tokenizer.json"))
        files.write_json(temporary / "tokenizer_config.json", _tokenizer_config(metadata))
        files.write_sealed(temporary / _HASHES, _hashes(temporary))
        os.replace(temporary, folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have finished the same conversion
            raise CheckpointError(
                f"Could not write {folder}: {error.strerror or error}."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


_HASHES = "hashes.json"


def _hashes(folder: Path) -> dict[str, str | None]:
    """Of the files of a conversion, by name."""
    return {p.name: files.sha256_of(p) for p in sorted(folder.iterdir()) if p.name != _HASHES}


def _is_whole(folder: Path) -> bool:
    """Whether a conversion is as it was written."""
    try:
        return files.read_sealed(folder / _HASHES) == _hashes(folder)
    except (DataError, OSError):
        return False


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metadata, name -> the package's tensor). Raises `CheckpointError`."""
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            f"Reading {path} needs the package gguf: pip install gguf."
        ) from error

    class Reader(gguf.GGUFReader):
        """Stops at the file's end, where the package's own counts on through empty slices."""

        def _get(self, offset, dtype, count=1, override_order=None):
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("the file ends early")
            return super()._get(offset, dtype, count, override_order)

    try:
        reader = Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except Exception as error:  # a damaged header makes numpy, enums and dicts inside it fail
        raise CheckpointError(f"{path} is damaged or no GGUF file ({error!r}).") from error
    for tensor in tensors.values():
        if tensor.tensor_type.name not in TENSOR_TYPES:
            raise CheckpointError(
                f"{path}: tensor {tensor.name} has the format {tensor.tensor_type.name}; "
                f"{', '.join(TENSOR_TYPES)} are read."
            )
    return metadata, tensors


def _check_fields(
    path: Path, architecture: str, metadata: dict[str, Any], tensors: dict[str, Any]
) -> None:
    """Raises `CheckpointError` for metadata that could change what the model computes, by name."""
    if metadata.get("split.count", 0) not in (0, 1):
        raise CheckpointError(
            f"{path} is one of {metadata['split.count']} parts of a model. Join them first: "
            "llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )
    if metadata.get("general.type", "model") != "model":
        raise CheckpointError(f"{path} holds no model but {metadata['general.type']!r}.")
    if metadata.get(f"{architecture}.rope.scaling.type", "none") != "none":
        raise CheckpointError(f"{path}: rope scaling is not supported.")
    if "rope_freqs.weight" in tensors:
        raise CheckpointError(f"{path}: rope scaling is not supported (rope_freqs.weight).")
    for key, found in metadata.items():
        name = key.removeprefix(f"{architecture}.")
        # llama.cpp takes a factor of 0 as off, too.
        off = found == _NEUTRAL.get(name) or (not found and name != "attention.causal")
        if name == key or name in _READ or off:
            continue
        raise CheckpointError(
            f"{path}: {key}={found!r} is not supported: it can change what the model computes."
        )


def _config(path: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> Qwen2Config:
    """The configuration that the metadata describe. Raises `CheckpointError`."""
    architecture = metadata.get("general.architecture")
    if architecture not in ("qwen2", "llama"):
        raise CheckpointError(f"{path}: architecture {architecture!r} is none of qwen2, llama.")
    _check_fields(path, architecture, metadata, tensors)

    def value(name: str, default: Any = None) -> Any:
        found = metadata.get(f"{architecture}.{name}", default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 2**40:
            raise CheckpointError(
                f"{path}: {architecture}.{name} is {found!r}, expected a positive number."
            )
        return found

    if "token_embd.weight" not in tensors:
        raise CheckpointError(f"{path} has no tensor token_embd.weight.")
    if value("block_count") > len(tensors):
        raise CheckpointError(
            f"{path}: {architecture}.block_count is {value('block_count')}, but the file holds "
            f"{len(tensors)} tensors."
        )
    heads, hidden = value("attention.head_count"), value("embedding_length")
    head_dim = value("attention.key_length", hidden // heads)
    for name in ("rope.dimension_count", "attention.value_length"):
        if value(name, head_dim) != head_dim:
            raise CheckpointError(
                f"{path}: {architecture}.{name} is {value(name)}, only that of a head ({head_dim}) is "
                "computed."
            )
    try:
        return Qwen2Config(
            vocab_size=int(tensors["token_embd.weight"].shape[-1]),
            hidden_size=hidden,
            intermediate_size=value("feed_forward_length"),
            num_layers=value("block_count"),
            num_heads=heads,
            num_kv_heads=value("attention.head_count_kv", heads),
            head_dim=head_dim,
            rope_theta=float(value("rope.freq_base", 1e4)),
            rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings="output.weight" not in tensors,
            qkv_bias="blk.0.attn_q.bias" in tensors,
            max_positions=value("context_length"),
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _huggingface_name(name: str) -> str | None:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; None if it has none."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block and block[2] in _BLOCK_NAMES:
        return f"model.layers.{block[1]}.{_BLOCK_NAMES[block[2]]}.{block[3]}"
    stem, _, kind = name.rpartition(".")
    return f"{_NAMES[stem]}.{kind}" if stem in _NAMES else None


def _unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of q and k rows in Llama files, whose rotary pairs are neighbours."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The order that `_unpermuted` undoes."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _rotated_heads(name: str, config: Qwen2Config) -> int:
    """Heads of a tensor of q or k, by its Hugging Face name; 0 for others."""
    projection = re.search(r"\.([qk])_proj\.", name)
    if projection is None:
        return 0
    return config.num_heads if projection[1] == "q" else config.num_kv_heads


def _write_weights(
    folder: Path, path: Path, config: Qwen2Config, architecture: str, tensors: dict[str, Any]
) -> None:
    """One safetensors file per layer and one for the rest, so that a layer is what memory holds."""
    import gguf

    named = {_huggingface_name(name) or name: tensor for name, tensor in tensors.items()}
    expected = huggingface.expected_tensors(config)
    found = {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in named.items()}
    if found != expected:
        wrong = sorted(k for k in found | expected if found.get(k) != expected.get(k))
        listed = ", ".join(
            f"{k} is {found.get(k, 'missing')}, expected {expected.get(k, 'none')}"
            for k in wrong[:5]
        )
        raise CheckpointError(
            f"{path} does not fit its metadata in {len(wrong)} tensors: {listed}."
        )

    def array(name: str) -> np.ndarray:
        tensor = named[name]
        try:
            value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            value = value.reshape(expected[name])
        except ValueError as error:
            raise CheckpointError(f"{path}: tensor {tensor.name} is damaged ({error}).") from error
        if architecture == "llama" and (heads := _rotated_heads(name, config)):
            value = _unpermuted(value, heads)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{path}: tensor {tensor.name} holds values that are not finite.")
        return np.ascontiguousarray(value)

    layers = list(_by_layer(expected))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(layers, 1):
        shard = f"model-{number:05d}-of-{len(layers):05d}.safetensors"
        save_file({name: array(name) for name in names}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    size = 4 * sum(math.prod(shape) for shape in expected.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    files.write_json(folder / "model.safetensors.index.json", index)


def write(path: Path, folder: Path) -> None:
    """Writes a Hugging Face directory's model in float32, without a tokenizer, as llama.cpp reads it.

    A model without q/k/v biases becomes one of the architecture llama. Raises `CheckpointError` for a
    damaged directory.
    """
    import gguf

    config = huggingface.read_config(folder)
    with files.atomic_write(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "qwen2" if config.qkv_bias else "llama")
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_positions)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_block_count(config.num_layers)
        writer.add_head_count(config.num_heads)
        writer.add_head_count_kv(config.num_kv_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_tokenizer_model("none")
        for name, value in huggingface.read_tensors(folder, config):
            value = value.astype(np.float32)
            if not config.qkv_bias and (heads := _rotated_heads(name, config)):
                value = _permuted(value, heads)
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(value))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _gguf_name(name: str) -> str:
    """The opposite of `_huggingface_name`."""
    stem, _, kind = name.rpartition(".")
    for ours, theirs in _NAMES.items():
        if stem == theirs:
            return f"{ours}.{kind}"
    _, _, layer, module = stem.split(".", 3)
    ours = next(ours for ours, theirs in _BLOCK_NAMES.items() if theirs == module)
    return f"blk.{layer}.{ours}.{kind}"


def _by_layer(names: dict[str, Any]) -> Iterator[list[str]]:
    """Tensor names by layer: those outside the layers, then each layer's."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        layers.setdefault(layer[1] if layer else "", []).append(name)
    yield from layers.values()


def _tokenizer(path: Path, metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    """The byte-level BPE of the metadata. Raises `CheckpointError` for another kind."""
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise CheckpointError(
            f"{path}: the tokenizer is {kind!r} with pre-tokenizer {pre!r}; 'gpt2' (byte-level BPE) "
            f"with one of {', '.join(PRE_TOKENIZERS)} is read."
        )
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    types = metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not tokens or len(types) != len(tokens):
        raise CheckpointError(
            f"{path}: the tokenizer is damaged ({len(tokens)} tokens, {len(types)} token types)."
        )
    known = {_NORMAL, _CONTROL, _USER_DEFINED}  # the other types are rows that no text uses
    vocab = {t: i for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind in known}
    try:
        merges = [tuple(m.split(" ", 1)) for m in metadata.get("tokenizer.ggml.merges", [])]
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # the library raises bare Exception for merges without their tokens
        raise CheckpointError(f"{path}: the tokenizer is damaged ({error}).") from error
    tokenizer.normalizer, tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    for kind in (_CONTROL, _USER_DEFINED):
        added = [t for t, k in zip(tokens, types, strict=True) if k == kind]
        tokenizer.add_tokens(
            [AddedToken(t, special=kind == _CONTROL, normalized=False) for t in added]
        )
    return tokenizer


def _tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """What transformers reads beside tokenizer.json."""
    tokens = metadata["tokenizer.ggml.tokens"]
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            values[f"{name}_token"] = tokens[number]
    if "tokenizer.chat_template" in metadata:
        values["chat_template"] = metadata["tokenizer.chat_template"]
    return values
