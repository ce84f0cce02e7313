"""What a trained adapter belongs to."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from bua_jax.alignment import bases, parts
from bua_jax.alignment.ask import Bua
from bua_jax.alignment.base_files import NANO
from bua_jax.basics import config as configs
from bua_jax.basics.errors import CheckpointError, MismatchError
from bua_jax.interop.huggingface import save_tree, tree_hash
from bua_jax.models.encoders import EncoderConfig
from bua_jax.training.events import EncoderSettings, fresh
from tests.dialogue.stores import make_store


def assembled(folder: Path, seed: int = 0, **given: Path) -> parts.Parts:
    """nano with a small encoder; given: what `assemble` takes."""
    store = make_store([[(0, i, 1, 0, False) for i in range(12)]])
    slots, labels = store.catalogue.slots_per_day, len(store.catalogue.behaviours)
    sizes = EncoderConfig("behavegpt", labels, slots, dim=2, num_layers=1, num_heads=2)
    params = fresh(sizes, EncoderSettings())
    metadata = {"config": sizes.to_json(), "catalogue": store.catalogue.to_json(), "data": "x"}
    save_tree(folder / "encoder.safetensors", params, {**metadata, "hash": tree_hash(params)})
    config = configs.load("configs/base.py")
    return parts.assemble(config.model, config.execution, folder, seed, **given)


def other_rope(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    had = config.get("rope_theta", 10000.0)
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": 2 * had}))


def other_tokens(base: Path) -> None:
    """Two letters change places."""
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_rope, r"with base_config '.*rope_theta 10000\.0.*' but here it is .* 20000\.0"),
        (other_tokens, "with tokenizer "),
    ],
)
def test_an_adapter_belongs_to_all_of_its_base(
    tmp_path: Path, monkeypatch, change, said: str
) -> None:
    """Not to its weights alone: with another tokenizer or other positions it writes garbage."""
    trained = tmp_path / "trained.safetensors"
    before = assembled(tmp_path)
    own = {name: before.variables[name] for name in ("adapter", "projector")}
    save_tree(trained, own, before.identity)
    parts.with_trained(before, trained)
    base = Path(shutil.copytree(NANO, tmp_path / "base"))
    monkeypatch.setattr(bases, "NANO", base)
    change(base)
    after = assembled(tmp_path)
    assert after.identity["base"] == before.identity["base"]
    with pytest.raises(MismatchError, match=said.replace("' but", "', but")):
        parts.with_trained(after, trained)


@pytest.mark.parametrize("kept", [("adapter", "projector"), ("adapter",)], ids=str)
def test_a_trained_model_is_that_which_was_made_afresh_and_then_filled(
    tmp_path: Path, kept: tuple[str, ...]
) -> None:
    """Nothing is made that is replaced; what the file does not hold is made."""
    trained, other = tmp_path / "trained.safetensors", assembled(tmp_path, seed=1)
    own = {name: other.variables[name] for name in kept}
    save_tree(trained, own, other.identity)
    expected = parts.with_trained(assembled(tmp_path), trained)
    found = assembled(tmp_path, trained=trained)
    assert {n: tree_hash(v) for n, v in found.variables.items()} == {
        n: tree_hash(v) for n, v in expected.variables.items()
    }
    assert tree_hash(found.variables["adapter"]) == tree_hash(own["adapter"])


def test_a_trained_model_does_not_need_the_adapter_that_it_began_with(tmp_path: Path) -> None:
    trained, other = tmp_path / "trained.safetensors", assembled(tmp_path)
    own = {name: other.variables[name] for name in ("adapter", "projector")}
    save_tree(trained, own, other.identity)
    config = configs.based_on("configs/base.py", "")
    config.model.adapter = str(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="moved"):
        parts.assemble(config.model, config.execution, tmp_path, 0)
    found = parts.assemble(config.model, config.execution, tmp_path, 0, trained=trained)
    assert tree_hash(found.variables["adapter"]) == tree_hash(own["adapter"])


def test_a_trained_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    trained, other = tmp_path / "trained.safetensors", assembled(tmp_path)
    projector = {**other.variables["projector"], "out": {"bias": np.zeros(3, np.float32)}}
    save_tree(trained, {"projector": projector}, other.identity)
    with pytest.raises(CheckpointError, match="shapes of projector do not fit"):
        assembled(tmp_path, trained=trained)


def test_answers_depend_on_a_base_that_was_trained_too(tmp_path: Path) -> None:
    """Two runs that trained the base itself may have equal adapters, which nothing trained."""
    before, found = assembled(tmp_path), set()
    own = {name: before.variables[name] for name in ("adapter", "projector")}
    source = tmp_path / "histories.jsonl"
    source.touch()
    for number in range(2):
        base = jax.tree.map(lambda x, number=number: x + number, before.variables["base"])
        trained = tmp_path / f"{number}.safetensors"
        save_tree(trained, {**own, "base": base}, before.identity)
        made = assembled(tmp_path, trained=trained)
        decoding = configs.load("configs/base.py").decoding
        found.add(Bua(made, decoding, np.ones(2) / 2).identity(source, "labels"))
    assert len(found) == 2
