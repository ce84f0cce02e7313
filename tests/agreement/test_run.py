"""The verb `parity` on a trained run: a real step in float64, here, and in transformers + PEFT."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bua_jax.agreement import ours, peer, plain
from bua_jax.agreement import run as agreement_run
from bua_jax.agreement.quantities import QUANTITIES, above, tolerances
from bua_jax.agreement.run import asked
from bua_jax.basics.errors import ConfigError
from bua_jax.interop.huggingface import load_tree
from tests.support.helpers import require
from tests.support.runs import verb


@pytest.mark.long
def test_the_verb(quickstart: Path, tmp_path: Path) -> None:
    require("peft")
    flags = (f"--model={quickstart}", f"--output={tmp_path}", "--dialogues=3")
    done = verb("parity", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "parity.json").read_text())
    assert said["above"] == {"bua_jax": [], "transformers": []}
    assert {name.split()[0] for name in said["differences"]} == QUANTITIES.keys()
    assert {f"layer {n}" for n in range(1, 7)} <= said["differences"].keys()
    assert all(of["transformers"] is not None for of in said["differences"].values())
    batch, _ = load_tree(tmp_path / "batch.safetensors")
    reference, _ = load_tree(tmp_path / "reference.safetensors")
    assert reference["supervised"].shape == batch["tokens"].shape
    assert "nearer" in done.stdout
    done = verb("parity", *flags, "--tolerance=1e-12")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "above the tolerance" in done.stdout


@pytest.mark.long
def test_a_run_goes_out_and_its_answer_comes_back(quickstart: Path, tmp_path: Path) -> None:
    require("torch")
    out, flags = tmp_path / "step", (f"--model={quickstart}", "--dialogues=2")
    done = verb("parity", "export", *flags, f"--output={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    command = [sys.executable, "-I", str(out / "check.py"), "--without_torch"]
    script = subprocess.run(command, capture_output=True, text=True, check=False)
    assert script.returncode == 0, script.stdout + script.stderr
    answer = (f"--input={out / 'answer.json'}", f"--folder={out}")
    done = verb("parity", "check", *answer)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not compared" in done.stdout  # gradients
    data = bytearray((out / "reference.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "reference.safetensors").write_bytes(data)
    done = verb("parity", "check", *answer)
    assert done.returncode == 2
    assert "reference.safetensors is not what was exported" in " ".join(done.stderr.split())


@pytest.mark.long
def test_a_wrong_soft_token_is_seen(quickstart: Path) -> None:
    """Negative control: with two events exchanged on their side, embeddings differ, and all after them."""
    torch = require("torch")
    require("peft")
    one = asked(quickstart, 2)
    reference = one.reference(torch)
    states = one.batch["states"].copy()
    states[:, [0, 1]] = states[:, [1, 0]]
    wrong = {**one.batch, "states": states}
    found = peer.theirs(one.stage, ours.recipe(one.stage), wrong, reference)
    first, *rest = above(plain.differences(found, reference, one.batch), tolerances("float32"))
    assert first == "embedding"
    assert {"logits", "kl", "nll", "gradient projector/out/kernel"} <= set(rest)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("exprot",), "There is no action 'exprot'"),
        ((), "--output is needed"),
        (("check", "--folder=x"), "--input is needed"),
        (("machines",), "--runs is needed"),
    ],
)
def test_what_is_missing_is_said(flags: tuple[str, ...], said: str) -> None:
    done = verb("parity", *flags)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("quantization", "full", "said"),
    [("nf4", False, "rounded as no other"), ("none", True, "trained the base itself")],
)
def test_a_run_of_another_step_is_refused(
    quantization: str, full: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model": {"base_quantization": quantization}, "stage2": {"full_finetuning": full}}
    monkeypatch.setattr(agreement_run, "finished_stage", lambda run: ("stage2", {"config": config}))
    with pytest.raises(ConfigError, match=said):
        asked(tmp_path, 2)
