"""An encoder's training cut at any of its steps and resumed ends as if nothing had been."""

import contextlib
import dataclasses
import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bua_jax.basics.errors import Interrupted
from bua_jax.events.simulate import simulated_store
from bua_jax.models.encoders import EncoderConfig
from bua_jax.parallel import sharding
from bua_jax.training import checkpoint, events, loop
from bua_jax.training.networks import Encoder
from bua_jax.training.writers import read_scalars

STORE = simulated_store(12, 8, 2)
CONFIG = EncoderConfig("behavegpt", 37, 48, dim=4, num_layers=1, num_heads=2)
SETTINGS = events.EncoderSettings(
    history_length=12, epochs=9, batch=40, peak_lr=0.2, dro_lambda=0.5, patience=2
)
PROBLEM = events.Events(Encoder(CONFIG), STORE, SETTINGS)
VARIABLES = {"encoder": events.fresh(CONFIG, SETTINGS)}
PUT, MAKE_STEP, RESTORE = sharding.shard_batch, loop.make_step, checkpoint.restore


class Cut(Exception):
    """The process would be gone here."""


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs have one step function, which is then traced and compiled once."""
    made: list[Any] = []

    def make(*args: Any) -> Any:
        made[:] = made or [MAKE_STEP(*args)]
        return made[0]

    monkeypatch.setattr(loop, "make_step", make)


def train(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int = 1000,
    ask: bool = False,
    **changes: Any,
) -> tuple[Any, dict[str, Any]]:
    """(the best encoder, what was measured); after `most` batches it is cut, or asked to stop."""
    count = itertools.count(1)

    def putting(*args: Any) -> Any:
        number = next(count)
        if number > most and not ask:
            raise Cut
        if number == most and ask:
            signal.raise_signal(signal.SIGINT)
        return PUT(*args)

    settings = dataclasses.replace(events.loop_settings(PROBLEM), **changes)
    mesh = sharding.make_mesh("1")
    with monkeypatch.context() as patch, jax.set_mesh(mesh):
        patch.setattr(sharding, "shard_batch", putting)
        return loop.fit(PROBLEM, VARIABLES, ("encoder",), settings, folder, mesh, {"a": "b"})


def last(folder: Path) -> tuple[int, dict[str, Any], str]:
    """The newest checkpoint: its step, its arrays, the position in the data."""
    manager = checkpoint.open_manager(folder / "checkpoints")
    abstract = jax.tree.map(np.asarray, first_state())
    step, state = RESTORE(manager, abstract, None, {"a": "b"})
    position = folder / "checkpoints" / str(step) / "data" / "metadata"
    flat = jax.tree_util.tree_leaves_with_path(state)
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in flat}
    return step, arrays, position.read_text()


def first_state() -> Any:
    optimizer = loop.make_optimizer(VARIABLES, events.loop_settings(PROBLEM).optimizer, 10)
    return loop.create(PROBLEM, VARIABLES, optimizer, SETTINGS.seed)


def same(one: Path, other: Path) -> bool:
    (step, arrays, position), (step2, arrays2, position2) = last(one), last(other)
    assert arrays.keys() == arrays2.keys()
    equal = all(value.tobytes() == arrays2[name].tobytes() for name, value in arrays.items())
    return (step, position) == (step2, position2) and equal


def validated(folder: Path) -> dict[int, float]:
    """The validation losses of metrics.jsonl, by step."""
    return {
        int(record["step"]): record["validation/log_loss"]
        for record in read_scalars(folder)
        if "validation/log_loss" in record
    }


def dropping(what: str) -> Any:
    """`checkpoint.restore` without one part of what is restored."""

    def restore(manager: Any, state: Any, data: Any, identity: Any) -> Any:
        start = data and data.get_state()
        step, found = RESTORE(manager, state, data, identity)
        if data is not None and what == "data":
            data.set_state(start)
        elif data is not None:
            found = found._replace(**{what: getattr(state, what)})
        return step, found

    return restore


@pytest.mark.long
def test_resumed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stepwise = tmp_path / "whole", tmp_path / "stepwise"
    best, measured = train(whole, monkeypatch, profile=2)
    steps = measured["steps"]
    assert 1 < PROBLEM.per_epoch <= measured["best_step"] < steps
    assert steps < SETTINGS.epochs * PROBLEM.per_epoch  # it stopped early
    assert steps % PROBLEM.per_epoch == 0
    assert len(list(whole.glob("tensorboard/plugins/profile/*/*.xplane.pb"))) == 1
    for done in range(steps + 1):
        copy = tmp_path / str(done)
        if done:
            shutil.copytree(stepwise, copy)
        found, again = train(copy, monkeypatch)
        assert again == measured
        jax.tree.map(np.testing.assert_array_equal, found, best)
        assert same(copy, whole), done
        assert validated(copy) == validated(whole)
        if done < steps:
            # After the last step it stops by itself.
            with pytest.raises(Cut) if done < steps - 1 else contextlib.nullcontext():
                train(stepwise, monkeypatch, most=1, checkpoint_every=1)
            assert last(stepwise)[0] == done + 1

    for what in ("data", "key", "weighting", "opt_state"):  # each is needed
        copy = tmp_path / what
        with pytest.raises(Cut):
            train(copy, monkeypatch, most=PROBLEM.per_epoch + 1, checkpoint_every=1)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "restore", dropping(what))
            train(copy, monkeypatch)
        assert not same(copy, whole), what


def test_a_signal_saves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    best, measured = train(whole, monkeypatch)
    with pytest.raises(Interrupted, match="SIGINT: saved step 3 of"):
        train(cut, monkeypatch, most=3, ask=True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found, again = train(cut, monkeypatch)
    assert again == measured
    jax.tree.map(np.testing.assert_array_equal, found, best)
    assert same(cut, whole)
    one, other = (events.epochs(read_scalars(folder), PROBLEM.per_epoch) for folder in (whole, cut))
    assert len(one) == len(other) == measured["steps"] // PROBLEM.per_epoch
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-6)  # float32 sums of the losses are parted otherwise


def test_without_a_folder_the_same_is_learned(tmp_path: Path) -> None:
    kept, records = events.train_encoder(CONFIG, STORE, SETTINGS, tmp_path)
    free, none = events.train_encoder(CONFIG, STORE, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, kept, free)
    assert none == []
    assert [record["epoch"] for record in records] == list(range(1, len(records) + 1))
