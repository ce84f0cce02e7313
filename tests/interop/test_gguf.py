"""GGUF files that the test writes, against transformers' own loading of them; damaged ones."""

import dataclasses
import random
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from bua_jax.alignment.bases import base_folder
from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.interop import gguf as bua_gguf
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import load_tokenizer
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support.helpers import random_base, require

# Rows of a multiple of 256: K-quants come in blocks of that size.
CONFIG = Qwen2Config(300, 256, 512, 2, 8, 2, 32, tie_word_embeddings=True, rms_norm_eps=1e-5)
_BYTES = {"Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,))}  # size, f16 scales


def _stored(gguf, weights: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """`weights` as blocks of the format; K-quants, which the package only reads, get random blocks."""
    kind = gguf.GGMLQuantizationType[name]
    if name not in _BYTES:
        return gguf.quantize(weights, kind)
    size, scales = _BYTES[name]
    blocks = rng.integers(0, 256, (weights.size // 256, size), dtype=np.uint8)
    for at in scales:
        small = rng.uniform(1e-4, 4e-4, len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = small[:, None].view(np.uint8)
    return blocks.reshape(len(weights), -1)


def _vocabulary() -> tuple[list[str], list[str], list[int]]:
    """The byte alphabet, two merges, ChatML, unused rows: tokens, merges, types."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    tokens = [*letters, "ab", "Ġab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    types = [1] * 258 + [3] * 3
    while len(tokens) < CONFIG.vocab_size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
    return tokens, ["a b", "Ġ ab"], types


def write(path: Path, architecture: str, kind: str = "F32", **changes) -> Path:
    """A GGUF file with random weights. `changes` override metadata; None leaves a key out."""
    gguf = require("gguf")
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    tokens, merges, types = _vocabulary()
    values = {
        "block_count": CONFIG.num_layers,
        "context_length": 512,
        "embedding_length": CONFIG.hidden_size,
        "feed_forward_length": CONFIG.intermediate_size,
        "attention.head_count": CONFIG.num_heads,
        "attention.head_count_kv": CONFIG.num_kv_heads,
        "rope.freq_base": 1e4,
        **changes,
    }
    for name, value in values.items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{name}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{name}", value)
        elif name.startswith("split."):
            writer.add_uint16(name, value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture == "qwen2" else "smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(260)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    h, i, d = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.head_dim
    q, kv = CONFIG.num_heads * d, CONFIG.num_kv_heads * d
    block = {"attn_q": (q, h), "attn_k": (kv, h), "attn_v": (kv, h), "attn_output": (h, q)}
    block |= {"ffn_gate": (i, h), "ffn_up": (i, h), "ffn_down": (h, i)}
    shapes = {"token_embd.weight": (CONFIG.vocab_size, h), "output_norm.weight": (h,)}
    for layer in range(CONFIG.num_layers):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes |= {f"blk.{layer}.{name}.weight": (h,) for name in ("attn_norm", "ffn_norm")}
        if architecture == "qwen2":
            shapes |= {
                f"blk.{layer}.attn_{x}.bias": (s,) for x, s in zip("qkv", (q, kv, kv), strict=True)
            }
    for name, shape in shapes.items():
        weights = rng.normal(0, 0.05, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, weights + ("norm" in name))
        else:
            raw = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, _stored(gguf, weights, kind, rng), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", bua_gguf.TENSOR_TYPES)
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_logits_equal_transformers(architecture, kind, tmp_path):
    """1e-3 of logits of order 1, in float32; wrong q/k rows are outside (next test)."""
    torch, transformers = require("torch"), require("transformers")
    path = write(tmp_path / "model.gguf", architecture, kind)
    config, params = huggingface.load(bua_gguf.directory(path, tmp_path / "cache"))
    assert config.qkv_bias == (architecture == "qwen2")
    tokens = np.random.default_rng(1).integers(0, 256, (2, 24))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    ours = np.asarray(Qwen2(config).apply({"params": params}, jnp.asarray(tokens)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("biases", [True, False], ids=["qwen2", "llama"])
def test_transformers_reads_what_we_write(biases, tmp_path):
    """Its own loading of the file, against the directory that was written; same tolerance."""
    torch, transformers = require("torch"), require("transformers")
    config = dataclasses.replace(CONFIG, qkv_bias=biases, tie_word_embeddings=not biases)
    params = random_base(tmp_path, config)
    bua_gguf.write(tmp_path / "model.gguf", tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    tokens = np.random.default_rng(1).integers(0, 256, (2, 24))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    ours = np.asarray(Qwen2(config).apply({"params": params}, jnp.asarray(tokens)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-3, rtol=0)


def test_llama_rows_are_put_back_in_order(tmp_path, monkeypatch):
    """Against the stored rows; and without it the logits fail the test above (negative control)."""
    path = write(tmp_path / "model.gguf", "llama")
    config, params = huggingface.load(bua_gguf.directory(path, tmp_path / "cache"))
    gguf = require("gguf")
    stored = {t.name: t.data for t in gguf.GGUFReader(path).tensors}["blk.0.attn_q.weight"]
    ours = np.asarray(params["layers"]["self_attn"]["q_proj"]["kernel"][0]).T
    assert not np.array_equal(ours, stored)
    # llama.cpp's own permutation, head by head: row 2i is the first half's i, 2i + 1 the second's.
    d = CONFIG.head_dim
    for head in range(CONFIG.num_heads):
        block, source = ours[head * d : (head + 1) * d], stored[head * d : (head + 1) * d]
        np.testing.assert_array_equal(block[: d // 2], source[0::2])
        np.testing.assert_array_equal(block[d // 2 :], source[1::2])
    monkeypatch.setattr(bua_gguf, "_unpermuted", lambda rows, heads: rows)
    _, wrong = huggingface.load(bua_gguf.directory(path, tmp_path / "wrong"))
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 24)))
    logits = [Qwen2(config).apply({"params": p}, tokens) for p in (params, wrong)]
    assert np.abs(np.asarray(logits[0] - logits[1])).max() > 1e-3


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_tokenizer_and_chat_template_come_from_the_metadata(architecture, tmp_path):
    transformers = require("transformers")
    path = write(tmp_path / "model.gguf", architecture)
    folder = bua_gguf.directory(path, tmp_path / "cache")
    ours = load_tokenizer(folder, CONFIG.vocab_size)
    assert {ours.soft_start, ours.soft, ours.soft_end} == {297, 298, 299}  # unused rows
    text = "ab ab 42 caf\u00e9 \u65e5\u672c <|im_end|>"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.decode(ours.encode(text)) == text
    assert theirs(text.replace("<|im_end|>", ""))["input_ids"] == ours.encode(
        text.replace("<|im_end|>", "")
    )
    assert theirs.eos_token == "<|im_end|>"
    message = [{"role": "user", "content": "hi"}]
    assert theirs.apply_chat_template(message, tokenize=False) == "hi"


def test_a_conversion_is_reused(tmp_path):
    neutral = {"rope.scaling.factor": 1.0, "rope.dimension_count": 32, "expert_count": 0}
    path = write(tmp_path / "model.gguf", "qwen2", **neutral, **{"split.count": 1})
    folder = bua_gguf.directory(path, tmp_path / "cache")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert bua_gguf.directory(path, tmp_path / "cache") == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", ["model-00001-of-*", "tokenizer.json", "hashes.json"])
def test_an_altered_conversion_is_made_anew(tmp_path, capsys, name: str) -> None:
    path = write(tmp_path / "model.gguf", "qwen2")
    folder = bua_gguf.directory(path, tmp_path / "cache")
    (file,) = folder.glob(name)
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert bua_gguf.directory(path, tmp_path / "cache") == folder
    assert "was cut or altered" in capsys.readouterr().err
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("architecture", "kind", "changes", "message"),
    [
        ("gpt2", "F32", {}, "architecture 'gpt2' is none of qwen2, llama"),
        ("qwen2", "Q5_1", {}, "format Q5_1; F32, F16"),
        ("qwen2", "F32", {"rope.scaling.type": "yarn"}, "rope scaling is not supported"),
        ("llama", "F32", {"rope.scaling.factor": 4.0}, r"llama\.rope\.scaling\.factor=4"),
        ("llama", "F32", {"rope.scale_linear": 2.0}, r"llama\.rope\.scale_linear=2"),
        ("llama", "F32", {"rope.dimension_count": 16}, r"rope\.dimension_count is 16, only .*32"),
        ("qwen2", "F32", {"attention.sliding_window": 64}, r"attention\.sliding_window=64"),
        ("llama", "F32", {"attention.causal": False}, r"attention\.causal=0 is not supported"),
        ("llama", "F32", {"attention.head_count_kv": 3}, r"model\.gguf: .* 3 kv heads"),
        ("llama", "F32", {"rope.freq_base": float("inf")}, r"rope\.freq_base is inf"),
        ("qwen2", "F32", {"expert_count": 8}, r"expert_count=8"),
        ("qwen2", "F32", {"split.count": 3}, r"one of 3 parts of a model. Join them first"),
        ("qwen2", "F32", {"block_count": 2**26}, r"block_count is 67108864, but the file holds"),
        ("qwen2", "F32", {"block_count": None}, r"qwen2\.block_count is None"),
        ("qwen2", "F32", {"block_count": 3}, r"layers\.2\..* is missing, expected"),
        ("llama", "F32", {"feed_forward_length": 768}, r"is \(512, 256\), expected \(768, 256\)"),
    ],
)
def test_files_that_are_refused(architecture, kind, changes, message, tmp_path):
    path = write(tmp_path / "model.gguf", architecture, kind, **changes)
    with pytest.raises(CheckpointError, match=message):
        bua_gguf.directory(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*")), "nothing half-converted stays"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = write(tmp_path_factory.mktemp("gguf") / "model.gguf", "qwen2", "Q8_0")
    return path.read_bytes()


def _converted(content: bytes, folder: Path) -> bool:
    """Whether the bytes convert; only our own error may come out, and nothing stays behind it."""
    folder.mkdir(exist_ok=True)
    path = folder / "model.gguf"
    path.write_bytes(content)
    cache = folder / "cache"
    try:
        huggingface.load(bua_gguf.directory(path, cache))
    except CheckpointError:
        assert not list(cache.glob(".*"))
        return False
    return True


def test_truncated_files_are_refused(whole, tmp_path):
    rng = random.Random(0)
    assert _converted(whole, tmp_path / "whole")
    for number in range(50):
        cut = rng.randrange(len(whole) - 64)  # the last tensor's padding may go
        assert not _converted(whole[:cut], tmp_path / str(number))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.integers(0, 7000), bit=st.integers(0, 7))
@example(at=489, bit=0)  # the tokens' key is another; the token types are still there
def test_mutated_headers_raise_our_error_or_load(whole, tmp_path, at, bit):
    """Metadata carry no hash: a flip inside a number or a token can pass, but nothing else comes out."""
    content = bytearray(whole)
    content[at] ^= 1 << bit
    _converted(bytes(content), tmp_path / f"{at}-{bit}")


def test_a_config_may_name_a_gguf_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "model.gguf", "llama")
    folder = base_folder(ConfigDict({"name": "smollm2-135m", "path": str(path)}))
    assert folder.parent == tmp_path / ".cache" / "bua_jax" / "gguf"
    missing = ConfigDict({"name": "smollm2-135m", "path": str(tmp_path / "none.gguf")})
    with pytest.raises(ConfigError, match=r"There is no .*none\.gguf.*launch/fetch_smollm2\.sh"):
        base_folder(missing)
