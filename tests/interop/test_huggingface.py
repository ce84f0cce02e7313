"""Directories and trees: round trips, and damaged files that are refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bua_jax.errors import CheckpointError
from bua_jax.interop import huggingface
from bua_jax.models.qwen2 import Qwen2, Qwen2Config

CONFIG = Qwen2Config(31, 16, 24, 2, 4, 2, 4, tie_word_embeddings=False)


@pytest.fixture
def folder(tmp_path):
    params = Qwen2(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    huggingface.save(tmp_path / "model", CONFIG, params)
    return tmp_path / "model", params


def test_save_and_load_round_trip(folder):
    path, params = folder
    config, loaded = huggingface.load(path)
    assert config == CONFIG
    assert huggingface.tree_hash(loaded) == huggingface.tree_hash(params)


def test_shards_are_read_through_the_index(folder):
    path, params = folder
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({k: tensors[k] for k in keys}, path / file)
    index = {"weight_map": {k: file for file, keys in parts.items() for k in keys}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    _, loaded = huggingface.load(path)
    assert huggingface.tree_hash(loaded) == huggingface.tree_hash(params)
    (path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors"):
        huggingface.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"missing \['model.norm.weight'\]"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), r"unexpected \['extra'\]"),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(3, np.float32)}),
            r"model.norm.weight has shape \(3,\), expected \(16,\)",
        ),
    ],
)
def test_wrong_tensors_are_named(folder, change, message):
    path, _ = folder
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        huggingface.load(path)


def test_another_architecture_and_a_truncated_file_are_refused(folder):
    path, _ = folder
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        huggingface.load(path)
    (path / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(CheckpointError, match="GPT2LMHeadModel"):
        huggingface.load(path)


def test_bfloat16_checkpoints_load(folder):
    path, params = folder
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    huggingface.save(path, CONFIG, half)
    _, loaded = huggingface.load(path)
    expected = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    assert huggingface.tree_hash(loaded) == huggingface.tree_hash(expected)


def test_every_flipped_byte_of_a_tree_is_noticed(tmp_path):
    path = tmp_path / "tree.safetensors"
    tree = {"a": {"b": jnp.arange(6.0)}, "c": jnp.ones((2, 2))}
    huggingface.save_tree(path, tree, {"kind": "test"})
    loaded, metadata = huggingface.load_tree(path)
    assert metadata["kind"] == "test"
    assert huggingface.tree_hash(loaded) == huggingface.tree_hash(tree)
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError):
            huggingface.load_tree(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        huggingface.load_tree(path)
