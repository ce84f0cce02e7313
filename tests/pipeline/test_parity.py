"""The verb `parity`: small differences on a real run, exit code 1 where one is above the tolerance."""

import json
from pathlib import Path

import numpy as np
import pytest

from bua_jax.alignment.base_files import NANO
from bua_jax.interop.huggingface import load_tree
from bua_jax.models import lora
from bua_jax.pipeline.finished import load
from bua_jax.pipeline.parity import batch_of, differences, ours, theirs
from tests.support.helpers import require
from tests.support.runs import verb

TOLERANCE = 1e-3  # float32 through four layers; gradients relative to their norm


def test_the_verb(quickstart: Path, tmp_path: Path) -> None:
    require("peft")
    flags = (f"--model={quickstart}", f"--output={tmp_path}", "--dialogues=3")
    done = verb("parity", *flags, "--tolerance=1e-12")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "above the tolerance" in done.stdout
    found = json.loads((tmp_path / "parity.json").read_text())["differences"]
    layers = load(quickstart).parts.model.llm.config.num_layers
    assert {f"layer {i}" for i in range(1, layers)} <= found.keys()
    assert {"logits", "kl", "top1", "loss round_balanced", "loss token_mean"} <= found.keys()
    gradients = [name for name in found if name.startswith("gradient")]
    assert len(gradients) == 2 * 6 + 2 * len(lora.TARGETS)  # two projectors
    assert max(found.values()) <= TOLERANCE
    batch, _ = load_tree(tmp_path / "batch.safetensors")
    reference, _ = load_tree(tmp_path / "reference.safetensors")
    assert reference["logits"].shape[:2] == batch["tokens"].shape
    assert {"soft_index", "round_ids", "states"} <= batch.keys()


@pytest.mark.long
def test_a_wrong_soft_token_is_seen(quickstart: Path) -> None:
    """Negative control: with two events exchanged on one side, nothing agrees."""
    require("peft")
    parts = load(quickstart).parts
    batch = batch_of(quickstart, parts, 2)
    mine = ours(parts, batch)
    states = mine["states"].copy()
    states[:, [0, 1]] = states[:, [1, 0]]
    found = differences(mine, theirs(parts, NANO, batch, states), batch["segments"] > 0)
    assert min(found["logits"], found["gradient projector/out/kernel"]) > 10 * TOLERANCE
    assert found["kl"] > 1e-6


def test_differences_by_hand() -> None:
    one = {
        "logits": np.array([[[0.0, 1.0], [3.0, 0.0]]]),
        "loss x": np.array(1.0),
        "gradient g": np.array([3.0, 4.0]),
    }
    two = {
        "logits": np.array([[[0.0, 1.5], [0.0, 0.0]]]),
        "loss x": np.array(1.25),
        "gradient g": np.array([3.0, 5.0]),
    }
    found = differences(one, two, np.array([[True, False]]))
    assert found["logits"] == 0.5  # padding does not count
    assert found["loss x"] == 0.25
    assert found["gradient g"] == pytest.approx(1 / np.sqrt(34))
    p, q = (1 / (1 + np.exp(-x)) for x in (1.5, 1.0))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found["kl"] == pytest.approx(expected, rel=1e-4)
    assert found["top1"] == 0
