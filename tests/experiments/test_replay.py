"""Looks at units' gradients, and counterfactual replay of them: against numbers by hand, and as the verb."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.experiments import replay
from bua_jax.parallel import sharding
from bua_jax.training import loop
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.looks import look_scalars, make_look, read
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.writers import MetricWriter, read_scalars
from tests.support import tiny, toy
from tests.support.balancing import method
from tests.support.runs import verb

A, B = np.array([1.0, 0.0]), np.array([-0.5, 0.5])


def looks_at(*grams: np.ndarray):
    names = ("a", "b")
    records = [
        {"step": 10 * i + 1, **look_scalars(names, [1.0, 2.0], gram)}
        for i, gram in enumerate(grams)
    ]
    return read(records)


def gram_of(*rows: np.ndarray) -> np.ndarray:
    return np.array(rows) @ np.array(rows).T


def test_two_gradients_that_conflict() -> None:
    """PCGrad of two: each loses its part against the other, a + b with both projected."""
    looks = looks_at(gram_of(A, B))
    found = replay.replay(method("pcgrad"), looks)
    product = A @ B
    np.testing.assert_allclose(found.weights, [[1 - product / (A @ A), 1 - product / (B @ B)]])
    update, plain = found.weights[0] @ np.array([A, B]), A + B
    lengths = np.linalg.norm(update), np.linalg.norm(plain)
    np.testing.assert_allclose(found.cosine, update @ plain / lengths[0] / lengths[1])
    np.testing.assert_allclose(found.length, lengths[0] / lengths[1])
    worst = min(update @ A, update @ B / np.linalg.norm(B)) / lengths[0]
    np.testing.assert_allclose(found.worst, worst)
    assert worst > 0


def test_weights_of_one_are_the_plain_update() -> None:
    looks = looks_at(gram_of(A, B), gram_of(2 * A, -3 * A))
    found = replay.replay(method("cagrad:c=0"), looks)
    np.testing.assert_allclose(found.cosine, 1)
    np.testing.assert_allclose(found.length, 1)
    np.testing.assert_allclose(found.worst, [0, -1], atol=1e-12)  # the second harms its first unit


def test_a_state_is_carried_from_look_to_look() -> None:
    """The EMA of norms at the second look is of both."""
    looks = looks_at(gram_of(A, B), gram_of(4 * A, B))
    both = replay.replay(method("norm_ema:decay=0.5"), looks)
    second = replay.replay(method("norm_ema:decay=0.5"), looks_at(gram_of(4 * A, B)))
    assert not np.allclose(both.weights[1], second.weights[0])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a run"
    (folder / "stage2").mkdir(parents=True)
    with MetricWriter(folder / "stage2") as writer:
        for step in (1, 11):
            writer.write_scalars(step, look_scalars(("summary", "last"), [1, 2], gram_of(A, B)))
    return folder


def test_all_methods_of_gradients_are_asked(run: Path) -> None:
    page = replay.write_pages(run)
    lines = [line.split(" | ")[0].strip("| ") for line in page.splitlines() if "| " in line]
    assert lines[2:] == ["equal", *replay.of_gradients()]
    assert {"gradnorm", "pcgrad", "mgda", "upgrad"} < set(replay.of_gradients())
    assert "uncertainty" not in replay.of_gradients()
    assert (run / "stage2" / "replay.md").read_text() == page
    assert (run / "stage2" / "replay.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads((run / "stage2" / "replay.json").read_text())
    assert said["steps"] == [1, 11]
    assert set(said["methods"]) == set(replay.of_gradients())
    assert np.shape(said["methods"]["upgrad"]["weights"]) == (2, len(said["units"]))


def test_the_verb_asks_those_of_an_experiment(run: Path) -> None:
    asked = "--experiment=configs/experiments/weighting.py"
    done = verb("experiment", f"--replay={run}", asked)
    assert done.returncode == 0, done.stderr
    assert "| cagrad" in done.stdout
    assert "| upgrad" not in done.stdout


def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no looks at gradients.*gradients_every=10"):
        replay.write_pages(tmp_path)
    with pytest.raises(ConfigError, match="trains with no balancer of gradients"):
        replay.write_pages(tmp_path, "configs/experiments/table14.py")


# ------------------------------------------------------------------------------------------ looks


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_look_by_hand_and_read_back(microbatches: int, tmp_path: Path) -> None:
    """Losses, norms and products of the parts' gradients; one unit is away in the second look."""
    trainer = toy.Trainer("equal", microbatches)
    names = trainer.problem.units
    look, expected = jax.jit(make_look(trainer.problem, microbatches)), []
    with MetricWriter(tmp_path) as writer:
        for step, absent in enumerate((None, 2), 1):
            given = toy.batch(step, absent)
            losses, rows = toy.by_hand(trainer.x, given)
            expected.append((losses, rows @ rows.T))
            seen = jax.device_get(look(trainer.state, {}, given))
            writer.write_scalars(step, look_scalars(names, *seen))
            trainer.step(given)
    found = read(read_scalars(tmp_path))
    assert found.units == tuple(sorted(names))
    assert found.steps.tolist() == [1, 2]
    for s, (losses, gram) in enumerate(expected):
        there = np.isfinite(losses)
        np.testing.assert_array_equal(np.isfinite(found.losses[s]), there)
        np.testing.assert_allclose(found.losses[s][there], losses[there], rtol=1e-5)
        both = np.ix_(there, there)
        scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))[both]
        np.testing.assert_allclose((found.gram[s][both] - gram[both]) / scale, 0, atol=1e-5)
        assert np.isnan(found.gram[s][~there]).all()


def test_nothing_was_looked_at(tmp_path: Path) -> None:
    with MetricWriter(tmp_path) as writer:
        writer.write_scalars(1, {"train/loss": 1.0})
    found = read(read_scalars(tmp_path))
    assert found.units == ()
    assert len(found.steps) == 0


def test_looking_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    records = tiny.records(20)
    settings = TrainSettings(
        total_steps=4,
        evaluate_every=4,
        checkpoint_every=4,
        balancer_unit="round",
        optimizer=OptimizerSettings(peak_lr=1e-2),
    )

    def trained(name: str, every: int):
        model, variables = tiny.model()
        how, mesh = dataclasses.replace(settings, gradients_every=every), sharding.make_mesh("1")
        problem = Dialogues(model, tiny.plan(records), how, records, records[:4])
        with jax.set_mesh(mesh):
            return loop.fit(
                problem, variables, ("projector", "adapter"), how, tmp_path / name, mesh, {}
            )[0]

    plain, looked = trained("plain", 0), trained("looked", 2)
    jax.tree.map(np.testing.assert_array_equal, plain, looked)
    assert len(read(read_scalars(tmp_path / "plain")).steps) == 0
    looks = read(read_scalars(tmp_path / "looked"))
    assert looks.steps.tolist() == [1, 3]
    assert len(looks.units) >= 2
