"""config.json of Qwen2 and Llama models: what is read of it, and what it may say beside that.

A field is read, known to change nothing, or must have the value that this implementation computes.
Another field with a value is an error: it could change the maths.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from bua_jax.basics import files
from bua_jax.basics.errors import CheckpointError, DataError
from bua_jax.models.qwen2_config import Qwen2Config

_ARCHITECTURES = {"Qwen2ForCausalLM": True, "LlamaForCausalLM": False}  # name -> qkv bias
_MODEL_TYPES = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama"}
_READ = {
    *("architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps"),
    *("tie_word_embeddings", "attention_bias", "max_position_embeddings", "rope_parameters"),
    *("rope_scaling",),
}
_COMPUTED: dict[str, tuple[Any, ...]] = {  # what we compute; null, false and nothing too
    "hidden_act": ("silu", "swish"),
    "model_type": ("qwen2", "llama"),
    "partial_rotary_factor": (1,),
    "attention_multiplier": (1,),
    "residual_multiplier": (1,),
    "embedding_multiplier": (1,),
    "logits_scaling": (1,),
    "qkv_bias": (True, False),  # the architecture says so
}
_WITHOUT_EFFECT = {  # of training, text generation, loading, or of other tools
    *(
        "_name_or_path",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "attn_implementation",
    ),
    *("attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id"),
    *(
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
    ),
    *("early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id", "finetuning_task"),
    *("forced_bos_token_id", "forced_eos_token_id", "hidden_dropout", "id2label"),
    *("initializer_range", "is_llama_config", "label2id", "length_penalty", "max_length"),
    *("max_window_layers", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams"),
    *("num_return_sequences", "output_attentions", "output_hidden_states", "output_scores"),
    *("pad_token_id", "prefix", "pretraining_tp", "problem_type", "remove_invalid_values"),
    *("repetition_penalty", "resid_pdrop", "return_dict", "return_dict_in_generate"),
    *("sep_token_id", "sliding_window", "suppress_tokens", "task_specific_params", "temperature"),
    *("tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config"),
    *("transformers_version", "typical_p", "unsloth_fixed", "unsloth_version", "use_bfloat16"),
    *("use_cache",),
}


def neutral(value: Any) -> bool:
    """Whether a value of an option says that it is off. A number does not: a factor of 0 is no 1."""
    return value is None or value is False or (isinstance(value, str | dict | list) and not value)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` if the file is damaged or holds something else."""
    try:
        values = files.read_json(path)
    except DataError as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return values


def _check_fields(path: Path, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in _READ or name in _WITHOUT_EFFECT:
            continue
        if neutral(value):
            continue
        layers = value if name == "layer_types" and isinstance(value, list) else [None]
        if all(layer == "full_attention" for layer in layers):
            continue
        if name not in _COMPUTED:
            raise CheckpointError(
                f"{path}: the field {name}={value!r} is not known here, and could change what the "
                "model computes. Take it out if it changes nothing."
            )
        if value not in _COMPUTED[name]:
            expected = " or ".join(map(repr, _COMPUTED[name]))
            raise CheckpointError(f"{path}: {name} is {value!r}, only {expected} is computed.")


def _rope_theta(path: Path, values: Mapping[str, Any]) -> Any:
    """The base of the rotary frequencies, None if it is not said. Raises for scaled positions."""
    found = [values["rope_theta"]] if values.get("rope_theta") is not None else []
    for name in ("rope_scaling", "rope_parameters"):
        said = values.get(name)
        if said is None:
            continue
        said = said if isinstance(said, dict) else {"rope_type": said}
        kind = said.get("rope_type", said.get("type"))
        rest = {k: v for k, v in said.items() if k not in ("rope_type", "type", "rope_theta")}
        off = {"factor": 1, "partial_rotary_factor": 1}
        legal = kind in ("default", "linear") or (kind is None and not rest)
        if not legal or any(not neutral(v) and v != off.get(k) for k, v in rest.items()):
            raise CheckpointError(f"{path}: {name}={said!r} is not supported, only the default.")
        if kind == "linear" and "factor" not in rest:
            raise CheckpointError(f"{path}: {name}={said!r} names no factor.")
        if said.get("rope_theta") is not None:
            found.append(said["rope_theta"])
    if any(theta != found[0] for theta in found):
        raise CheckpointError(
            f"{path} names two values of rope_theta: {found[0]!r} and {found[1]!r}."
        )
    return found[0] if found else None


def read_config(folder: str | Path, dtype: str = "float32") -> Qwen2Config:
    """`Qwen2Config` of a directory's config.json.

    Raises `CheckpointError` for other architectures, a damaged file, a field that is missing or no
    number, and one that would change the maths, by name.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; expected a Hugging Face directory.")
    values = json_object(path)
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise CheckpointError(f"{path}: architecture {name!r} is none of {known}.")
    _check_fields(path, values)
    if (kind := values.get("model_type") or _MODEL_TYPES[name]) != _MODEL_TYPES[name]:
        raise CheckpointError(
            f"{path}: model_type is {kind!r}, but the architecture {name} is of {_MODEL_TYPES[name]!r}. "
            "transformers goes by the first, so one of them is wrong."
        )
    rope_theta = _rope_theta(path, values)

    def number(key: str, kind: type, default: Any = None, found: Any = None) -> Any:
        found = values.get(key) if found is None else found
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
            rope_theta=float(number("rope_theta", float, 1e4, rope_theta)),
            rms_norm_eps=number("rms_norm_eps", float),
            tie_word_embeddings=flag("tie_word_embeddings", False),
            qkv_bias=flag("attention_bias", _ARCHITECTURES[name]),
            max_positions=number("max_position_embeddings", int, 32768),
            dtype=dtype,
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


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
