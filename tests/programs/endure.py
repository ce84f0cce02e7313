"""Trains two short stages, kills the process at random moments, and starts it again until they are done.

  python -m tests.programs.endure FOLDER KILLS SEED [light]

Every process is forked from this one, which has imported everything and started nothing of jax: a start
then costs a second. The process says through a pipe what it does (events), and is killed as long after
one of them as the seed says. FOLDER/whole is the run without kills, FOLDER/0, 1, ... are runs with them,
FOLDER/no_data and no_optimizer are resumed without the position in the data and without the optimizer's
state. Each has the stages' folders and events.jsonl. Prints a JSON record of every kill. `light` puts a
table in the language model's place, which is traced in a tenth of the time; all else stays.
"""

import functools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.basics.errors import CheckpointError, Interrupted
from bua_jax.feed.batches import Batches
from bua_jax.parallel import sharding
from bua_jax.training import checkpoint, dialogues, loop, losses
from bua_jax.training.dialogues import TrainSettings
from bua_jax.training.optimizer import OptimizerSettings, trained_parts
from tests.support import tiny

INTERVAL = 2  # steps between saves
STEPS = 8  # of a stage
LIGHT = "light" in sys.argv
_COMMON: dict[str, Any] = {
    "total_steps": STEPS,
    "checkpoint_every": INTERVAL,
    "evaluate_every": 3,
    "log_every": 3,
    "optimizer": OptimizerSettings(peak_lr=1e-2),
}
STAGES = {
    "stage1": TrainSettings(loss="token_mean", **_COMMON),
    "stage2": TrainSettings(microbatches=2, balancer="appendix_k", **_COMMON),
}
RECORDS = {stage: tiny.records(24, seed=number) for number, stage in enumerate(STAGES)}
PLANS = {stage: tiny.plan(RECORDS[stage], rows_multiple=2) for stage in STAGES}
VALIDATION = tiny.records(6, seed=9)
RESTORE, SAVE = checkpoint.restore, checkpoint.save
KINDS = ("SIGKILL", "SIGTERM", "truncated", "full", "SIGKILL")
MOMENTS = ("save", "save", "step", "save", "save", "step", "start")
INTERRUPTED, REFUSED = 2, 3  # exit codes: SIGTERM answered, a checkpoint could not be written


# ------------------------------------------------------------------------------------ the trained


def record_ids(records: list, batch: Any) -> list[int]:
    """Which of the records are in a batch, in its order."""
    number = {record.tokens.tobytes(): i for i, record in enumerate(records)}
    return [
        number[tokens[segments == segment].astype(np.int32).tobytes()]
        for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True)
        for segment in range(1, segments.max() + 1)
    ]


class Recorded:
    """Training batches that say which records they hold, and of which step they are."""

    def __init__(self, records: list, plan: Any, seed: int, say: Callable[..., None]) -> None:
        self.inner, self.records, self.say, self.step = (
            Batches(records, plan, seed),
            records,
            say,
            0,
        )
        self.get_state, self.set_state = self.inner.get_state, self.inner.set_state
        self.close = self.inner.close

    def __next__(self) -> Any:
        batch, self.step = next(self.inner), self.step + 1
        self.say("draw", step=self.step, ids=record_ids(self.records, batch))
        return batch


def watch(say: Callable[..., None], dropped: str) -> None:
    """Makes the loop say what it draws, restores and saves; `dropped` is not restored."""

    def restoring(manager: Any, state: Any, data: Any, metadata: Any) -> Any:
        start = data and data.get_state()
        step, restored = RESTORE(manager, state, data, metadata)
        if Path(manager.directory).name == "checkpoints":
            data.step = step
            say("resume", step=step)
            if dropped == "data":
                data.set_state(start)
            if dropped == "optimizer":
                restored = restored._replace(opt_state=state.opt_state)
        return step, restored

    def saving(manager: Any, step: int, *rest: Any) -> None:
        say("save", step=step)
        SAVE(manager, step, *rest)
        say("saved", step=step)

    dialogues.Batches = lambda records, plan, seed: Recorded(records, plan, seed, say)
    checkpoint.restore, checkpoint.save = restoring, saving


def fill_disk(say: Callable[..., None], saves: int, limit: int, late: bool) -> None:
    """The disk is full from the given save on: before it begins, or once it was found to have room."""
    check = checkpoint._check_room
    count = iter(range(1, 1000))

    def checking(folder: Path, size: int) -> None:
        if next(count) < saves:
            return check(folder, size)
        if late:
            check(folder, size)
        say("full", stage=folder.parent.name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return None if late else check(folder, size)

    checkpoint._check_room = checking


def light_losses(model: Any, variables: Any, batch: Any, plan: Any, loss: Any = None) -> Any:
    """`batch_losses` where the loss of a token is an entry of the parameters: all have a gradient."""
    leaves = jax.tree.leaves([variables["projector"], variables["adapter"]])
    table = jnp.concatenate([leaf.ravel() for leaf in leaves])
    place = batch["tokens"] * 31 + batch["positions"] * 7 + batch["events"].sum((1, 2))[:, None]
    nll = jax.nn.softplus(table[place % len(table)])
    return nll, losses.dialogue_losses(nll, batch["round_ids"], batch["segments"], batch["tasks"])


def light_variables() -> dict[str, Any]:
    """A few parameters of every group."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "base": {"norm": {"scale": draw(4)}},
        "encoder": {"norm": {"scale": draw(4)}},
        "projector": {"out": {"kernel": draw(12, 8), "bias": draw(8)}},
        "adapter": {"layers": {"mlp": {"up_proj": {"a": draw(1, 12, 2), "b": draw(1, 2, 12)}}}},
    }


def train_stages(
    folder: Path,
    say: Callable[..., None],
    stages: Mapping[str, TrainSettings] = STAGES,
    dropped: str = "",
) -> None:
    """Trains what is left of the stages; each begins with the groups of the one before."""
    model, variables = (None, light_variables()) if LIGHT else tiny.model()
    mesh = sharding.make_mesh("1")
    for stage, settings in stages.items():
        watch(functools.partial(say, stage=stage), dropped)
        with jax.set_mesh(mesh):
            best, _ = loop.fit(
                dialogues.Dialogues(model, PLANS[stage], settings, RECORDS[stage], VALIDATION),
                variables,
                trained_parts(stage),
                settings,
                folder / stage,
                mesh,
                {"stage": stage},
            )
        variables = {**variables, **best}


def child(folder: Path, pipe: int, dropped: str, full: Any) -> None:
    """The forked process: trains, tells the pipe of it, and ends with an exit code."""

    def say(event: str, **more: Any) -> None:
        line = json.dumps({"event": event, "time": time.monotonic(), **more})
        os.write(pipe, f"{line}\n".encode())

    signal.alarm(300)  # one that hangs is told as such
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if full:
        fill_disk(say, *full)
    if LIGHT:
        dialogues.batch_losses = light_losses
    code = 0
    try:
        train_stages(folder, say, dropped=dropped)
    except Interrupted:
        code = INTERRUPTED
    except CheckpointError:
        code = REFUSED
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


# ------------------------------------------------------------------------------------- the killer


def note(folder: Path, *events: dict) -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / "events.jsonl", "a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


class Process:
    """A forked process that trains in `folder`, and the events it told."""

    def __init__(self, folder: Path, *, dropped: str = "", full: Any = None) -> None:
        reader, writer = os.pipe()
        self.folder, self.events = folder, []
        sys.stdout.flush()
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            child(folder, writer, dropped, full)
        os.close(writer)
        self._lines = os.fdopen(reader)

    def wait_for(self, event: str, count: int) -> bool:
        """Whether the process got to the event so many times."""
        while count > 0 and (line := self._lines.readline()):
            self.events.append(json.loads(line))
            count -= self.events[-1]["event"] == event
        return count == 0

    def end(self) -> int:
        """Its exit code, or minus the signal, when it has ended; events are in the file then."""
        self.wait_for("no such event", 1)
        self._lines.close()
        self.seconds = time.monotonic() - self.started
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        note(self.folder, *self.events, {"event": "exit", "code": code})
        if code in (1, -signal.SIGALRM):
            sys.exit(f"training failed or hung in {self.folder} (exit {code})")
        return code


def truncate_newest(checkpoints: Path, rng: random.Random) -> str | None:
    """Cuts a file of the newest checkpoint, if there is one before it; returns its name."""
    steps = sorted(int(p.name) for p in checkpoints.glob("*") if p.name.isdigit())
    if len(steps) < 2:
        return None
    newest = checkpoints / str(steps[-1])
    file = rng.choice(sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size))
    os.truncate(file, rng.randrange(file.stat().st_size))
    return str(file.relative_to(checkpoints))


def kill_once(folder: Path, kind: str, moment: str, scale: dict, rng: random.Random) -> dict:
    """Starts training and ends it; a record of how (exit 0: it was done before)."""
    full = None
    if kind == "full":
        moment, full = "save", (rng.randint(1, 4), rng.randrange(scale["file"]), rng.random() < 0.5)
    process = Process(folder, full=full)
    if kind != "full":
        count = rng.randint(3, 5) if kind == "truncated" else rng.randint(1, 4)
        if moment != "start":
            process.wait_for({"save": "save", "step": "draw"}[moment], count)
        time.sleep(rng.uniform(0, scale[moment]))
        os.kill(process.pid, signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
    code = process.end()
    if code == 0 and any(event["event"] == "full" for event in process.events):
        sys.exit(f"{folder}: a save on a full disk was reported as done")
    last = process.events[-1] if process.events else {"event": "", "stage": "stage1"}
    file = None
    if kind == "truncated" and code:
        file = truncate_newest(folder / last["stage"] / "checkpoints", rng)
        kind = kind if file else "SIGKILL"
        if file:
            note(folder, {"event": "truncated", "stage": last["stage"], "file": file})
    drawn = [e["step"] for e in process.events if e["stage"] == last["stage"] and "step" in e]
    return {
        "kind": kind,
        "run": folder.name,
        "moment": moment,
        "exit": code,
        "stage": last["stage"],
        "step": max(drawn, default=0),
        "in_save": code != 0 and last["event"] in ("save", "full"),
        "file": file,
        "seconds": round(process.seconds, 2),
    }


def main(folder: Path, kills: int, seed: int) -> None:  # noqa: C901 (a campaign, told in order)
    rng = random.Random(seed)
    for _ in range(2):  # the first one compiles; the second is as long as all that follow
        shutil.rmtree(folder / "whole", ignore_errors=True)
        whole = Process(folder / "whole")
        if code := whole.end():
            sys.exit(f"the run without kills exits with {code}")
    times = {e["event"]: [] for e in whole.events}
    for before, after in zip(whole.events, whole.events[1:], strict=False):
        times[before["event"]].append(after["time"] - before["time"])
    saved = [p for kind in ("checkpoints", "best") for p in (folder / "whole").glob(f"*/{kind}/*")]
    largest = [max(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in saved]
    scale = {
        "save": sorted(times["save"])[len(times["save"]) // 4],
        "step": sorted(times["draw"])[len(times["draw"]) // 2],
        "start": whole.events[0]["time"] - whole.started,
        "file": min(largest),  # a limit below keeps every save from being done
    }

    records: list[dict] = []
    run, control = 0, None
    while True:
        done = [r for r in records if r["exit"]]
        enough = len(done) >= kills and {r["kind"] for r in done} == set(KINDS)
        if enough and 3 * sum(r["in_save"] for r in done) >= len(done):
            break
        if len(records) > 3 * kills + 10:
            sys.exit(f"too few kills took effect: {records}")
        at = folder / str(run)
        kind, moment = KINDS[len(records) % len(KINDS)], MOMENTS[len(records) % len(MOMENTS)]
        records.append(kill_once(at, kind, moment, scale, rng))
        if records[-1]["exit"] == 0:
            run += 1
        elif control is None and list(at.glob("*/checkpoints/[0-9]")):
            control = [folder / f"no_{what}" for what in ("data", "optimizer")]
            for copy in control:
                shutil.copytree(at, copy)
    if records[-1]["exit"] and (code := Process(folder / str(run)).end()):
        sys.exit(f"the run after the last kill exits with {code}")
    for copy in control or []:
        if code := Process(copy, dropped=copy.name.removeprefix("no_")).end():
            sys.exit(f"{copy} exits with {code}")
    print(json.dumps(records))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
