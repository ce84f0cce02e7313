"""Checkpoints are whole or passed over, and belong to the run that asks."""

import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.basics.errors import CheckpointError, MismatchError
from bua_jax.feed.batches import Batches
from bua_jax.training import checkpoint
from tests.support import tiny

RECORDS = tiny.records(40)
PLAN = tiny.plan(RECORDS)
METADATA = {"stage": "stage2", "settings": {"peak_lr": 1e-3, "loss": "token_mean"}, "base": "abc"}


def state_of(step: int) -> dict:
    return {"w": jnp.arange(600.0).reshape(20, 30) + step, "step": jnp.int32(step)}


def data():
    return Batches(RECORDS, PLAN, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1 (one batch drawn) and 2 (two)."""
    iterator, manager = data(), checkpoint.open_manager(tmp_path / "checkpoints")
    for step in (1, 2):
        next(iterator)
        checkpoint.save(manager, step, state_of(step), iterator, METADATA)
    return tmp_path / "checkpoints"


def restored(folder: Path, metadata=METADATA):
    iterator = data()
    found = checkpoint.restore(checkpoint.open_manager(folder), state_of(0), iterator, metadata)
    return *found, iterator


def assert_is(step: int, found) -> None:
    assert found[0] == step
    jax.tree.map(np.testing.assert_array_equal, found[1], state_of(step))
    expected = data()
    for _ in range(step):
        next(expected)
    jax.tree.map(np.testing.assert_array_equal, next(found[2]), next(expected))


def test_the_newest_comes_back(folder: Path) -> None:
    assert_is(2, restored(folder))
    assert_is(0, restored(folder.parent / "other"))


def test_only_the_newest_are_kept(folder: Path) -> None:
    manager = checkpoint.open_manager(folder)
    checkpoint.save(manager, 3, state_of(3), data(), METADATA)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]
    checkpoint.save(manager, 3, state_of(3), data(), METADATA)  # the same step again is no error


def test_every_truncated_file_is_noticed_or_harmless(folder: Path) -> None:
    files = sorted(p.relative_to(folder) for p in (folder / "2").rglob("*") if p.is_file())
    copy, fell_back = folder.parent / "copy", 0
    for file in files:
        for keep in (0.0, 0.5):
            shutil.copytree(folder, copy)
            content = (folder / file).read_bytes()
            (copy / file).write_bytes(content[: int(keep * len(content))])
            found = restored(copy)
            assert_is(found[0], found)  # the whole of 2, or the whole of 1
            assert found[0] in (1, 2)
            fell_back += found[0] == 1
            assert (copy / "2").exists() == (found[0] == 2)
            shutil.rmtree(copy)
    assert fell_back >= 8  # metadata, iterator, arrays and their manifests


def test_every_bit_counts(folder: Path, monkeypatch, capsys) -> None:
    """A bit of every array and of the iterator's position, on disk: the one before is taken, and it is said.

    The arrays are flipped before orbax writes them, which then guards them with hashes of its own.
    """
    save_args = checkpoint.ocp.args.StandardSave

    def flipped(state):
        w = np.asarray(state["w"]).copy()
        w.view(np.uint32)[3, 4] ^= 1
        return save_args({**state, "w": jnp.asarray(w)})

    monkeypatch.setattr(checkpoint.ocp.args, "StandardSave", flipped)
    manager = checkpoint.open_manager(folder)
    checkpoint.save(manager, 3, state_of(3), data(), METADATA)
    assert_is(2, restored(folder))
    assert "checkpoint 3" in (said := capsys.readouterr().err)
    assert "its state was altered" in said


@pytest.mark.parametrize(
    ("part", "old", "new", "said"),
    [
        ("data", '": 6', '": 7', "its data was altered"),
        ("metadata", "0.001", "0.002", "metadata was altered or damaged"),
    ],
)
def test_altered_values_that_can_be_read(
    folder: Path, part: str, old: str, new: str, said: str, capsys
) -> None:
    path = folder / "2" / part / "metadata"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert_is(1, restored(folder))
    assert said in capsys.readouterr().err


def test_half_written_is_not_picked_up(folder: Path, capsys) -> None:
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    shutil.rmtree(folder / "2" / "state")
    assert_is(1, restored(folder))
    assert "checkpoint 2" in capsys.readouterr().err
    checkpoint.save(checkpoint.open_manager(folder), 4, state_of(4), data(), METADATA)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "4"]  # nothing is left of the others


def test_none_is_good(folder: Path) -> None:
    for step in ("1", "2"):
        shutil.rmtree(folder / step / "state")
    with pytest.raises(CheckpointError, match=f"damaged. Remove {folder.parent}"):
        restored(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]  # nothing was removed


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"base": "xyz"}, "has base='abc', but this run has 'xyz'"),
        ({"settings": {"peak_lr": 2e-3, "loss": "token_mean"}}, "settings.peak_lr=0.001, .* 0.002"),
        ({"labels": ["a"]}, r"labels=None, but this run has \['a'\]"),
    ],
)
def test_another_run(folder: Path, changes, text: str) -> None:
    with pytest.raises(MismatchError, match=text):
        restored(folder, METADATA | changes)


def test_full_disk(folder: Path) -> None:
    """A limit on file sizes makes real writes fail; what was there stays good."""
    manager, big = (
        checkpoint.open_manager(folder),
        {"w": jax.random.normal(jax.random.key(0), 200_000)},
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="Could not write the checkpoint of step 3"):
            checkpoint.save(manager, 3, big, data(), METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_is(2, restored(folder))
