"""Runs verbs in forks of one process that has imported what they import: seconds less for each.

  python -m tests.support.forks       reads requests as JSON lines, and answers each with an exit code

The process has started nothing of jax or polars, whose threads no fork survives.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks, one for each process that asks; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forks"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    return process


def run(module: str, flags: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `python -m MODULE FLAGS` does, with this process' environment."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        request = {"module": module, "flags": flags, "cwd": str(cwd), "environment": {**os.environ}}
        server.stdin.write(json.dumps({**request, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        texts = [path.read_text(errors="backslashreplace") for path in (out, err)]
        return subprocess.CompletedProcess([module, *flags], code, *texts)


def _as_main(request: dict[str, Any]) -> int:
    """Runs the module in this process; the exit code that Python would end with."""
    for stream, name in ((1, "out"), (2, "err")):
        target = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = [request["module"], *request["flags"]]
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end_as_main(request: dict[str, Any]) -> NoReturn:
    """In a fork: ends it as `python -m MODULE FLAGS` would end, its output in the files out and err."""
    code = _as_main(request)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Forks for each request until standard input ends."""
    from bua_jax.alignment import ask  # noqa: F401
    from bua_jax.pipeline import chain, checks, export, finished, report, stages  # noqa: F401

    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            end_as_main(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
