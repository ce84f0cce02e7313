"""Directories and trees: round trips, and damaged files that are refused by name."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from bua_jax.basics.errors import CheckpointError
from bua_jax.interop import huggingface
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

CONFIG = Qwen2Config(31, 16, 24, 2, 4, 2, 4, tie_word_embeddings=False)


@pytest.fixture
def folder(tmp_path):
    params = Qwen2(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    huggingface.save(tmp_path / "model", CONFIG, params)
    return tmp_path / "model", params


@pytest.mark.parametrize("small", [0, 2**22])
def test_save_and_load_round_trip(folder, monkeypatch, small):
    """Also where what is small is large: it goes to the device one by one."""
    monkeypatch.setattr(huggingface, "_SMALL", small)
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


@pytest.mark.parametrize("small", [0, 2**22])
def test_bfloat16_checkpoints_load(folder, monkeypatch, small):
    monkeypatch.setattr(huggingface, "_SMALL", small)
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


def test_equal_trees_are_equal_files(tmp_path) -> None:
    """Whatever the order of names and the hashes of this process; all may read them."""
    tree = {"a": {"b": jnp.arange(6.0), "h": jnp.ones(3, jnp.bfloat16)}, "c": jnp.ones((2, 2))}
    metadata = {f"field {i}": "ä" * i for i in range(9)}
    found = set()
    for i in range(4):
        path = tmp_path / str(i)
        turned = dict(list(metadata.items())[::-1]) if i % 2 else metadata
        huggingface.save_tree(path, dict(list(tree.items())[:: 1 - i % 2 * 2]), turned)
        found.add(path.read_bytes())
        assert path.stat().st_mode & 0o777 == 0o644
        loaded, said = huggingface.load_tree(path)
        assert huggingface.tree_hash(loaded) == huggingface.tree_hash(tree)
        assert said["field 3"] == "äää"
    assert len(found) == 1


JUNK = st.none() | st.booleans() | st.integers(-3, 10**12) | st.text(max_size=3) | st.just([1])
FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _loads(path) -> bool:
    """Whether a directory loads; only our own error may come out otherwise."""
    try:
        huggingface.load(path)
    except CheckpointError:
        return False
    return True


@FUZZ
@given(data=st.data())
def test_a_mutated_config_raises_our_error_only(folder, data):
    path, _ = folder
    values = json.loads((path / "config.json").read_text())
    keys = sorted(values)
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        values[key] = data.draw(JUNK)
        if data.draw(st.booleans()):
            del values[key]
    kept = (path / "config.json").read_bytes()
    (path / "config.json").write_text(json.dumps(values))
    _loads(path)
    (path / "config.json").write_bytes(kept)
    assert _loads(path)


@FUZZ
@given(data=st.data())
def test_a_mutated_header_never_loads_other_shapes(folder, data):
    """The header carries no hash, so a flip in the padding may pass; another tree may not."""
    path, params = folder
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    size = int.from_bytes(content[:8], "little")
    for at in data.draw(st.lists(st.integers(0, size + 7), min_size=1, max_size=4)):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    kept = file.read_bytes()
    file.write_bytes(content)
    try:
        _, loaded = huggingface.load(path)
        shapes = jax.tree.map(jnp.shape, params)
        assert jax.tree.map(jnp.shape, loaded) == shapes
    except CheckpointError:
        pass
    file.write_bytes(kept)


def test_truncated_files_are_refused(folder):
    path, _ = folder
    file = path / "model.safetensors"
    content = file.read_bytes()
    for cut in np.random.default_rng(0).integers(0, len(content), 100):
        file.write_bytes(content[:cut])
        assert not _loads(path), f"cut to {cut} of {len(content)} bytes"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("[]", "holds no JSON object"),
        ("{", "is damaged"),
        ('{"weight_map": {"a": 3}}', "no weight_map"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "no weight_map"),
    ],
)
def test_a_damaged_index_is_refused(folder, index, message):
    path, _ = folder
    (path / "model.safetensors").rename(path / "model-1.safetensors")
    (path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        huggingface.load(path)


def configured(path, **fields):
    """Changes config.json; a field of None goes."""
    values = json.loads((path / "config.json").read_text()) | fields
    kept = {name: value for name, value in values.items() if value is not None}
    (path / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "linear", "factor": 1.0}},
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"hidden_act": None, "partial_rotary_factor": 1.0, "quantization_config": {}},
        {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
        {"layer_types": ["full_attention"] * 2, "is_llama_config": True, "mlp_bias": False},
    ],
)
def test_fields_that_change_nothing(folder, fields):
    path, _ = folder
    configured(path, **fields)
    assert huggingface.read_config(path) == CONFIG


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"factor": 8.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "partial_rotary_factor": 0.5,
            }
        },
        {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}},
        {"partial_rotary_factor": 0.5},
        {"partial_rotary_factor": 0},
        {"logits_scaling": 0.0},
        {"model_type": "llama"},
        {"layer_types": [["full_attention"]]},
        {"use_sliding_window": True},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"mlp_bias": True},
        {"logit_softcap": 30.0},
        {"scale_emb": 0.0},
        {"dim_model_base": 0},
    ],
)
def test_fields_that_could_change_the_maths_are_named(folder, fields):
    path, _ = folder
    configured(path, **fields)
    name = {"rope_parameters": "rope_"}.get(*fields, *fields)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{name}"):
        huggingface.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 2**26), ("intermediate_size", 2**30), ("vocab_size", 2**38)],
)
def test_sizes_are_bounded_by_the_files(folder, field, value):
    path, _ = folder
    configured(path, **{field: value})
    with pytest.raises(CheckpointError, match=str(value)):
        huggingface.load(path)


def test_a_whole_file_comes_before_an_index(folder, capsys):
    """As in transformers; what is left aside is said, an adapter too."""
    path, params = folder
    for name in ("old-1", "consolidated", "adapter_model"):
        save_file({"x": np.zeros(2, np.float32)}, path / f"{name}.safetensors")
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "old-1.safetensors"}}')
    assert huggingface.tree_hash(huggingface.load(path)[1]) == huggingface.tree_hash(params)
    said = capsys.readouterr().err
    for name in ("index.json", "old-1", "consolidated", f"--config.model.adapter={path}"):
        assert name in said
    (path / "model.safetensors.index.json").unlink()
    (path / "old-1.safetensors").unlink()
    (path / "model.safetensors").rename(path / "weights.safetensors")
    assert huggingface.tree_hash(huggingface.load(path)[1]) == huggingface.tree_hash(params)


def test_a_tied_head_with_values_of_its_own(folder):
    path, _ = folder
    configured(path, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"tie_word_embeddings=true, but lm_head\.weight is"):
        huggingface.load(path)
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, path / "model.safetensors")
    assert "lm_head" not in huggingface.load(path)[1]


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(folder, kind, value):
    path, _ = folder
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"] = np.full(16, value).astype(jnp.dtype(kind))
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"tensor model\.norm\.weight holds values that are not f"
    ):
        huggingface.load(path)
    huggingface.save_tree(
        path / "tree", {"projector": {"kernel": tensors["model.norm.weight"]}}, {}
    )
    with pytest.raises(CheckpointError, match=r"tree: tensor projector/kernel holds"):
        huggingface.load_tree(path / "tree")


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
    """Over the weights: measured 133 to 164 MiB; with kernels stacked on the host 421.

    Eight CPU devices share the host's memory and each holds the tensor on its way (measured: 222).
    """
    found = {}
    for devices in ("1", "8"):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, "-m", "tests.programs.load_weights", str(large), devices]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[devices] = json.loads(done.stdout)
    for weights, *_ in found.values():
        assert weights == pytest.approx(532, abs=1)
    assert found["1"][1] < 250
    assert found["8"][1] < 400
    assert found["1"][2] == found["8"][2], "the hash does not depend on the mesh"
    assert (found["1"][3], found["8"][3]) == (1, 1 / 8)
