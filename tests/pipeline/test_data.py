"""What a run's events must hold, and the base must tell apart: said right after the data step."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict

from bua_jax.alignment.base_files import NANO
from bua_jax.basics import config as configs
from bua_jax.basics.errors import BuaError, DataError, MismatchError
from bua_jax.decoding.labels import build_tree, check_labels
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.events.schema import Catalogue, EventStore
from bua_jax.events.simulate import people
from bua_jax.pipeline import steps
from bua_jax.pipeline.chain import STEPS, build
from bua_jax.pipeline.checks import check_model
from bua_jax.pipeline.data import PERSONAS, check_events, load_personas, load_store, read_words
from bua_jax.pipeline.steps import Run, key
from tests.dialogue.stores import make_store

TWINS = ("caf\u00e9", "cafe\u0301")  # one word with and without a composed letter


@pytest.fixture
def composing(tmp_path: Path) -> Path:
    """nano with a tokenizer that composes letters and accents first, as Qwen's do."""
    folder = tmp_path / "base"
    folder.mkdir()
    tokenizer = json.loads((NANO / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "normalizer": {"type": "NFC"}}))
    shutil.copy(NANO / "config.json", folder)
    return folder


def model_of(path: str | Path = "") -> ConfigDict:
    config = configs.load("configs/curriculum.py")
    config.model.path = str(path)
    return config


def person(events: int, labels: int = 2) -> list[tuple[int, int, int, int, bool]]:
    return [(day, 20, 1, day % labels, False) for day in range(events)]


def store_of(*counts: int, labels: int = 2) -> EventStore:
    """A person of each split in turn with as many events; a later one is of the test split."""
    splits = tuple(min(i, 2) for i in range(len(counts)))
    return make_store([person(n, labels) for n in counts], splits=splits)


def test_each_split_needs_a_window() -> None:
    check_events(store_of(11, 11, 11, 1), min_history=10)
    for counts, split in (
        ((10, 11, 11), "train"),
        ((11, 10, 11), "validation"),
        ((11, 11, 10), "test"),
    ):
        with pytest.raises(
            DataError, match=f"The {split} split has 1 people, of whom none has more than 10"
        ):
            check_events(store_of(*counts), min_history=10)
        check_events(store_of(*counts), min_history=9)
    nobody = dataclasses.replace(store_of(11, 11, 11), split=store_of(11, 11).split.repeat(2)[:3])
    with pytest.raises(
        DataError, match="The test split has 0 people, so no events; expected at least one with 11"
    ):
        check_events(nobody, min_history=10)


def test_training_people_need_two_labels() -> None:
    alike = make_store([person(12, 1), person(12), person(12)], splits=(0, 1, 2))
    with pytest.raises(DataError, match="have one label only, 'chat'; expected at least two"):
        check_events(alike, min_history=10)


def test_labels_that_the_tokenizer_does_not_tell_apart(composing: Path) -> None:
    """Where answers are scored it would be said after the training."""
    tokenizer = check_model(model_of(composing).model)
    with pytest.raises(BuaError, match="have the same tokens"):
        build_tree([label_tokens(tokenizer, label) for label in TWINS])
    with pytest.raises(DataError, match=f"'{TWINS[0]}' and '{TWINS[1]}' are the same"):
        check_labels(tokenizer, Catalogue(TWINS, 24, has_places=True))
    check_labels(
        tokenizer, Catalogue(("café", "Café", "cafe", "咖啡", "茶馆"), 24, has_places=True)
    )


def table_of(store: EventStore, built: list[str]) -> dict[str, Any]:
    """The real steps, with builders that only say that they were called; `data` is a store."""

    def fake(name: str) -> Any:
        def builder(run: Run) -> dict[str, Any]:
            built.append(name)
            if name == "data":
                store.save(run.folder("data") / "events.parquet")
                return {"fingerprint": store.fingerprint}
            return {}

        return builder

    return {n: dataclasses.replace(step, build=fake(n)) for n, step in STEPS.items()}


def test_nothing_is_built_after_data_that_cannot_work(
    tmp_path: Path, composing: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(steps, "versions", lambda: {})
    run = Run(model_of(composing), tmp_path)
    twins = make_store([person(12)] * 3, labels=TWINS, splits=(0, 1, 2))
    for store, message in ((store_of(12, 9, 12), "validation split"), (twins, "are the same")):
        built: list[str] = []
        with pytest.raises(DataError, match=message):
            build(run, "stage1", table_of(store, built))
        assert built == ["data"]
        (tmp_path / "data" / "record.json").unlink()
    built = []
    build(run, "encoder", table_of(twins, built))  # which writes no label
    assert built == ["data", "encoder"]


def test_a_finished_run_is_asked_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """Not even for the devices that it was trained on."""
    monkeypatch.setattr(steps, "versions", lambda: {})
    config = configs.load("configs/curriculum.py")
    built: list[str] = []
    table = table_of(store_of(12, 12, 12), built)
    build(Run(config, tmp_path), "stage2", table)
    config.execution.mesh = "4000"
    built.clear()
    build(Run(config, tmp_path), "stage2", table)
    assert built == []
    with pytest.raises(BuaError, match="needs 4000 devices"):
        build(Run(config, tmp_path), "reflect", table)


def test_people_set_apart_may_not_be_all(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(steps, "versions", lambda: {})
    config = configs.load("configs/curriculum.py")
    config.windows.cross = 1
    built: list[str] = []
    with pytest.raises(DataError, match=r"beside those set apart by windows\.cross"):
        build(Run(config, tmp_path), "encoder", table_of(store_of(12, 12, 12), built))
    assert built == ["data"]


def test_metadata_of_any_size_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    """Of 2 million people it is more than pyarrow reads unless told otherwise."""
    store, read = store_of(12, 12, 12), pq.read_table
    store.save(tmp_path / "events.parquet")
    with pytest.raises(OSError, match=r"TProtocolException|Exceeded size limit"):
        read(tmp_path / "events.parquet", thrift_string_size_limit=100)
    limited = {"thrift_string_size_limit": 100, "thrift_container_size_limit": 3}
    monkeypatch.setattr(pq, "read_table", lambda path, **given: read(path, **{**limited, **given}))
    assert EventStore.load(tmp_path / "events.parquet").fingerprint == store.fingerprint


def test_labels_in_other_words(tmp_path: Path) -> None:
    """The same events; what is named otherwise is named so everywhere."""
    store = make_store([[(0, i, i % 2, i % 2, False) for i in range(12)]])
    first = store.catalogue.behaviours[0]
    path = tmp_path / "words.json"
    path.write_text(json.dumps({first: "Kaffee"}))
    words = read_words(path, store.catalogue.behaviours)
    renamed = store.renamed(words)
    assert renamed.catalogue.behaviours == ("Kaffee", *store.catalogue.behaviours[1:])
    assert (renamed.behaviour == store.behaviour).all()
    assert renamed.fingerprint != store.fingerprint
    for wrong, message in (
        (["x"], "no JSON object of texts by label"),
        ({first: 3}, "no JSON object of texts by label"),
        ({first[:-1]: "x"}, f"no label of the data. Did you mean {first!r}"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=re.escape(message)):
            read_words(path, store.catalogue.behaviours)
    with pytest.raises(DataError, match="There is no file"):
        read_words(tmp_path / "none.json", store.catalogue.behaviours)
    for wrong in ({first: "a; b"}, {first: ""}):  # what no label can be
        with pytest.raises(DataError):
            store.renamed(wrong)


def test_words_are_a_source_of_the_data_step(tmp_path: Path) -> None:
    """Another file is other data: a simulated population, with and without its German names."""
    config = configs.load("configs/quickstart.py")
    config.data.num_users, config.data.num_days = 6, 3
    before = key("data", config, STEPS)
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"cook": "Kochen"}))
    config.data.words = str(path)
    assert key("data", config, STEPS) != before
    run = Run(config, tmp_path / "run")
    steps.ensure(run, "data", STEPS)
    assert "Kochen" in load_store(run).catalogue.behaviours
    plain = [one.hobbies for one, _ in people(6, 3, config.data.seed)]
    assert any("cook" in hobbies for hobbies in plain)
    named = [one.hobbies for one in (load_personas(run) or {}).values()]
    assert named == [tuple("Kochen" if h == "cook" else h for h in hobbies) for hobbies in plain]
    path.write_text(json.dumps({"cook": "Braten"}))
    with pytest.raises(MismatchError, match=r"another config\.data\.words"):
        steps.ensure(run, "data", STEPS)


@pytest.mark.parametrize("change", ["altered", "removed"])
def test_personas_are_held_against_a_hash(tmp_path: Path, change: str) -> None:
    """By whoever reads them, and by the next command."""
    config = configs.load("configs/quickstart.py")
    config.data.num_users, config.data.num_days = 6, 3
    run = Run(config, tmp_path)
    steps.ensure(run, "data", STEPS)
    path = tmp_path / "data" / PERSONAS
    assert load_personas(run)
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x")
    for read in (lambda: load_personas(run), lambda: steps.ensure(run, "data", STEPS)):
        with pytest.raises(BuaError, match=r"personas\.parquet is not the file that the step data"):
            read()
