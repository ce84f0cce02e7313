"""The loop: what it trains, writes, keeps and refuses."""

import dataclasses
import json
import logging
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from bua_jax.basics.errors import CheckpointError, Interrupted, WriteError
from bua_jax.feed.batches import Batches
from bua_jax.parallel import sharding
from bua_jax.training import checkpoint, loop
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import (
    OptimizerSettings,
    make_optimizer,
    partition,
    trained_parts,
)
from bua_jax.training.state import create
from bua_jax.training.step import make_step, zero_sums
from bua_jax.training.writers import MetricWriter, read_scalars
from tests.support import tiny

RECORDS, VALIDATION = tiny.records(60), tiny.records(10, seed=1)
PLAN = tiny.plan(RECORDS)
SETTINGS = TrainSettings(
    total_steps=12,
    evaluate_every=5,
    checkpoint_every=4,
    log_every=3,
    microbatches=2,
    balancer="appendix_k",
    optimizer=OptimizerSettings(peak_lr=3e-2),
)


def run(folder, variables=None, records=RECORDS, settings=SETTINGS):
    model, own = tiny.model()
    mesh = sharding.make_mesh("1")
    with jax.set_mesh(mesh):
        return loop.fit(
            Dialogues(model, PLAN, settings, records, VALIDATION),
            variables or own,
            ("projector", "adapter"),
            settings,
            folder,
            mesh,
            {"stage": "stage2"},
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, variables before, best groups, what was measured, names of compiled functions)."""
    folder = tmp_path_factory.mktemp("run")
    _, variables = tiny.model()
    compiled: list[str] = []

    class Names(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Compiling"):
                compiled.append(record.getMessage())

    handler = Names()
    logging.getLogger("jax").addHandler(handler)
    with jax.log_compiles():
        best, measured = run(folder, variables)
    logging.getLogger("jax").removeHandler(handler)
    return folder, variables, best, measured, compiled


def test_learns_and_keeps_the_best(trained) -> None:
    folder, variables, best, measured, _ = trained
    assert measured["steps"] == 12
    scalars = read_scalars(folder)
    validation = {s["step"]: s["validation/loss"] for s in scalars if "validation/loss" in s}
    assert sorted(validation) == [5, 10, 12]
    assert measured["best_step"] == min(validation, key=validation.get)
    assert measured["validation_loss"] == validation[measured["best_step"]]
    assert scalars[-1]["train/round_balanced"] < 0.9 * scalars[0]["train/round_balanced"]
    for group in ("projector", "adapter"):  # every leaf moved, and the caller's are as they were
        _, fresh = tiny.model()
        for before, after, own in zip(
            *map(jax.tree.leaves, (fresh[group], best[group], variables[group])), strict=True
        ):
            assert not np.array_equal(before, after)
            np.testing.assert_array_equal(before, own)
    for group in ("base", "encoder"):
        jax.tree.map(np.testing.assert_array_equal, fresh[group], variables[group])
    assert set(best) == {"projector", "adapter"}
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [8, 12]
    assert list((folder / "tensorboard").iterdir())


def test_a_trace_moves_nothing_and_what_is_trained_is_said(trained, tmp_path, capsys) -> None:
    """Steps 3 and 4 in one file that TensorBoard finds; every trained array with its size."""
    folder, _, best, measured, _ = trained
    found, again = run(tmp_path, settings=dataclasses.replace(SETTINGS, profile=2))
    said = capsys.readouterr().err
    assert again == measured
    jax.tree.map(np.testing.assert_array_equal, found, best)
    assert "profile of 2 steps from 3 on" in said
    (trace,) = tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    assert b"jit_step" in trace.read_bytes()
    assert not list(folder.glob("tensorboard/plugins"))
    names = {"/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(best)}
    assert [name for name in names if name not in said] == []
    assert f"Total: {sum(x.size for x in jax.tree.leaves(best)):,}" in said


def test_a_training_too_short_for_a_trace_says_so(tmp_path, capsys) -> None:
    """Once; where none was asked for, or nothing is kept, nothing is said."""
    for folder, count in ((tmp_path, 2), (tmp_path, 0), (None, 2)):
        trace = loop.Trace(folder, 3, count)
        trace.before(1, ())
        trace.before(2, ())
        trace.close()
        trace.close()
    assert capsys.readouterr().err.count("no profile: it was to begin at step 3") == 1
    assert not list(tmp_path.iterdir())


def test_logs(trained) -> None:
    scalars = read_scalars(trained[0])
    assert [s["step"] for s in scalars if "train/round_balanced" in s] == [
        1,
        3,
        4,
        5,
        6,
        8,
        9,
        10,
        12,
    ]
    names = set().union(*scalars)
    assert {"train/tokens_per_second", "train/supervised_share", "train/grad_norm"} <= names
    assert all(0 < s["train/input_share"] < 1 for s in scalars if "train/tokens_per_second" in s)
    assert {"train/task/prediction", "validation/task/prediction", "train/kind/summary"} <= names
    assert all(
        0 < s["train/supervised_share"] < 1 for s in scalars if "train/supervised_share" in s
    )
    # Step 1 takes the schedule's first rate (which optax computes to some 1e-4).
    assert scalars[0]["train/learning_rate"] == pytest.approx(1e-6, rel=1e-3)


def test_compiles_the_step_once(trained) -> None:
    for name in ("jit(step)", "jit(evaluate_batch)"):
        assert sum(name in message for message in trained[4]) == 1, trained[4]


def test_a_finished_run_is_not_trained_again(trained) -> None:
    folder, _, best, measured, _ = trained
    again, same = run(folder)
    assert same == measured
    jax.tree.map(np.testing.assert_array_equal, again, best)


@pytest.mark.parametrize("stage", ["stage1", "stage3", "full"])  # stage 2 is the run above
def test_frozen_leaves_stay_bit_for_bit(stage: str) -> None:
    groups = trained_parts("stage3" if stage == "full" else stage, full_finetuning=stage == "full")
    model, variables = tiny.model()
    trainable, frozen = partition(variables, groups)
    before = jax.device_get(frozen)
    optimizer = make_optimizer(trainable, OptimizerSettings(peak_lr=1e-2), 4)
    problem = Dialogues(model, PLAN, TrainSettings())
    step = jax.jit(make_step(problem, optimizer), donate_argnums=(0,))
    state, sums = create(problem, trainable, optimizer), zero_sums(problem)
    data = Batches(RECORDS, PLAN, 0)
    for _ in range(2):
        state, sums = step(state, frozen, next(data), sums)
    assert set(state.trainable) == set(groups)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(frozen))
    unchanged = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(trainable),
            jax.tree.leaves(state.trainable),
            strict=True,
        )
        if np.array_equal(old, new)
    ]
    assert unchanged == []


def test_nan_stops_before_anything_is_saved(tmp_path) -> None:
    _, variables = tiny.model()
    variables["projector"] = jax.tree.map(lambda x: x * jnp.nan, variables["projector"])
    with pytest.raises(loop.TrainingStopped, match="Steps 1 to 1: the loss or its gradient is NaN"):
        run(tmp_path, variables)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_ctrl_c_saves_the_step_at_hand(tmp_path, monkeypatch, capfd) -> None:
    """Between two checkpoints; how the same command goes on from there: test_resume.py."""
    drawn, before = [], signal.getsignal(signal.SIGINT)
    put = sharding.shard_batch

    def shard_batch(batch, mesh, *microbatches):
        if microbatches:
            drawn.append(1)
            if len(drawn) == 3:
                signal.raise_signal(signal.SIGINT)
        return put(batch, mesh, *microbatches)

    monkeypatch.setattr(sharding, "shard_batch", shard_batch)
    with pytest.raises(Interrupted, match="SIGINT: saved step 3 of 5") as stop:
        run(tmp_path, settings=dataclasses.replace(SETTINGS, total_steps=5))
    assert stop.value.exit_code == 130
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again stops at once" in capfd.readouterr().err


def test_what_stops_training() -> None:
    good = {"steps": 10, "unsupervised": 0, "zero": 0, "not_finite": 0}
    loop.check_sane(good, 40)
    for name, text in [
        ("unsupervised", "Steps 31 to 40: no token of a batch is supervised"),
        ("not_finite", "Steps 31 to 40: the loss or its gradient is NaN or infinite in 1 of them"),
        ("zero", "Steps 31 to 40: the loss is exactly 0"),
    ]:
        with pytest.raises(loop.TrainingStopped, match=text):
            loop.check_sane({**good, name: 1}, 40)


def test_a_batch_without_supervision_is_counted() -> None:
    """One bad step among good ones is seen, though only sums reach the host."""
    model, variables = tiny.model()
    trainable, frozen = partition(variables, ("projector",))
    optimizer = make_optimizer(trainable, OptimizerSettings(), 4)
    settings = dataclasses.replace(SETTINGS, balancer="appendix_k", balancer_unit="round")
    problem = Dialogues(model, PLAN, settings)
    step = jax.jit(make_step(problem, optimizer))
    state, sums = create(problem, trainable, optimizer), zero_sums(problem)
    batch = next(Batches(RECORDS, PLAN, 0))
    state, sums = step(state, frozen, batch, sums)
    seen = np.isin(np.arange(12), batch["kinds"]) & (np.arange(12) > 0)
    np.testing.assert_array_equal(state.weighting.initial > 0, seen)  # one per round kind
    tracked = state.weighting
    empty = {**batch, "round_ids": 0 * batch["round_ids"], "kinds": 0 * batch["kinds"]}
    state, sums = step(state, frozen, empty, sums)
    jax.tree.map(np.testing.assert_array_equal, state.weighting, tracked)
    with pytest.raises(loop.TrainingStopped, match="Steps 1 to 2: no token"):
        loop.check_sane(sums.step.compute(), 2)


def test_best_of_a_run_killed_while_it_saved_one(tmp_path) -> None:
    """The best before it may be there, whole or half deleted; a damaged one that is none of these is told."""

    def best(steps, damaged, up_to):
        folder = tmp_path / f"{steps}{damaged}{up_to}"
        manager = checkpoint.open_manager(folder, keep=5)
        for step in steps:
            record = {"validation_loss": step / 10}
            checkpoint.save(manager, step, {"a": jnp.ones(3)}, Batches(RECORDS, PLAN, 0), record)
        for step in damaged:
            shutil.rmtree(folder / str(step) / "metadata")
        for _ in range(2):  # the process may be killed again, and looks again
            found = loop._best_loss(checkpoint.open_manager(folder, keep=1), up_to)
        return found, sorted(int(p.name) for p in folder.iterdir())

    assert best([4, 8], [], 8) == (0.8, [4, 8])
    assert best([4, 8], [4], 8) == (0.8, [4, 8])
    assert best([4, 8], [], 6) == (0.4, [4])
    assert best([4, 8], [4], 6) == (np.inf, [])
    assert best([8], [], 6) == (np.inf, [])
    with pytest.raises(CheckpointError, match=r"Checkpoint 4 in .* is damaged"):
        best([4], [4], 6)


def test_an_altered_best_is_said_before_anything_is_trained(tmp_path, monkeypatch) -> None:
    """It would be the trained model, with a hash of its own."""
    like, identity = {"adapter": {"a": jnp.arange(3.0)}}, {"stage": "stage2"}
    best = loop._Best(tmp_path / "best", 0, like, identity)
    save, one = checkpoint.ocp.args.StandardSave, jnp.asarray([0.0, 1.0, 2.0000002])
    monkeypatch.setattr(
        checkpoint.ocp.args, "StandardSave", lambda x: save({"trainable": {"adapter": {"a": one}}})
    )
    best.offer(4, 0.5, like, Batches(RECORDS, PLAN, 0), identity)
    with pytest.raises(CheckpointError, match=f"best are damaged. Remove {tmp_path}"):
        loop._Best(tmp_path / "best", 4, like, identity)


def test_writer_survives_a_cut_line(tmp_path) -> None:
    with MetricWriter(tmp_path) as writer:
        writer.write_scalars(1, {"a": 1.0, "b": float("nan")})
        writer.write_scalars(3, {"a": 5.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "a"')
    with MetricWriter(tmp_path, start=2) as writer:  # resumes from step 2 and redoes step 3
        writer.write_scalars(3, {"a": 2.0})
        writer.write_scalars(3, {"c": 7.0})
    assert read_scalars(tmp_path) == [{"step": 1, "a": 1.0}, {"step": 3, "a": 2.0, "c": 7.0}]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum(line.endswith("}") and bool(json.loads(line)) for line in lines) == 4


def test_no_bit_of_the_metrics_is_believed_unseen(tmp_path, capsys) -> None:
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2):
            writer.write_scalars(step, {"a": 0.5 * step})
    path = tmp_path / "metrics.jsonl"
    whole, good = path.read_bytes(), read_scalars(tmp_path)
    assert good == [{"step": 1, "a": 0.5}, {"step": 2, "a": 1.0}]
    assert capsys.readouterr().err == ""
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        found, said = read_scalars(tmp_path), capsys.readouterr().err
        assert all(record in good for record in found)
        assert found == good or "cut or altered, and left out: line" in said


def test_tensorboard_reads_the_same(tmp_path) -> None:
    """Its events, of which those of a killed run are marked as gone."""
    with MetricWriter(tmp_path, start=7) as writer:
        writer.write_scalars(8, {"a": 1.5, "b": float("nan")})
    (file,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    content, events = file.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    version, restart, value = events
    assert version.file_version == "brain.Event:2"
    assert (restart.step, restart.session_log.status) == (8, SessionLog.START)
    assert value.step == 8
    assert [(v.tag, v.simple_value) for v in value.summary.value] == [("a", 1.5)]


def test_writer_on_a_full_disk(tmp_path) -> None:
    """It says so, and what else went wrong meanwhile (a checkpoint, say) is not hidden by it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(step: int, error: Exception | None) -> None:
        with MetricWriter(tmp_path) as writer:
            writer.write_scalars(step, {"a": 1.0})
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
            if error:
                writer._board._events.write_event(Event(step=step))  # is still to be flushed
                raise error
            writer.write_scalars(step + 1, {"a": 2.0})

    for step, error, expected in ((1, None, WriteError), (2, KeyError("checkpoint"), KeyError)):
        try:
            with pytest.raises(
                expected, match="Free disk space" if error is None else "checkpoint"
            ):
                write(step, error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_scalars(tmp_path) == [{"step": 1, "a": 1.0}, {"step": 2, "a": 1.0}]
