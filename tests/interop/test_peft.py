"""PEFT folders: real PEFT reads ours and we read its, and nothing damaged is used."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from bua_jax.basics.errors import BuaError, CheckpointError, MismatchError
from bua_jax.interop import huggingface, peft
from bua_jax.models import lora
from bua_jax.models.lora import LoraConfig
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support.helpers import require

CONFIG = Qwen2Config(61, 32, 40, 2, 4, 2, 8, rope_theta=1e4, tie_word_embeddings=True)
LORA = LoraConfig(4, 12.0)
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 11))


def adapter_of(settings: LoraConfig, seed: int = 1) -> dict[str, Any]:
    """Both factors non-zero."""
    tree = lora.init(jax.random.key(seed), settings, CONFIG)
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    params = Qwen2(CONFIG).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    huggingface.save(folder, CONFIG, jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, params))
    return folder


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    peft.save(folder, adapter_of(LORA), LORA, base=str(base), base_hash="abc", card="# x\n")
    return folder


def logits(base: Path, adapter: Any, settings: LoraConfig) -> np.ndarray:
    config, params = huggingface.load(base)
    variables = {"params": params, "lora": adapter}
    return np.asarray(Qwen2(config, settings).apply(variables, jnp.asarray(TOKENS, jnp.int32)))


def assert_same(one: Any, two: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("targets", [lora.TARGETS, ("q", "v"), ("down",)])
def test_real_peft_loads_ours(base: Path, tmp_path: Path, targets: tuple[str, ...]) -> None:
    """1e-4: float32 rounding through two layers."""
    torch, peft_, transformers = require("torch"), require("peft"), require("transformers")
    shape = LoraConfig(4, 12.0, targets)
    adapter = adapter_of(shape)
    peft.save(tmp_path, adapter, shape, base=str(base), base_hash="abc", card="# x\n")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wrapped = peft_.PeftModel.from_pretrained(model, tmp_path).eval()
    with torch.no_grad():
        theirs = wrapped(torch.tensor(TOKENS)).logits.numpy()
    ours = logits(base, adapter, shape)
    assert np.abs(ours - theirs).max() <= 1e-4
    zero = jax.tree.map(jnp.zeros_like, adapter)
    assert np.abs(logits(base, zero, shape) - theirs).max() > 1e-2  # the adapter matters


def test_we_load_what_peft_wrote(base: Path, tmp_path: Path) -> None:
    torch, peft_, transformers = require("torch"), require("peft"), require("transformers")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    asked = peft_.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "o_proj", "up_proj"])
    wrapped = peft_.get_peft_model(model, asked).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.normal_(0, 0.2)
        theirs = wrapped(torch.tensor(TOKENS)).logits.numpy()
    wrapped.save_pretrained(tmp_path)
    found, adapter = peft.load(tmp_path, CONFIG)
    assert found == LoraConfig(3, 5.0, ("q", "o", "up"))
    assert np.abs(logits(base, adapter, found) - theirs).max() <= 1e-4


def test_rows_of_the_embedding_are_those_of_real_peft(base: Path, tmp_path: Path) -> None:
    """Both ways, in another order than ours, beside the projections: as PEFT's `trainable_token_indices`."""
    torch, peft_, transformers = require("torch"), require("peft"), require("transformers")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = [int(t) for t in dict.fromkeys(TOKENS[0])][:3]
    asked = peft_.LoraConfig(r=3, target_modules=["q_proj"], trainable_token_indices=tokens[::-1])
    wrapped = peft_.get_peft_model(model, asked).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name or "trainable_tokens" in name:
                value.normal_(0, 0.2)
        theirs = wrapped(torch.tensor(TOKENS)).logits.numpy()
    wrapped.save_pretrained(tmp_path / "theirs")
    found, adapter = peft.load(tmp_path / "theirs", CONFIG)
    assert found.tokens == tuple(sorted(tokens))
    assert np.abs(logits(base, adapter, found) - theirs).max() <= 1e-4
    without = dataclasses.replace(found, tokens=())
    rest = {"layers": adapter["layers"]}
    assert np.abs(logits(base, rest, without) - theirs).max() > 1e-2  # the rows matter

    peft.save(tmp_path / "ours", adapter, found, base=str(base), base_hash="abc", card="# x\n")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    again = peft_.PeftModel.from_pretrained(model, tmp_path / "ours").eval()
    with torch.no_grad():
        assert np.abs(again(torch.tensor(TOKENS)).logits.numpy() - theirs).max() <= 1e-6
    assert_same(peft.load(tmp_path / "ours", CONFIG, base_hash="abc")[1], adapter)


def test_round_trip(exported: Path) -> None:
    found, adapter = peft.load(exported, CONFIG, base_hash="abc")
    assert found == LORA
    assert_same(adapter, adapter_of(LORA))


def test_another_base(exported: Path) -> None:
    with pytest.raises(MismatchError, match="base abc, but this one is xyz"):
        peft.load(exported, CONFIG, base_hash="xyz")


def test_another_shape(exported: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing.*layers\.2"):
        peft.load(exported, Qwen2Config(61, 32, 40, 3, 4, 2, 8, rope_theta=1e4))
    with pytest.raises(CheckpointError, match="of another shape"):
        peft.load(exported, Qwen2Config(61, 32, 48, 2, 4, 2, 8, rope_theta=1e4))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"peft_type": "IA3"}, "no LoRA"),
        ({"use_dora": True}, "use_dora=True"),
        ({"use_rslora": True}, "use_rslora"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"r": "four"}, "r='four'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens=\[1, 2\]"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"use_qalora": True}, "use_qalora=True"),
        ({"task_type": "SEQ_CLS"}, "task_type='SEQ_CLS'"),
        ({"a_field_of_tomorrow": 3}, "a_field_of_tomorrow=3 .* not known"),
        ({"lora_alpha": 1e300}, "lora_alpha"),
        ({"layers_to_transform": 0}, "layers_to_transform=0"),
        ({"a_factor_of_tomorrow": 0.0}, "a_factor_of_tomorrow"),
        (
            {"trainable_token_indices": [1, 1]},
            r"trainable_token_indices=\[1, 1\], expected different",
        ),
        ({"trainable_token_indices": {"lm_head": [1]}}, "of embed_tokens alone"),
        ({"trainable_token_indices": [4, -1]}, r"\[4, -1\]"),
    ],
)
def test_what_we_can_not_compute(exported: Path, tmp_path: Path, changes, text: str) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "a"))
    values = json.loads((folder / peft.CONFIG).read_text())
    (folder / peft.CONFIG).write_text(json.dumps(values | changes))
    with pytest.raises(CheckpointError, match=text):
        peft.load(folder, CONFIG)


def test_fields_that_change_nothing(exported: Path, tmp_path: Path) -> None:
    """All that peft writes by itself, and starts that leave the base as it is."""
    values = json.loads((exported / peft.CONFIG).read_text())
    values |= {"init_lora_weights": "gaussian", "lora_dropout": 0.1, "layers_pattern": "layers"}
    values |= {"loftq_config": {}, "alora_invocation_tokens": None, "qalora_group_size": 16}
    (tmp_path / peft.CONFIG).write_text(json.dumps(values))
    save_file(load_file(exported / peft.TENSORS), tmp_path / peft.TENSORS, {"format": "pt"})
    assert_same(peft.load(tmp_path, CONFIG)[1], adapter_of(LORA))


def test_values_that_are_not_finite_are_named(exported: Path, tmp_path: Path) -> None:
    (tmp_path / peft.CONFIG).write_bytes((exported / peft.CONFIG).read_bytes())
    tensors = load_file(exported / peft.TENSORS)
    name = min(tensors)
    tensors[name][0, 0] = np.nan
    save_file(tensors, tmp_path / peft.TENSORS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"tensor {name} holds values that are not finite"):
        peft.load(tmp_path, CONFIG)


def test_a_pickle_is_refused(exported: Path, tmp_path: Path) -> None:
    shutil.copy(exported / peft.CONFIG, tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"Only safetensors are read, not adapter_model\.bin"):
        peft.load(tmp_path, CONFIG)


def damaged(exported: Path, folder: Path, name: str, data: bytes) -> None:
    """Writes a copy of the exported folder with one file replaced; it must be refused."""
    for other in (peft.CONFIG, peft.TENSORS):
        (folder / other).write_bytes((exported / other).read_bytes())
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError):
        peft.load(folder, CONFIG, base_hash="abc")


def test_a_thousand_bit_flips_are_detected(exported: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1000):
        # Every fourth in the config, every fourth in the tensors' header, the others anywhere.
        name = peft.CONFIG if number % 4 == 0 else peft.TENSORS
        data = bytearray((exported / name).read_bytes())
        header = 8 + int.from_bytes((exported / peft.TENSORS).read_bytes()[:8], "little")
        end = header if number % 4 == 1 else len(data)
        data[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
        damaged(exported, tmp_path, name, bytes(data))


def test_two_hundred_truncations_are_detected(exported: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        name = (peft.CONFIG, peft.TENSORS)[number % 2]
        data = (exported / name).read_bytes()
        damaged(exported, tmp_path, name, data[: int(rng.integers(len(data)))])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_headers_raise_our_errors_only(exported: Path, tmp_path_factory, data) -> None:
    """Without our hash, as in a folder of PEFT's own: an error of ours, or the whole adapter."""
    folder = tmp_path_factory.mktemp("fuzz")
    raw = (exported / peft.TENSORS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = {"format": "pt"}
    text = bytearray(json.dumps(header).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    (folder / peft.TENSORS).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    config = json.loads((exported / peft.CONFIG).read_text())
    key = data.draw(st.sampled_from(["none", *config]))
    if key != "none":
        config[key] = data.draw(st.one_of(st.none(), st.integers(-2, 9), st.text(max_size=4)))
    (folder / peft.CONFIG).write_text(json.dumps(config))
    try:
        found, adapter = peft.load(folder, CONFIG)
    except BuaError:
        return
    assert jax.tree.map(jnp.shape, adapter) == jax.tree.map(
        jnp.shape, jax.eval_shape(lambda: lora.init(jax.random.key(0), found, CONFIG))
    )
