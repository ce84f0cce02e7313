"""A process of its own for each that is compared, since a process has only one memory maximum.

A worker is a module with `serve(build)`; it answers calls by name, one at a time, so that whoever
started several decides whose turn it is. Calls and answers are lines of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bua_jax.basics.errors import BuaError


class WorkerFailed(BuaError):
    """A worker ended before it answered; says with what last words."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(f"{module} failed, {reason}")
        self.module, self.reason = module, reason


class Answer(NamedTuple):
    """What a call returned, and the seconds that the worker needed for it."""

    value: Any
    seconds: float


def serve(build: Callable[[dict[str, Any]], Mapping[str, Callable[[], Any]]]) -> None:
    """Runs in the worker: `build` makes the named calls from the job, whose values must be JSON."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    calls = build(json.loads(sys.argv[1]))
    for line in sys.stdin:
        begin = time.perf_counter()
        value = calls[line.strip()]()
        seconds = time.perf_counter() - begin
        print(json.dumps({"value": value, "seconds": seconds}), file=answers)


class Worker:
    """The other end: starts `python -m bua_jax.benchmarks.MODULE JOB` and calls it; a context manager."""

    def __init__(self, module: str, job: Mapping[str, Any]) -> None:
        self.module = module
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bua_jax.benchmarks.{module}", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def call(self, name: str) -> Answer:
        """Waits for the answer. Raises `WorkerFailed` if the worker ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # it has ended, which the empty line says too
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            words = self._said.read().decode(errors="replace").strip().splitlines()
            last = words[-1] if words else "it said nothing"
            raise WorkerFailed(self.module, f"exit code {code}: {last}")
        return Answer(**json.loads(line))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()
