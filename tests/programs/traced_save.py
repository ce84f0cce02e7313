"""Saves checkpoints under strace, which kills the process or lets a system call fail at a named place.

  python -m tests.programs.traced_save FOLDER

Checkpoint n holds the number n everywhere, so that a mixture of two shows. FOLDER/old has checkpoint 2;
every case saves 3 over a copy of it, then a new process looks what is there, and saves 4. Processes are
forked from this one, which has imported everything and started nothing of jax; strace is attached to them.
strace counts the calls of every thread apart, so a place is named in two ways: the n-th call of a kind in
a thread, and the n-th about a path. What was hit is read off its log. Prints JSON: the calls of a save,
and a record of every case.
"""

import ctypes
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bua_jax.basics.errors import CheckpointError
from bua_jax.training import checkpoint, loop

OLD, NEW = 2, 3
REFUSED, SECONDS = 3, 60
WRITES = ("write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "fallocate", "ftruncate")
NAMES = ("rename", "renameat", "renameat2", "mkdir", "mkdirat", "link", "linkat")
REMOVALS = ("unlink", "unlinkat", "rmdir")
LATE = "/metadata.orbax-checkpoint-tmp"  # its renaming comes before the arrays' parts become one
ERRORS = ("ENOSPC", "EIO")


class Position:
    """In a data iterator's place: its position is a number."""

    def __init__(self, n: int) -> None:
        self.n = n

    def get_state(self) -> dict[str, int]:
        return {"n": self.n}

    def set_state(self, state: dict[str, int]) -> None:
        self.n = state["n"]


def state_of(n: int) -> dict[str, Any]:
    shapes = {"a": (40, 30), "b": (500,), "c": (500,), "step": ()}
    return {name: np.full(shape, n, np.float32) for name, shape in shapes.items()}


def save(folder: Path, n: int) -> None:
    record = {"stage": "stage2", "validation_loss": float(n)}
    checkpoint.save(checkpoint.open_manager(folder, keep=1), n, state_of(n), Position(n), record)


def look(folder: Path) -> dict[str, Any]:
    """What a new process finds: the checkpoint it goes on from, and whether all of it is that one's.

    Then it saves the next, which must come back whole too, and what else is left there.
    """
    for newest in (None, NEW + 1):
        if newest:
            save(folder, newest)
        data, manager = Position(0), checkpoint.open_manager(folder, keep=1)
        step, state = checkpoint.restore(manager, state_of(0), data, {"stage": "stage2"})
        values = {float(x) for leaf in jax.tree.leaves(state) for x in np.unique(leaf)}
        values |= {float(data.n), checkpoint.read_metadata(manager, step)["validation_loss"]}
        if newest is None:
            found = {"step": step, "mixed": values != {float(step)}}
            losses = []
            for up_to in (NEW, OLD):  # the run went on from a checkpoint of this step
                shutil.rmtree(copy := folder.with_name("copy"), ignore_errors=True)
                shutil.copytree(folder, copy)
                loss = loop._best_loss(checkpoint.open_manager(copy, keep=1), up_to)
                losses.append(loss if math.isfinite(loss) else None)
            found["best"] = losses
    left = sorted(p.name for p in folder.iterdir() if p.name != str(newest))
    return {**found, "goes_on": step == newest and values == {float(newest)}, "left": left}


# ------------------------------------------------------------------------------- processes, strace


def forked(
    work: Callable[[], Any], attach: Callable[[int], None] = lambda pid: None, before: str = ""
) -> Any:
    """(exit code or minus the signal, what `work` returned) of a forked process.

    `attach` is called with its id as it begins, or before it renames a path that ends in `before`.
    """
    ready, go, answer = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:

        def hold(event: str, arguments: tuple) -> None:
            if event == "os.rename" and str(arguments[0]).endswith(before):
                os.write(ready[1], b"!")
                os.read(go[0], 1)

        code = 1
        try:
            any_process = ctypes.c_ulong(-1)  # may trace this one, also where only parents may
            ctypes.CDLL(None).prctl(0x59616D61, any_process, 0, 0, 0)
            signal.alarm(SECONDS)
            if before:
                sys.addaudithook(hold)
            else:
                hold("os.rename", ("",))
            os.write(answer[1], json.dumps(work()).encode())
            code = 0
        except CheckpointError as error:
            os.write(answer[1], json.dumps(str(error)).encode())
            code = REFUSED
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(ready[1]), os.close(go[0]), os.close(answer[1])
    if os.read(ready[0], 1):
        attach(pid)
        os.write(go[1], b"!")
    with os.fdopen(answer[0]) as file:
        text = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ready[0]), os.close(go[1])
    return code, json.loads(text) if text else None


def traced(folder: Path, *options: str, before: str = "") -> tuple[int, list[str]]:
    """(exit code, strace's log) of saving NEW in `folder`, traced from its begin or the named rename."""
    log = folder.with_name("log")
    calls = ",".join(f"?{call}" for call in WRITES + NAMES + REMOVALS)
    strace: list[subprocess.Popen] = []

    def attach(pid: int) -> None:
        command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={calls}"]
        command += [*options, "-p", str(pid)]
        strace.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        line = strace[0].stderr.readline()
        if "attached" not in line:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"strace cannot trace a process: {line}")

    code, _ = forked(lambda: save(folder, NEW), attach, before)
    strace[0].communicate()
    return code, log.read_text().splitlines()


def call_of(line: str, folder: Path) -> tuple[str, str, str] | None:
    """(thread, call, arguments without numbers and random names) of a line that begins a call."""
    match = re.match(r"(\d+) +(\w+)\((.*)", line)
    if not match:
        return None
    thread, call, rest = match.groups()
    rest = re.split(r"\) += |<unfinished", rest)[0].replace(str(folder), "")
    for pattern, text in ((r"[0-9a-f]{32}", "HASH"), (r"/tmp\w{8}\b", "/TMP"), (r"\b\d+", "")):
        rest = re.sub(pattern, text, rest)
    return thread, call, rest.strip(" ,")


def hits(log: list[str], folder: Path, call: str, mark: str) -> list[str]:
    """Arguments of the calls about `folder` that a line with `mark` ends."""
    begun: dict[str, tuple[str, str]] = {}  # of a thread, what it does
    found = set()
    for line in log:
        if about := call_of(line, folder):
            begun[about[0]] = about[1], about[2] if str(folder) in line else ""
        name, arguments = begun.get(line.split()[0], ("", ""))
        if mark in line and name == call and arguments:
            found.add(arguments)
    return sorted(found)


def places(log: list[str], folder: Path) -> dict[tuple[str, str], list[list[str]]]:
    """Of every call about `folder`, and its arguments: the options of strace that name one such call."""
    named: dict[tuple[str, str], list[list[str]]] = {}
    counts: Counter = Counter()
    for line in log:
        if (found := call_of(line, folder)) is None:
            continue
        thread, call, arguments = found
        counts[thread, call] += 1
        if str(folder) not in line:
            continue
        options = named.setdefault((call, arguments), [])
        options.append([f"when={counts[thread, call]}"])
        path = re.search(rf"({re.escape(str(folder))}[^\">]*)", line)[1]
        if not re.search("HASH|TMP|#", arguments) and path != str(folder):
            counts[thread, call, path] += 1
            options.append([f"when={counts[thread, call, path]}", "-P", path])
    return named


def main(folder: Path) -> None:  # noqa: C901 (a campaign, told in order)
    old, case = folder / "old", folder / "case"
    if code := forked(lambda: save(old, OLD))[0]:
        sys.exit(f"the first save exits with {code}")

    def run(*options: str, before: str = "") -> tuple[int, list[str], dict[str, Any]]:
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(old, case)
        code, log = traced(case, *options, before=before)
        looked, found = forked(lambda: look(case))
        return code, log, {"exit": code, "looked": looked, "found": found}

    code, log, record = run()
    undisturbed = {"step": NEW, "mixed": False, "best": [NEW, None], "goes_on": True, "left": []}
    if code or record["found"] != undisturbed:
        sys.exit(f"a save that nothing disturbs exits with {code}: {record}")
    mixed = []
    for part in ("data", "metadata", "state"):  # of another checkpoint, to see that this is told
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(old, case)
        traced(case)
        shutil.rmtree(case / str(NEW) / part)
        shutil.copytree(old / str(OLD) / part, case / str(NEW) / part)
        mixed.append(forked(lambda: look(case))[1]["mixed"])
    named = places(log, case)
    records = []

    def disturb(what: str, call: str, when: str, *path: str, before: str = "") -> None:
        action = "signal=KILL" if what == "KILL" else f"error={what}"
        _, log, record = run(*path, "-e", f"inject={call}:{action}:{when}", before=before)
        mark = " = ?" if what == "KILL" else "(INJECTED)"
        record |= {"call": call, "what": what, "hits": hits(log, case, call, mark)}
        records.append(record)

    def is_hit(what: str, call: str, arguments: str) -> bool:
        return any(
            (r["what"], r["call"]) == (what, call) and arguments in r["hits"] for r in records
        )

    for what in ("KILL", *ERRORS):
        wanted = [key for key in named if what != "ENOSPC" or key[0] not in REMOVALS]
        every = {(call, *option) for call, about in wanted for option in named[call, about]}
        for call, when, *path in sorted(every):
            disturb(what, call, when, *path)
        for call, arguments in wanted:
            # Threads share the work otherwise every time, so a place may have been another one's. Those
            # of the arrays' last files have no name and come late in threads that may have done little.
            tries = [f"when={n}" for n in (1, 2, 3)] * 2
            while not is_hit(what, call, arguments) and tries:
                disturb(what, call, tries.pop(0), before=LATE)
            others = sorted(option for other, *option in every if other == call)
            tries = random.Random(0).choices(others, k=40)
            while not is_hit(what, call, arguments) and tries:
                disturb(what, call, *tries.pop())
    calls: dict[str, list[str]] = {}
    for call, arguments in sorted(named):
        calls.setdefault(call, []).append(arguments)
    print(json.dumps({"calls": calls, "cases": records, "mixed": mixed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
