"""Claims: one process at a time, which the others name; the dead give way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bua_jax.basics.claims import claim_of, claimed
from bua_jax.basics.errors import ClaimedError, WriteError
from tests.support.helpers import ROOT

HOLD = [sys.executable, "-m", "tests.programs.hold_claim"]


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that claims `path` until its input ends."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*HOLD, str(path)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_the_second_names_the_first_and_the_dead_gives_way(tmp_path: Path, capsys) -> None:
    path = tmp_path / "stage2"
    process = holder(path)
    host = socket.gethostname()
    for take_over in (False, True):  # the living are not taken over, whatever is said
        with (
            pytest.raises(ClaimedError, match=f"stage2 is .*process {process.pid} on {host} "),
            claimed(path, take_over=take_over),
        ):
            raise AssertionError("not reached")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with claimed(path):
        assert json.loads(claim_of(path).read_text())["pid"] == os.getpid()
    assert f"taken over from process {process.pid} on {host}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    process = holder(path)
    process.communicate("")
    assert list(tmp_path.iterdir()) == []


def write(path: Path, **values: object) -> None:
    with claimed(path):
        mine = json.loads(claim_of(path).read_text())
    claim_of(path).write_text(json.dumps({**mine, **values}))


@pytest.mark.parametrize(
    "values", [{"host": "another"}, {"host": "another", "start": None}, {"pid": "x"}]
)
def test_another_host_gives_way_when_told(tmp_path: Path, values: dict[str, object]) -> None:
    """And a claim that names nobody."""
    path = tmp_path / "out.jsonl"
    write(path, **values)
    before = claim_of(path).read_text()
    with pytest.raises(ClaimedError, match="--take_over"), claimed(path):
        raise AssertionError("not reached")
    assert claim_of(path).read_text() == before
    with claimed(path, take_over=True):
        assert json.loads(claim_of(path).read_text())["host"] == socket.gethostname()
    assert not claim_of(path).exists()


def test_every_verb_that_claims_can_be_told() -> None:
    """What the error says is a flag of the verb that it ends."""
    claiming = re.compile(r"\b(start|export|tell|ensure|build_cells|removable)\(")
    paths = [path for path in (ROOT / "bua_jax").glob("*.py") if path.name != "cli.py"]
    verbs = {path.name: path.read_text() for path in paths}
    verbs = {name: text for name, text in verbs.items() if claiming.search(text)}
    assert {"curriculum.py", "fit.py", "convert.py", "predict.py", "clean.py"} <= {*verbs}
    for name, text in verbs.items():
        assert "define_take_over()" in text, name
        assert "FLAGS.take_over" in text, name


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    write(tmp_path / "a", start="1")
    with claimed(tmp_path / "a"):
        pass
    write(tmp_path / "a")  # this very process
    with pytest.raises(ClaimedError, match=f"process {os.getpid()} on"), claimed(tmp_path / "a"):
        raise AssertionError("not reached")


def test_of_many_one_gets_it(tmp_path: Path) -> None:
    write(tmp_path / "a", start="1")
    pipe, command = subprocess.PIPE, [*HOLD, str(tmp_path / "a")]
    many = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(4)
    ]
    for _ in range(600):  # until all others have ended; the one ends when its input does
        if sum(process.poll() is None for process in many) == 1:
            break
        time.sleep(0.1)
    ends = [process.communicate() for process in many]
    assert sorted(out for out, _ in ends) == [b"", b"", b"", b"mine\n"]
    assert sum(b"ClaimedError" in err for _, err in ends) == 3


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="Nothing was begun"), claimed(tmp_path / "file" / "out"):
        raise AssertionError("not reached")
