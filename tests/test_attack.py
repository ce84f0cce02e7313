"""A sample of `launch/attack.sh`: no corruption is silent, a traceback, or without a remedy.

And that the attack finds what does not hold, on runs that are made to misbehave.
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import attack
from tests.programs.attack import Attack, Said
from tests.support.helpers import ROOT


def test_a_sample_of_the_attack(quickstart: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(quickstart, tmp_path / "run"))
    command = [sys.executable, "-m", "tests.programs.attack", str(run), "1", "6", "1", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found.get(kind, 0) for kind in ("refused", "mended", "unread")) >= 1
    assert found["kills"] == 1


@pytest.fixture
def on_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """The attack on a run of one file, whose commands do what a test says."""
    run = tmp_path / "run"
    for step in attack.STEPS:
        (run / step).mkdir(parents=True)
    (run / "stage2" / "trained.safetensors").write_bytes(bytes(100))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(attack, "in_child", lambda work, scratch: work())
    return Attack(run, tmp_path / "scratch", 1)


def ends(monkeypatch: pytest.MonkeyPatch, one: Attack, *said: Said, same: bool) -> None:
    """The command, given again and again, ends so; its results are the `same` or others."""
    left = list(said)
    monkeypatch.setattr(one, "again", lambda *more, draws=True: left.pop(0))
    monkeypatch.setattr(attack, "results", lambda run: one.whole if same else {"a": "b"})


@pytest.mark.parametrize(
    ("said", "same", "kind"),
    [
        (Said(0, ""), False, "silent"),
        (Said(1, "Traceback (most recent call last): ..."), True, "traceback"),
        (Said(2, "Traceback (most recent call last): ..."), True, "traceback"),
        (Said(2, "One paragraph.\n\nAnd another."), True, "traceback"),
        (Said(-signal.SIGBUS, ""), True, "traceback"),
        (Said(2, "Something is wrong somewhere."), True, "unnamed"),
        (Said(2, "trained.safetensors is damaged."), True, "refused"),
    ],
)
def test_the_attack_finds_corruptions_that_do_not_hold(
    on_a_file: Attack, monkeypatch: pytest.MonkeyPatch, said: Said, same: bool, kind: str
) -> None:
    ends(monkeypatch, on_a_file, said, same=same)
    on_a_file.corruption(on_a_file.run, on_a_file.whole, half=False)
    assert on_a_file.found[kind] == 1
    bad = {"silent", "traceback", "stuck", "unnamed"}
    assert sum(on_a_file.found[other] for other in bad) == (kind in bad)


@pytest.mark.parametrize(
    ("again", "same", "kind"),
    [
        (Said(0, ""), True, "mended"),
        (Said(0, ""), False, "silent"),
        (Said(2, "No."), True, "stuck"),
    ],
)
def test_the_attack_follows_remedies(
    on_a_file: Attack, monkeypatch: pytest.MonkeyPatch, again: Said, same: bool, kind: str
) -> None:
    """Of a half-built stage each is followed: the command must then end as if nothing had been."""
    refused = Said(2, f"Build it anew after: rm -r {on_a_file.copy / 'stage2'} (and what follows).")
    ends(monkeypatch, on_a_file, refused, again, same=same)
    on_a_file.corruption(on_a_file.run, on_a_file.whole, half=True)
    assert not (on_a_file.copy / "stage2").exists()
    assert on_a_file.found[kind] == (kind != "mended")


@pytest.mark.parametrize(
    ("killed", "again", "same", "kind"),
    [
        (Said(-signal.SIGKILL, ""), Said(0, ""), True, ""),
        (Said(-signal.SIGKILL, ""), Said(0, ""), False, "silent"),
        (Said(-signal.SIGKILL, ""), Said(1, "No."), True, "stuck"),
        (Said(-signal.SIGSEGV, ""), Said(0, ""), True, "traceback"),
        (Said(130, "Traceback (most recent call last): ..."), Said(0, ""), True, "traceback"),
    ],
)
def test_the_attack_finds_kills_that_do_not_hold(
    on_a_file: Attack,
    monkeypatch: pytest.MonkeyPatch,
    killed: Said,
    again: Said,
    same: bool,
    kind: str,
) -> None:
    def run_verb(*args: Any, **how: Any) -> Said:
        return killed

    monkeypatch.setattr(attack, "run_verb", run_verb)
    ends(monkeypatch, on_a_file, again, same=same)
    on_a_file.kill({})
    assert on_a_file.found["kills"] == 1
    assert {k for k, n in on_a_file.found.items() if n} - {"kills"} == ({kind} if kind else set())
