"""Training killed at random moments, and a run resumed at every one of its steps, end as if nothing had been.

The processes that are killed, and what kills them: tests/programs/endure.py.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bua_jax.training import checkpoint, dialogues, loop
from bua_jax.training.problem import Sum, Sums
from bua_jax.training.writers import read_scalars
from tests.programs import endure
from tests.programs.endure import INTERRUPTED, INTERVAL, KINDS, PLANS, STAGES, STEPS
from tests.support.helpers import ROOT


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def newest(folder: Path, like: Any = None) -> tuple[int, Any]:
    """The newest checkpoint's step and state, whose shapes and shardings are in `like` or in its files.

    A truncated file of shardings, which resuming does not read, is then not read here either.
    """
    manager = checkpoint.open_manager(folder)
    step = manager.latest_step()
    assert step is not None, folder
    state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
    return step, state.state


def arrays(folder: Path, step: int, state: Any) -> dict[str, np.ndarray]:
    """Every array of a state, by its path."""
    return {
        f"{folder.name}/{step}/{jax.tree_util.keystr(path)}": np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def differences(whole: Path, cut: Path) -> set[str]:
    """What differs between a run without kills and one with: parts of the end, and batches on the way."""
    found = set()
    drawn = {(e["stage"], e["step"]): e["ids"] for e in events_of(whole) if e["event"] == "draw"}
    assert len(drawn) == len(STAGES) * STEPS
    again = [e for e in events_of(cut) if e["event"] == "draw"]
    if any(drawn[e["stage"], e["step"]] != e["ids"] for e in again):
        found.add("ids")
    if {(e["stage"], e["step"]) for e in again} != drawn.keys():
        found.add("steps")
    for stage in STAGES:
        for kind in ("checkpoints", "best"):
            step, state = newest(whole / stage / kind)
            one = arrays(whole / stage / kind, step, state)
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
            other = arrays(cut / stage / kind, *newest(cut / stage / kind, like))
            if one.keys() != other.keys():
                found.add(f"{kind} has other arrays")
                continue
            for name, value in one.items():
                if value.dtype != other[name].dtype or value.tobytes() != other[name].tobytes():
                    found.add(next(p for p in ("opt_state", "trainable", "") if p in name))
        position = f"{stage}/checkpoints/{STEPS}/data/metadata"
        if (whole / position).read_text() != (cut / position).read_text():
            found.add("position")
        losses = [
            [
                {k: v for k, v in s.items() if "validation" in k}
                for s in read_scalars(folder / stage)
            ]
            for folder in (whole, cut)
        ]
        if [s for s in losses[0] if s] != [s for s in losses[1] if s]:
            found.add("validation losses")
    return found


def steps_lost(folder: Path) -> list[tuple[int, int]]:
    """(steps begun that a resumed process did again, how many it may at most) of every resume."""
    lost, begun, allowed = [], Counter(), dict.fromkeys(STAGES, INTERVAL)
    stage = next(iter(STAGES))
    for event in events_of(folder):
        if event["event"] == "exit" and event["code"] == INTERRUPTED:
            allowed[stage] = 0  # it saved where it stood
        elif event["event"] == "truncated":
            allowed[stage] = allowed[stage] + INTERVAL
        if "step" not in event:
            continue
        stage = event["stage"]
        if event["event"] == "resume":
            lost.append((begun[stage] - event["step"], allowed[stage]))
            begun[stage], allowed[stage] = event["step"], INTERVAL
        begun[stage] = max(begun[stage], event["step"])
    return lost


def kill(folder: Path, kills: int, *flags: str) -> list[dict[str, Any]]:
    """Runs tests/programs/endure.py; the kills that took effect."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.endure", str(folder), str(kills), "0", *flags],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return [record for record in json.loads(done.stdout) if record["exit"]]


def check(folder: Path, records: list[dict[str, Any]], kills: int) -> None:
    """All runs with kills ended as the one without; runs without what a checkpoint holds did not."""
    print(Counter((r["kind"], r["stage"], "in a save" if r["in_save"] else "") for r in records))
    assert len(records) >= kills
    assert {r["kind"] for r in records} == set(KINDS)
    assert {r["stage"] for r in records} == set(STAGES)
    assert 3 * sum(r["in_save"] for r in records) >= len(records)
    assert (folder / "no_data").exists()
    runs = [p for p in folder.iterdir() if p.name.isdigit()]
    assert {r["run"] for r in records} <= {p.name for p in runs}
    for run in runs:
        assert differences(folder / "whole", run) == set(), run
        assert all(lost <= most for lost, most in steps_lost(run)), (run, steps_lost(run))
    print("steps lost, at most:", Counter(pair for run in runs for pair in steps_lost(run)))
    # Without their part of the checkpoint, the same comparison tells that and what it led to.
    assert {"ids", "position", "trainable"} <= differences(folder / "whole", folder / "no_data")
    assert differences(folder / "whole", folder / "no_optimizer") >= {"opt_state", "trainable"}
    assert "ids" not in differences(folder / "whole", folder / "no_optimizer")


@pytest.mark.long
def test_ten_kills(tmp_path: Path) -> None:
    check(tmp_path, kill(tmp_path, 10, "light"), 10)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kills", "flags"), [(150, ["light"]), (50, [])], ids=["150", "50_whole"])
def test_two_hundred_kills(tmp_path: Path, kills: int, flags: list[str]) -> None:
    """150 of a run whose language model is a table, 50 of one with the whole model."""
    check(tmp_path, kill(tmp_path, kills, *flags), kills)


# --------------------------------------------------------------------------- resumed at every step


class Cut(Exception):
    """The process would be gone here."""


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that only count, so that the loop, its data and its checkpoints are all that runs."""

    def make_step(*_: Any) -> Any:
        def step(state: Any, frozen: Any, batch: Any, sums: Any) -> Any:
            one = Sum(sums.step.steps.total + 1)
            more = sums.problem.replace(tokens=one, supervised=one)
            counted = Sums(sums.step.replace(steps=one), more, sums.units)
            return state._replace(step=state.step + 1), counted

        return step

    losses = {"validation/loss": 1.0}
    monkeypatch.setattr(loop, "make_step", make_step)
    monkeypatch.setattr(dialogues, "evaluate", lambda *_: losses)
    monkeypatch.setattr(endure, "LIGHT", True)
    for module, name in ((dialogues, "Batches"), (checkpoint, "restore"), (checkpoint, "save")):
        monkeypatch.setattr(module, name, getattr(module, name))  # `endure.watch` sets them


def drawn(folder: Path, every: int, *, most: int = 1000, dropped: str = "") -> list[Any]:
    """(stage, step, ids) of the batches drawn until the stages are done, or one more than `most` is.

    That one is cut in the middle of its step, before any of its microbatches counts.
    """
    found: list[Any] = []

    def say(event: str, stage: str, step: int, ids: Any = None) -> None:
        if event == "draw" and len(found) == most:
            raise Cut
        if event == "draw":
            found.append((stage, step, ids))

    stages = {
        stage: dataclasses.replace(settings, checkpoint_every=every)
        for stage, settings in STAGES.items()
    }
    try:
        endure.train_stages(folder, say, stages, dropped)
    except Cut:
        assert len(found) == most
    return found


def test_resumed_at_every_step(tmp_path: Path, counting: None) -> None:
    """Whatever the step (first, inside or at the end of an epoch or stage), the same batches follow."""
    whole = drawn(tmp_path / "whole", every=100)
    assert [(stage, step) for stage, step, _ in whole] == [
        (stage, step) for stage in STAGES for step in range(1, STEPS + 1)
    ]
    assert all(2 * PLANS[stage].steps_per_epoch < STEPS for stage in STAGES)  # edges of epochs
    for done in range(len(whole)):
        copy = tmp_path / str(done)
        if done:
            shutil.copytree(tmp_path / "stepwise", copy)
        assert drawn(copy, every=100) == whole[done:]
        if done in (3, STEPS + 3):
            shutil.copytree(tmp_path / "stepwise", tmp_path / f"dropped{done}")
            dropped = drawn(tmp_path / f"dropped{done}", every=100, dropped="data")
            assert [x[:2] for x in dropped] == [x[:2] for x in whole[done:]]
            assert dropped != whole[done:]
        assert drawn(tmp_path / "stepwise", every=1, most=1) == whole[done : done + 1]
