"""Directories and trees: round trips, and damaged files that are refused by name."""

import json
import os
import subprocess
import sys

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


# Loads sys.argv[1] over sys.argv[2] devices; prints what the process held at most over the weights.
_LOADING = """
import json, re, sys
import jax, jax.numpy as jnp
from bua_jax.interop import huggingface
from bua_jax.training.sharding import make_mesh, shardings

def mib(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

jnp.zeros(3).block_until_ready()
before, mesh = mib("VmRSS"), make_mesh(sys.argv[2])
placement = lambda shapes: shardings({"base": shapes}, mesh)["base"]
_, params = huggingface.load(sys.argv[1], "float32", placement)
digest = huggingface.tree_hash(params)
leaves = jax.tree.leaves(params)
weights = sum(leaf.nbytes for leaf in leaves) / 2**20
shards = max(leaf.addressable_shards[0].data.nbytes / leaf.nbytes for leaf in leaves if leaf.ndim > 2)
print(json.dumps([weights, mib("VmHWM") - before - weights, digest, shards]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """(folder, hash) of 532 MiB in four shards; the stacked MLP kernels are 160 MiB each."""
    folder = tmp_path_factory.mktemp("large")
    config = Qwen2Config(1000, 512, 4096, 20, 8, 2, 64)
    huggingface.write_config(folder, config)
    shapes, rng = huggingface.expected_tensors(config), np.random.default_rng(0)
    weight_map = {}
    for number in range(4):
        names, shard = list(shapes)[number::4], f"model-{number}.safetensors"
        save_file({n: rng.random(shapes[n], np.float32) for n in names}, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    text = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)
    yield folder
    for path in folder.glob("*.safetensors"):
        path.unlink()


def test_tensors_stream_to_their_devices(large):
    """Less over the weights than one stacked kernel (measured: 133 MiB; stacked on the host, 421).

    Eight CPU devices share the host's memory and each holds the tensor on its way (measured: 222).
    """
    found = {}
    for devices in ("1", "8"):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, "-c", _LOADING, str(large), devices]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[devices] = json.loads(done.stdout)
    for weights, *_ in found.values():
        assert weights == pytest.approx(532, abs=1)
    assert found["1"][1] < 160
    assert found["8"][1] < 320
    assert found["1"][2] == found["8"][2], "the hash does not depend on the mesh"
    assert (found["1"][3], found["8"][3]) == (1, 1 / 8)
