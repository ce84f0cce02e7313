"""The training benchmark compares the same work: losses agree, and a peer that differs is an error."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest

from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.benchmarks import packing, train
from bua_jax.benchmarks.worker import Worker, WorkerFailed
from bua_jax.feed.packing import plan_packing
from bua_jax.interop import huggingface
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support.helpers import require
from tests.support.runs import verb

TINY = Qwen2Config(3072, 16, 32, 2, 4, 2, 4, rope_theta=1e4, max_positions=512)
ROWS, LENGTH, SUPERVISED = 4, 32, 8


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory that says nothing but a shape; nano's tokens fit it."""
    huggingface.write_config(tmp_path / "base", TINY)
    return tmp_path / "base"


def shape_of(base: Path) -> train.Shape:
    return train.make_shape(
        str(base), rows=ROWS, length=LENGTH, share=0.25, microbatches=1, merge_adapter=False
    )


@pytest.mark.long
def test_the_verb(base: Path, tmp_path: Path) -> None:
    for module in ("torch", "transformers", "peft"):
        require(module)
    output = tmp_path / "bench.json"
    flags = (f"--base={base}", f"--rows={ROWS}", f"--length={LENGTH}", "--microbatches=2")
    flags += ("--peers=eager,supervised", "--dialogues=40", "--repeats=2", f"--output={output}")
    done = verb("bench", "train", *flags)
    assert done.returncode == 0, done.stderr
    for column in ("supervised_per_second", "of_matmul", "peak_mib", "temporaries_mib", "fill"):
        assert column in done.stdout
    found = json.loads(output.read_text())
    assert found["left_out"] == {}
    assert found["matmul_flops_per_second"] > 0

    ours, *peers = found["peers"]
    assert [row["step"] for row in found["peers"]] == ["bua_jax", "eager", "supervised"]
    assert (ours["compilations"], ours["ratio"]) == (1, 1)
    assert ours["compile_seconds"] > ours["seconds"]
    assert ours["losses"][0] == pytest.approx(math.log(TINY.vocab_size), rel=0.02)
    assert ours["losses"][0] > ours["losses"][1] > ours["losses"][2]
    for row in found["peers"]:
        rate = ROWS * LENGTH / row["seconds"]
        assert row["tokens_per_second"] == pytest.approx(rate)
        assert row["supervised_per_second"] == pytest.approx(rate * SUPERVISED / LENGTH)
        assert row["peak_mib"] >= row["loaded_mib"] > 50
        assert row["lowest"] <= row["ratio"] <= row["highest"]
        assert 0 < row["of_matmul"] < 1
        assert row["of_peak"] is None
    for row in peers:
        assert row["losses"] == pytest.approx(ours["losses"], rel=1e-4)

    packed, padded = found["packing"]
    assert packed["row_length"] > padded["row_length"]
    assert 0.5 < packed["fill"] <= 1
    assert padded["rows"] == padded["dialogues"] == 16
    assert packed["rows"] < packed["dialogues"]
    memory = {row["remat"]: row["temporaries_mib"] for row in found["remat_policies"]}
    assert memory["none"] > memory["dots"] > memory["full"] > 0
    weighed = {row["balancer"]: row for row in found["balancers"]}
    assert list(weighed) == ["equal", "log_loss", "famo", "upgrad"]
    assert weighed["upgrad"]["kinds"] == 2
    assert 1 == weighed["equal"]["bound"] == weighed["log_loss"]["bound"]
    assert 1 < weighed["upgrad"]["bound"] < 2


def test_rows_of_five_mean_dialogues_are_full(base: Path) -> None:
    shape = shape_of(base)
    records = packing.stage2_records(shape.config, shape.sizes, 300)
    fill = packing.packing_fill(records, 0)
    assert [row["row_length"] for row in fill] == [1024, 2048, 4096, 8192]
    assert all(row["fill"] >= 0.95 for row in fill)
    assert all(row["mean_dialogues"] >= 5 for row in fill)
    short = plan_packing(records, row_length=400, batch_dialogues=1, seed=0)
    assert short.fill < 0.95  # the control: rows of 2.2 mean dialogues


@pytest.mark.long
def test_a_peer_that_differs_is_an_error(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One peer breaks, which is said; the other has our weights and another learning rate."""
    require("torch")
    shape, job = shape_of(base), train.peer_job
    train.write_inputs(shape, tmp_path)

    def altered(shape, folder, peer, platform):
        faster = {**job(shape, folder, peer, platform), "learning_rate": 1e-2}
        return faster if peer == "supervised" else {**faster, "folder": str(tmp_path / "nothing")}

    monkeypatch.setattr(train, "peer_job", altered)
    with pytest.raises(MismatchError, match=r"Step 2: our loss is .* that of supervised"):
        train.compare_peers(shape, tmp_path, ("eager", "supervised"), 1)
    assert "eager is left out: exit code 1" in capsys.readouterr().err


@pytest.mark.long
def test_without_tunix_the_peer_is_left_out(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is installed: a module that cannot be imported stands before it."""
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "tunix.py").write_text("raise ImportError('No module named tunix')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"), prepend=os.pathsep)
    shape = shape_of(base)
    train.write_inputs(shape, tmp_path)
    rows, _, left_out = train.compare_peers(shape, tmp_path, ("tunix",), 1)
    assert [row["step"] for row in rows] == ["bua_jax"]
    assert "No module named tunix; pip install google-tunix" in left_out["tunix"]


@pytest.mark.long
@pytest.mark.parametrize("llama", [False, True], ids=["biases", "tied"])
def test_tunix_agrees(llama: bool, tmp_path: Path) -> None:
    """With accumulation too; the Llama shape has no biases, tied embeddings and a theta of its own.

    Needs `pip install google-tunix`, which no extra does: it holds back versions of ours.
    """
    require("tunix")
    sizes = dataclasses.replace(TINY, qkv_bias=not llama, tie_word_embeddings=llama)
    huggingface.write_config(tmp_path / "base", sizes)
    shape = dataclasses.replace(shape_of(tmp_path / "base"), microbatches=2)
    train.write_inputs(shape, tmp_path)
    (ours, theirs), _, left_out = train.compare_peers(shape, tmp_path, ("tunix",), 1)
    assert left_out == {}
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-4)
    assert theirs["compilations"] >= 1


def test_agreement() -> None:
    ours = [7.0, 6.9]
    train.check_agreement("x", ours, [7.0, 6.9003], 1e-4)
    for theirs in ([7.001, 6.9], [7.0, 6.899], [7.0, math.nan]):
        with pytest.raises(MismatchError, match="that of x"):
            train.check_agreement("x", ours, theirs, 1e-4)


@pytest.mark.long
def test_compiled_peers_agree(base: Path, tmp_path: Path) -> None:
    """torch.compile needs a C++ compiler and a minute."""
    require("torch")
    shape = shape_of(base)
    train.write_inputs(shape, tmp_path)
    peers = ("compiled", "supervised_compiled")
    rows, _, left_out = train.compare_peers(shape, tmp_path, peers, 1)
    assert left_out == {}
    assert [row["compilations"] for row in rows] == [1, 1, 1]


def test_a_worker_that_ends_says_why() -> None:
    with Worker("no_such_module", {}) as worker, pytest.raises(WorkerFailed, match="No module"):
        worker.call("step")


def test_impossible_shapes() -> None:
    good = {"rows": 4, "length": 32, "share": 0.25, "microbatches": 1}
    for bad, named in (
        ({"share": 0.001}, "--supervised_share"),
        ({"share": 1.0}, "--supervised_share"),
        ({"microbatches": 3}, "--rows=4"),
        ({"length": 4096}, "2048 positions"),
    ):
        with pytest.raises(ConfigError, match=named):
            train.make_shape("nano", **{**good, **bad})


# By blocks of 128 queries all keys are scored, by blocks of 48 (48 * 48 + 16 * 64) / 64 of them.
@pytest.mark.parametrize(("attention", "keys"), [("xla", 64), ("cpu", 52)])
def test_flops_are_those_of_the_layers_and_the_answers(attention: str, keys: int) -> None:
    """A frozen base: two passes over its kernels, three over the adapter; no logits elsewhere."""
    shape = train.make_shape(
        "nano", rows=2, length=64, share=0.25, microbatches=1, merge_adapter=True
    )
    shape.config.execution.attention = attention
    kernels = 6 * (2 * 160 * 192 + 2 * 160 * 64 + 3 * 160 * 384)
    ranks = 6 * 16 * (2 * (160 + 192) + 2 * (160 + 64) + 3 * (160 + 384))
    scores = 3 * 4 * 128 * keys * 6 * 192
    head = 2 * 2 * 32 * 160 * 3072
    expected = 2 * 128 * (2 * kernels + 3 * ranks) + scores + head
    assert train.step_flops(shape) == pytest.approx(expected)


def test_published_peaks() -> None:
    assert train.table_peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert train.table_peak("NVIDIA H100 80GB HBM3", "float32") == 989e12 / 2
    assert train.table_peak("TPU v5 lite", "bfloat16") == 197e12
    assert train.table_peak("cpu", "float32") is None


def test_presets_bring_their_configs_settings() -> None:
    """The paper's model is bfloat16 on a GPU, and nano's adapter is merged."""
    shape = train.make_shape(
        "qwen2.5-7b", rows=1, length=4096, share=0.25, microbatches=1, remat="dots"
    )
    assert (shape.sizes.dtype, shape.sizes.remat) == ("bfloat16", "dots")
    assert shape.sizes.hidden_size == PRESETS["qwen2.5-7b"].hidden_size
    nano = train.make_shape("", rows=1, length=64, share=0.25, microbatches=1)
    assert nano.config.execution.merge_adapter
