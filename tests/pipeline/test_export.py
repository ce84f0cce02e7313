"""What `convert` writes works in transformers and PEFT: same greedy text, from soft tokens on."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.agreement.run import compare
from bua_jax.alignment.ask import Bua
from bua_jax.alignment.base_files import NANO
from bua_jax.alignment.parts import assemble
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.dialogue.prompts import next_turn, opening
from bua_jax.dialogue.tasks import INSTRUCTIONS
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.schema import EventStore
from bua_jax.interop import peft
from bua_jax.interop.huggingface import load_tree, save_tree, tree_hash
from bua_jax.pipeline import stages
from bua_jax.pipeline.export import _check_base, base_name, export
from bua_jax.pipeline.finished import finished_stage, load
from bua_jax.pipeline.steps import Run
from tests.support.helpers import ROOT, require
from tests.support.runs import REDUCED, verb


@pytest.fixture(scope="module")
def bua(quickstart: Path) -> Bua:
    return load(quickstart)


@pytest.fixture(scope="module")
def history(quickstart: Path, bua: Bua, tmp_path_factory):
    store = EventStore.load(quickstart / "data" / "events.parquet")
    path = tmp_path_factory.mktemp("h") / "h.jsonl"
    path.write_text("".join(example_lines(store, 1)))
    return read_histories(path, bua.catalogue, 40)[1][0]


def greedy(model, output: Path, bua: Bua, embeddings: np.ndarray, count: int) -> str:
    """The text that transformers continues the embeddings with; it stops as `output` says."""
    torch, transformers = require("torch"), require("transformers")
    with torch.no_grad():
        ids = model.generate(
            inputs_embeds=torch.tensor(embeddings)[None],
            attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
            max_new_tokens=count,
            generation_config=transformers.GenerationConfig.from_pretrained(output),
        )
    return bua.parts.tokenizer.decode(ids[0].tolist())


@pytest.mark.parametrize("merge", [False, pytest.param(True, marks=pytest.mark.long)])
def test_transformers_describes_as_we_do(
    quickstart: Path, bua: Bua, history, tmp_path: Path, merge: bool
) -> None:
    torch, peft_, transformers = require("torch"), require("peft"), require("transformers")
    output = tmp_path / "out"
    done = verb("convert", f"--model={quickstart}", f"--output={output}", *["--merge"] * merge)
    assert done.returncode == 0, done.stderr
    if merge:
        assert "bfloat16" in done.stdout
        model = transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    else:
        model = peft_.AutoPeftModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    kind = "key_behaviours"
    embeddings = bua.first_turn(history, INSTRUCTIONS[kind])
    ours = bua.describe(history).understanding[kind]
    assert len(ours) > 10
    assert greedy(model.eval(), output, bua, embeddings, bua.decoding.max_new_tokens) == ours


def test_transformers_talks_to_a_merged_directory(
    quickstart: Path, bua: Bua, tmp_path: Path
) -> None:
    """Its template writes our dialogues, token for token, and greedy text ends with the stop token."""
    torch, transformers = require("torch"), require("transformers")
    export(quickstart, tmp_path, merge=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours, (first, second) = bua.parts.tokenizer, list(INSTRUCTIONS.values())[:2]
    said = [("user", first), ("assistant", "eat, go"), ("user", second)]
    messages = [{"role": role, "content": text} for role, text in said]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    answer = [*ours.encode("eat, go"), ours.im_end]
    assert ids == [*opening(ours, 0, first), *answer, *next_turn(ours, second)]
    assert tokenizer.eos_token_id == ours.im_end
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    made = model.generate(torch.tensor([ids]), max_new_tokens=300)[0, len(ids) :].tolist()
    assert made[-1] == ours.im_end
    assert ours.im_end not in made[:-1]


def test_an_export_tells_nothing_of_this_machine(quickstart: Path, tmp_path: Path, monkeypatch):
    """Below this folder the base is named by its path from here, elsewhere by its name or its hub id."""
    export(quickstart, tmp_path / "adapter")
    export(quickstart, tmp_path / "merged", merge=True)
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "bua_jax/assets/nano"
    for path in (tmp_path / "adapter").iterdir(), (tmp_path / "merged").iterdir():
        for file in path:
            content = file.read_bytes()
            for folder in (quickstart, tmp_path, ROOT, Path.home()):
                assert len(str(folder)) < 6 or str(folder).encode() not in content, file
    monkeypatch.chdir(tmp_path)
    model = ConfigDict({"path": ""})
    assert base_name(model, NANO) == ("nano", None)
    model.path = "/home/anna/Qwen2.5.gguf"
    assert base_name(model, tmp_path.parent) == ("Qwen2.5", None)
    model.path = "Qwen/Qwen2.5-7B@abc"
    assert base_name(model, tmp_path.parent) == ("Qwen/Qwen2.5-7B", "abc")


def test_everything_that_soft_tokens_need_is_there(
    quickstart: Path, bua: Bua, tmp_path: Path
) -> None:
    flags = (f"--model={quickstart}", f"--output={tmp_path}", "--base=some/name")
    assert verb("convert", *flags).returncode == 0
    tree, metadata = load_tree(tmp_path / "projector.safetensors")
    assert metadata["encoder"] == load_tree(tmp_path / "encoder.safetensors")[1]["hash"]
    np.testing.assert_array_equal(
        tree["projector"]["out"]["bias"], bua.parts.variables["projector"]["out"]["bias"]
    )
    assert (
        json.loads((tmp_path / "soft_tokens.json").read_text())["soft"] == bua.parts.tokenizer.soft
    )
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nbase_model: some/name\nlibrary_name: peft\n")
    assert "| test users | rec_w" in card
    peft.load(tmp_path, bua.parts.model.llm.config, base_hash=bua.parts.identity["base"])
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    again = verb("convert", *flags)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_starts_from_an_exported_adapter(quickstart: Path, bua: Bua, tmp_path: Path) -> None:
    """Adapter and projector come back bit for bit; what does not belong is an error with both values."""
    export(quickstart, tmp_path / "adapter")
    had = ConfigDict(finished_stage(quickstart)[1]["config"])
    config, how, encoder = had.model, had.execution, quickstart / "encoder"
    config.adapter = str(tmp_path / "adapter")
    parts = assemble(config, how, encoder, seed=7)
    for group in ("adapter", "projector"):
        assert tree_hash(parts.variables[group]) == tree_hash(bua.parts.variables[group])
    with pytest.raises(MismatchError, match=r"rank 16.* but the config says rank 8"):
        assemble(ConfigDict({**config, "lora_rank": 8}), how, encoder, seed=7)
    with pytest.raises(MismatchError, match="soft_tokens 'sequence', but here it is 'item'"):
        assemble(ConfigDict({**config, "soft_tokens": "item"}), how, encoder, seed=7)


def trained(quickstart: Path, workdir: Path, *flags: str) -> Path:
    """A workdir in which stage 2 alone was trained for two steps, on the quickstart's dialogues."""
    for name in ("data", "encoder", "windows", "dialogues"):
        shutil.copytree(quickstart / name, workdir / name)
    common = ("--config=configs/quickstart.py", "--config.step=stage2", f"--workdir={workdir}")
    done = verb("train", *common, *REDUCED, "--config.stages=(2,)", *flags)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize("full", [True, False])
def test_a_stage_keeps_the_base_that_the_one_before_it_trained(monkeypatch, full: bool) -> None:
    """Or stage 3's adapter would be asked on another base than it was trained on."""
    had = {"stage2": {"full_finetuning": full}, "model": {"soft_tokens": "sequence"}}
    monkeypatch.setattr(stages, "recorded", lambda run, step: ConfigDict(had))
    variables = dict.fromkeys(("base", "encoder", "projector", "adapter"))
    run, parts = Run(ConfigDict(), Path()), SimpleNamespace(variables=variables)
    assert {*stages._kept(run, "stage2", parts, ("adapter",))} == {"projector", *["base"] * full}


def test_a_trained_base_is_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "trained.safetensors"
    for tree in ({"adapter": {"x": np.zeros(1)}}, {"base": {"x": np.zeros(1)}}):
        save_tree(path, tree, {})
        with pytest.raises(ConfigError, match="--merge") if "base" in tree else nullcontext():
            _check_base(path)


@pytest.mark.long
def test_training_from_an_adapter_starts_where_it_ended(quickstart: Path, tmp_path: Path) -> None:
    """Two steps of stage 2 alone, at a learning rate of nothing, leave the imported adapter."""
    export(quickstart, tmp_path / "adapter")
    still = [f"--config.stage2.{name}=0.0" for name in ("peak_lr", "initial_lr", "final_lr")]
    start = f"--config.model.adapter={tmp_path}/adapter"
    workdir = trained(quickstart, tmp_path / "run", *still, start)
    before, after = load(quickstart).parts.variables, load(workdir).parts.variables
    for group in ("adapter", "projector"):
        assert tree_hash(after[group]) == tree_hash(before[group])


def test_embeddings_of_labels_are_trained_and_exported(quickstart: Path, tmp_path: Path) -> None:
    """They move, and come back; that PEFT computes the same with them is in tests/interop/test_peft.py."""
    workdir = trained(quickstart, tmp_path / "run", "--config.model.train_label_tokens=True")
    bua = load(workdir)
    parts, shape = bua.parts, bua.parts.model.llm.lora
    assert shape is not None
    spelled = {i for label in bua.catalogue.behaviours for i in parts.tokenizer.encode(label)}
    assert spelled <= set(shape.tokens)
    table = np.asarray(parts.variables["base"]["embed_tokens"]["embedding"])
    rows = parts.variables["adapter"]["rows"]
    assert (np.abs(rows - table[list(shape.tokens)]).max(1) > 0).all()
    export(workdir, tmp_path / "adapter")
    had = ConfigDict(finished_stage(workdir)[1]["config"])
    model = ConfigDict({**had.model, "adapter": str(tmp_path / "adapter")})
    again = assemble(model, had.execution, workdir / "encoder", seed=7)
    assert tree_hash(again.variables["adapter"]) == tree_hash(parts.variables["adapter"])
    model.train_label_tokens = False
    with pytest.raises(MismatchError, match=r"with the embeddings of \d+ tokens, but the config"):
        assemble(model, had.execution, workdir / "encoder", seed=7)


@pytest.mark.long
def test_embeddings_of_labels_agree_with_peft(quickstart: Path, tmp_path: Path) -> None:
    """A step of a trained run, their gradients included; merged, transformers has their rows."""
    torch, transformers = require("torch"), require("transformers")
    require("peft")
    workdir = trained(quickstart, tmp_path / "run", "--config.model.train_label_tokens=True")
    parts = load(workdir).parts
    found = compare(workdir, tmp_path / "parity", dialogues=2)
    assert "gradient adapter/rows" in found["differences"]
    assert found["above"] == {"bua_jax": [], "transformers": []}
    export(workdir, tmp_path / "merged", merge=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    )
    table = model.get_input_embeddings().weight.detach().numpy()
    rows = np.asarray(parts.variables["adapter"]["rows"])
    assert np.array_equal(table[list(parts.model.llm.lora.tokens)], rows)
