"""Killed or refused at every system call of a save: the old or the new checkpoint is there, whole.

What runs under strace: tests/programs/traced_save.py.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.programs.traced_save import ERRORS, NEW, OLD, REFUSED, REMOVALS
from tests.support.helpers import ROOT


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="strace is of Linux")
def test_every_call_of_a_save(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.fail("strace is not installed. On Debian and Ubuntu: apt-get install strace")
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.traced_save", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout)
    calls, cases = found["calls"], found["cases"]
    hit = [case for case in cases if case["hits"]]
    print(len(cases), "cases,", len(hit), "hit a call of the save")
    print(Counter((case["what"], case["call"], case["exit"]) for case in hit))

    assert {"mkdir", "rename", "unlinkat", "rmdir", "fsync", "write", "writev"} <= calls.keys()
    for what in ("KILL", *ERRORS):  # everything that a save does was hit
        for call, arguments in calls.items():
            if what == "ENOSPC" and call in REMOVALS:
                continue
            of = [case["hits"] for case in hit if (case["call"], case["what"]) == (call, what)]
            assert set(arguments) <= {x for hits in of for x in hits}, (what, call)
    for case in cases:
        assert case["looked"] == 0, case
        assert case["found"]["step"] in (OLD, NEW), case
        assert not case["found"]["mixed"], case
        assert case["found"]["goes_on"], case
        assert case["found"]["left"] == [], case
        of_new, of_old = case["found"]["best"]  # None: it is redone
        assert of_new == case["found"]["step"], case
        assert of_old == OLD or (of_old is None and case["found"]["step"] == NEW), case
        assert case["exit"] in (0, REFUSED, -9), case
        if case["exit"] == 0:
            assert case["found"]["step"] == NEW, case
        if case["hits"] and case["what"] in ERRORS and case["call"] not in REMOVALS:
            assert case["exit"] == REFUSED, case  # never a silent success
    assert {case["found"]["step"] for case in hit} == {OLD, NEW}
    assert found["mixed"] == [True] * 3  # checkpoints with a part of another are told
