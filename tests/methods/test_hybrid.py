"""TALLRec, CoLLM, LLaRA and A-LLMRec from events to predictions: what they train, cuts, odd label sets."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bua_jax.basics import config as configs
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.interop.huggingface import load_tree
from bua_jax.methods import hybrid
from bua_jax.methods.protocol import Cases, Histories
from bua_jax.training.hybrid import RampBatches
from tests.dialogue.stores import make_store
from tests.methods.sites import cases_about, config_of, data_of, fitted, loaded, site_of

NAMES = ("tallrec", "collm", "llara", "a_llmrec")
STORE = simulated_store(20, 10, 0)


def trained(folder: Path, name: str, store: EventStore = STORE, **page: Any) -> Mapping[str, Any]:
    """What a fit leaves."""
    site = site_of(folder, store, config_of(**page))
    fitted(site, data_of(store), name)
    return load_tree(site.folder / hybrid.TRAINED)[0]


def equal(one: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.long
def test_collms_first_phase_is_tallrec_and_its_second_leaves_that_alone(tmp_path: Path) -> None:
    """Bit for bit, where the target is the label as well."""
    words = trained(tmp_path / "words", "tallrec")
    both = trained(tmp_path / "both", "collm", target="label")
    assert {*words} == {"adapter"}
    assert {*both} == {"adapter", "projector"}
    assert equal(both["adapter"], words["adapter"])
    assert np.asarray(jax.tree.leaves(words["adapter"])[1]).any()  # b, which begins as 0
    other = trained(tmp_path / "other", "tallrec", peak_lr=1e-3)
    assert not equal(other["adapter"], words["adapter"])


def test_a_llmrec_leaves_the_language_model_as_it_is(tmp_path: Path) -> None:
    """Its adapter adds nothing; its encoder has items that the first stage made."""
    found = trained(tmp_path, "a_llmrec")
    assert {*found} == {"adapter", "projector", "encoder"}
    for module in found["adapter"]["layers"].values():
        assert all(not pair["b"].any() for pair in module.values())
    assert found["encoder"]["joint"]["kernel"].shape == (8, 128)
    assert found["encoder"]["joint"]["bias"].any()
    assert {*found["projector"]} == {"item", "user"}
    assert found["projector"]["item"]["hidden"]["kernel"].shape[0] == 128
    assert found["projector"]["user"]["hidden"]["kernel"].shape[0] == 8


def test_cut_and_gone_on_with_it_comes_out_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    """LLaRA's ramp goes on at its step: the same bytes as straight through."""
    page = {"epochs": 2.0}
    whole = site_of(tmp_path / "whole", STORE, config_of(**page))
    facts = fitted(whole, data_of(STORE), "llara")
    assert facts["phase1_steps"] >= 6
    cut, served = site_of(tmp_path / "cut", STORE, config_of(**page)), []
    following = RampBatches.__next__

    def until_six(self: RampBatches) -> Any:
        if len(served) == 5:
            raise KeyboardInterrupt
        served.append(following(self))
        return served[-1]

    with monkeypatch.context() as patch:
        patch.setattr(RampBatches, "__next__", until_six)
        with pytest.raises(KeyboardInterrupt):
            fitted(cut, data_of(STORE), "llara")
    assert not (cut.folder / hybrid.TRAINED).exists()
    assert any((cut.folder / "phase1" / "checkpoints").iterdir())
    assert fitted(cut, data_of(STORE), "llara") == facts
    files = [site.folder / hybrid.TRAINED for site in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


# ------------------------------------------------------------------------------------- a planted rule


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "epochs"), [("tallrec", 5.0), ("collm", 8.0), ("llara", 5.0), ("a_llmrec", 5.0)]
)
def test_what_always_comes_next_is_learnt(name: str, epochs: float, tmp_path: Path) -> None:
    """People who do one thing all day, by nano as it is shipped: each system says which."""
    rng, labels = np.random.default_rng(0), ("eat", "work", "sleep", "walk", "pay", "chat")

    def life(behaviour: int) -> list[tuple[int, int, int, int, bool]]:
        slots = [sorted(rng.choice(48, 4, replace=False).tolist()) for _ in range(4)]
        days = [(day, slot) for day in range(4) for slot in slots[day]]
        return [(*when, int(rng.integers(3)), behaviour, False) for when in days]

    people = [life(behaviour) for _ in range(3) for behaviour in range(6)]
    splits = tuple(number // 6 for number in range(18))
    store = make_store(people, labels=labels, splits=splits).with_fingerprint()
    config = config_of(epochs=epochs)
    config.model.path = ""
    config.stage2.batch_dialogues = 16
    site = site_of(tmp_path, store, config)
    asked = loaded(site, name, fitted(site, data_of(store, 0), name))
    cases = cases_about(store, 0)
    said = asked.predict(cases)
    assert np.mean(said.label == cases.arrays.last(3)) >= 0.95
    assert said.text is None or np.mean([one["free_label"] != "" for one in said.text]) >= 0.95


# ------------------------------------------------------------------------------------ odd label sets

DAYS = [(day, slot, day % 2, (day + slot) % 3, False) for day in range(8) for slot in (14, 20, 40)]


def odd_store(labels: tuple[str, ...], done: int, *, has_places: bool = True) -> EventStore:
    """Six people, of whom two are of each split, who do the first `done` of the labels."""
    days = [(*one[:3], one[3] % done, False) for one in DAYS]
    people, splits = [days] * 6, (0, 0, 1, 1, 2, 2)
    made = make_store(people, labels=labels, has_places=has_places, splits=splits)
    return made.with_fingerprint()


ODD = {
    "one class": odd_store(("sleep",), 1),
    "labels within labels, no places": odd_store(
        ("run", "run far", "far", "never"), 3, has_places=False
    ),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("a_llmrec", "one class", marks=pytest.mark.long),
        ("collm", "labels within labels, no places"),
        pytest.param("collm", "one class", marks=pytest.mark.long),
        pytest.param("llara", "labels within labels, no places", marks=pytest.mark.long),
        pytest.param("a_llmrec", "labels within labels, no places", marks=pytest.mark.long),
    ],
)
def test_odd_label_sets(name: str, kind: str, tmp_path: Path) -> None:
    """Trained and asked like any other: distributions over all labels, none of which is lost in another.

    A history may hold nothing but what no training person did: its item was never trained, its words can
    be read.
    """
    store = ODD[kind]
    classes = len(store.catalogue.behaviours)
    site = site_of(tmp_path, store, config_of())
    asked = loaded(site, name, fitted(site, data_of(store, 4), name))
    cases = cases_about(store, 3)
    for given in (cases, of_one(cases, classes - 1)):
        said = asked.predict(given)
        assert said.probability.shape == (3, classes)
        np.testing.assert_allclose(said.probability.sum(1), 1, atol=1e-6)
        assert (said.probability > 0).all()
        for one in said.text or ():
            assert one["free_label"] in {"", *store.catalogue.behaviours}


def of_one(cases: Cases, behaviour: int) -> Cases:
    """The same cases, in which nothing but one behaviour was done."""
    seen = cases.arrays
    fields = seen.fields.copy()
    fields[:, :, 3] = behaviour
    changed = Histories(fields, seen.place_rank, seen.day, seen.n_events)
    return dataclasses.replace(cases, arrays=changed)


def test_they_are_no_default_rows() -> None:
    for config in ("configs/base.py", "configs/quickstart.py"):
        assert not {*NAMES} & {*configs.load(config).evaluation.methods}
