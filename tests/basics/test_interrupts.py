"""Ctrl-C: no traceback while modules are imported, nor where it is ignored or somebody else's."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bua_jax.basics.interrupts import asked_to_stop, is_verb
from tests.support.helpers import ROOT


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("absl", "Interrupted before anything was begun.\n"),
        ("numpy", "Interrupted before anything was begun.\n"),
        ("jax", "Interrupted. Steps, "),  # which the verb imports when it begins
    ],
)
def test_ctrl_c_during_imports_is_no_traceback(after: str, message: str, tmp_path: Path) -> None:
    for _ in range(3):  # on a busy machine the verb may have ended (with 2: no such model) before
        code, said = interrupted_after(after, tmp_path)
        if code != 2:
            break
    assert code == 130
    assert said.startswith(message)
    assert "Traceback" not in said


def interrupted_after(module: str, folder: Path) -> tuple[int, str]:
    """(exit code, what was said) of a verb that gets SIGINT when the module has been imported."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "input").touch()  # or else it would be refused before jax is imported
    flags = [f"--{name}={folder / name}" for name in ("model", "input", "output")]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bua_jax.predict", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # of the imports that are done
        if line.split("|")[-1].strip() == module:
            process.send_signal(signal.SIGINT)
            break
    said = process.communicate(timeout=60)[1]
    lines = [line for line in said.splitlines(True) if not line.startswith("import time:")]
    return process.returncode, "".join(lines)


def test_ignored_signals_stay_ignored() -> None:
    """As under nohup, whose process the terminal's Ctrl-C must not stop."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asked_to_stop("this") as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone() -> None:
    found = []

    def work() -> None:
        with asked_to_stop("this") as asked:
            found.append((asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], signal.getsignal(signal.SIGINT))]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["-m"], True), (["/x/bin/bua", "train"], True), (["notebook.py"], False), ([], False)],
)
def test_what_runs_a_verb(argv: list[str], expected: bool, monkeypatch) -> None:
    """An interpreter inside another program may have no arguments at all."""
    monkeypatch.setattr(sys, "argv", argv)
    assert is_verb() is expected
