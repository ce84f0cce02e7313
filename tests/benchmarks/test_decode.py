"""The decoding benchmark compares the same work: its peer writes the same tokens."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bua_jax.benchmarks import decode
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.planning import roofline
from tests.support.helpers import random_base, require
from tests.support.runs import verb


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the verb finds for nano: four rows of 20 + 12 tokens, of which none is a near tie."""
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    flags = ("--batches=4", "--length=20", "--new=12", "--labels=5", "--repeats=1")
    done = verb("bench", "decode", *flags, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "bandwidth_share" in done.stdout
    return json.loads(output.read_text())


@pytest.mark.long
def test_both_sides_write_the_same_tokens(written: dict[str, Any]) -> None:
    (found,) = written["decoding"]
    assert found["same_as_transformers"] == 1
    assert found["prefill_tokens_per_second"] > 0
    assert found["transformers"] > 0


def test_a_step_is_what_it_adds_to_the_prefill() -> None:
    """Differences of 0.6, 1.0 and 0.8 s over four steps; a prefill slower than the whole hides them."""
    assert decode.step_seconds([1.6, 3.0, 1.8], [1.0, 2.0, 1.0], 4) == pytest.approx(0.2)
    assert decode.step_seconds([1.0], [1.1], 4) is None


@pytest.mark.long
def test_a_preset_on_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights, spread over eight fake devices; transformers reads the same."""
    eight = f"--xla_force_host_platform_device_count=8 {os.environ['XLA_FLAGS']}"
    monkeypatch.setenv("XLA_FLAGS", eight)
    flags = ("--base=nano", "--mesh=2x2x2", "--batches=4", "--length=20", "--new=6", "--repeats=1")
    output = tmp_path / "bench.json"
    done = verb("bench", "decode", "--parts=generate", *flags, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "nano (float32, mesh 2x2x2)" in done.stdout
    found = json.loads(output.read_text())
    assert {"decoding", "roofline_minutes"} <= set(found)
    assert not {"types", "weights", "labels"} & set(found)
    assert found["decoding"][0]["same_as_transformers"] == 1


def test_an_unknown_part_is_refused() -> None:
    done = verb("bench", "decode", "--parts=packing")
    assert done.returncode == 2
    assert "--parts has packing; it takes some of generate, types, weights, labels" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("biases", [True, False], ids=["qwen2", "llama"])
def test_llama_cpp_writes_the_same_tokens(biases: bool, tmp_path: Path) -> None:
    """Several rows at once, 600 tokens in micro-batches of 512. Needs the extra llama-cpp."""
    require("llama_cpp")
    config = Qwen2Config(300, 256, 512, 2, 8, 2, 32, qkv_bias=biases, tie_word_embeddings=biases)
    random_base(tmp_path, config)
    (found,) = decode.compare_generate(tmp_path, batches=[6], prompt=100, new=8, repeats=1)
    assert found["same_as_llama_cpp"] == 1


@pytest.mark.long
def test_types_agree_with_themselves(written: dict[str, Any]) -> None:
    """float32: cached decoding is a whole forward, token for token; bfloat16 rounds near ties away."""
    same = {(row["engine"], row["forward"]): row["same"] for row in written["types"]}
    assert len(same) == 4
    assert same["float32", "float32"] == 1
    assert all(0.8 < share <= 1 for share in same.values())


@pytest.mark.long
def test_narrow_weights_say_nearly_the_same(written: dict[str, Any]) -> None:
    """Nats per token to float32 on nano's own dialogues: at most 1e-3 in bfloat16 and 5e-3 in int8."""
    found = {row["weights"]: row for row in written["weights"]}
    assert found["float32"]["kl"] == 0
    assert 0 < found["bfloat16"]["kl"] < 1e-3
    assert found["bfloat16"]["kl"] < found["int8"]["kl"] < 5e-3
    assert found["int8"]["mib"] < 0.3 * found["float32"]["mib"]


@pytest.mark.long
def test_labels_have_all_three_ratios(written: dict[str, Any]) -> None:
    found = written["labels"]
    assert set(found) == {"with_prefill", "tree", "separate"}
    assert all(row["ratio"] > 0 for row in found.values())
    assert 1 < found["with_prefill"]["floor"] < 1.1  # some 15 tokens after 400


@pytest.mark.long
def test_full_predictions_have_the_same_texts(quickstart: Path, tmp_path: Path) -> None:
    """Three rounds of nano on test users, ours and by transformers on the merged directory."""
    found = decode.compare_predictions(quickstart, tmp_path / "merged", count=6, batch=4, repeats=1)
    assert found["same"] == 1
    assert found["minutes_for_20000"] == pytest.approx(20_000 / found["per_second"] / 60)


def test_the_roofline_of_7b() -> None:
    """12.6 minutes on one A100 and 4.0 on one H100 for 20,000 predictions (design), within 2 %."""
    config = PRESETS["qwen2.5-7b"]
    peaks = decode.PEAKS
    assert roofline.roofline_minutes(config, peaks["A100"]) == pytest.approx(12.6, rel=0.02)
    assert roofline.roofline_minutes(config, peaks["H100"]) == pytest.approx(4.0, rel=0.02)


def test_the_flops_of_reading_are_those_that_xla_counts() -> None:
    """A forward over 24 tokens, all through the head, within 5 %: norms, softmax and rope.

    XLA multiplies with the keys that are masked too: 24 for each of the 24.
    """
    config = Qwen2Config(500, 64, 192, 1, 4, 2, 16)  # a scan of layers is counted as one
    model = Qwen2(config)
    tokens = jax.ShapeDtypeStruct((1, 24), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    counted = jax.jit(model.apply).lower(variables, tokens).compile().cost_analysis()["flops"]
    assert roofline.inference_flops(config, 24, 24, 24 * 24) == pytest.approx(counted, rel=0.05)


def test_an_unknown_benchmark_is_refused() -> None:
    done = verb("bench", "decoding")
    assert done.returncode == 2
    assert "decoding" in done.stderr
