"""Processes that ask a host are killed: every answer is charged for once, counted by the host.

The host knows nothing of idempotency and charges for what it answers, whoever still listens. What a kill of
the sending process itself leaves is shown too.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bua_jax.interop.openai_store import opened
from tests.programs.ask_api import KEY
from tests.support.api import Api, Do, serving
from tests.support.helpers import ROOT

FIRST = {
    0: Do("refuse", status=429, retry_after="0.1"),
    1: Do("refuse", status=500),
    2: Do("cut"),
    3: Do(text="I would say yes."),
    4: Do(text='{"word": "no", "word": "yes"}'),
    5: Do("stall"),
}
"""What the host does when it is first asked a question, by its number modulo `EVERY`; else it answers."""
EVERY = 40


def hostile(body: dict[str, Any], before: int) -> Do:
    (number,) = re.findall(r"question (\d+)\n", body["messages"][0]["content"])
    bad = FIRST.get(int(number) % EVERY)
    return bad if bad and not before else Do(after=0.03 * (int(number) % 10))


def word(question: str) -> str:
    return '{"word": "yes"}'


def begin(api: Api, cache: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs.ask_api", api.url, str(cache), str(count)],
        cwd=ROOT,
        env={**os.environ, KEY: "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for_call(api: Api, process: subprocess.Popen[str], calls: int) -> bool:
    """Whether the host is asked once more before the process ends."""
    while len(api.calls) <= calls:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.parametrize(
    ("kills", "count"), [(3, 30), pytest.param(50, 500, marks=pytest.mark.long)]
)
def test_an_answer_is_paid_for_once_however_often_who_asks_is_killed(
    tmp_path: Path, kills: int, count: int
) -> None:
    draw, killed, starts = random.Random(0), 0, 0
    with serving(hostile, word) as api:
        while True:
            starts += 1
            assert starts < 3 * kills + count
            process = begin(api, tmp_path / "c", count)
            if killed < kills and wait_for_call(api, process, len(api.calls)):
                time.sleep(draw.uniform(0, 0.15))
                process.kill()
                killed += process.wait() == -signal.SIGKILL
                continue
            said, _ = process.communicate()
            assert process.returncode in (0, 2), said
            if process.returncode == 0:
                break
    assert killed == kills
    wrong = sum(bool(FIRST.get(i % EVERY, Do()).text) for i in range(count))  # which stays said
    assert said.count("null") == wrong
    assert said.count('"yes"') == count - wrong
    assert len(api.paid) == count - wrong
    assert set(api.paid.values()) == {1}
    bad = sum(i % EVERY in FIRST for i in range(count))
    assert len(api.calls) == count + bad - wrong  # no kill led to another call of any kind


def test_two_processes_pay_for_no_answer_twice(tmp_path: Path) -> None:
    with serving(lambda body, before: Do(after=0.1), word) as api:
        both = [begin(api, tmp_path / "c", 12) for _ in range(2)]
        assert {one.communicate()[0].count('"yes"') for one in both} == {12}
    assert len(api.paid) == len(api.calls) == 12
    assert api.most <= 4  # who waits sends nothing


def test_what_a_kill_of_the_sending_process_leaves(tmp_path: Path) -> None:
    """The one call that may be paid for twice: it is counted as lost, and the host could know it again."""
    with serving(lambda body, before: Do(after=0 if before else 1.0), word) as api:
        process = begin(api, tmp_path / "c", 1)
        assert wait_for_call(api, process, 0)
        (sender,) = children(process.pid)
        os.kill(sender, signal.SIGKILL)
        process.communicate()
        assert process.returncode == 2
        process = begin(api, tmp_path / "c", 1)
        assert process.communicate()[0].count('"yes"') == 1
    assert [*api.paid.values()] == [2]
    one, other = (headers["Idempotency-Key"] for *_, headers in api.calls)
    assert one == other
    with opened(tmp_path / "c") as store:
        ledger = store.ledger()
    assert (ledger.calls, ledger.received, ledger.lost) == (2, 1, 1)
    assert ledger.tokens > 2 * 18  # the lost one counts as the most that it may have taken


def test_who_sends_ends_what_is_under_way_when_a_job_is_ended(tmp_path: Path) -> None:
    with serving(lambda body, before: Do(after=0.3), word) as api:
        process = begin(api, tmp_path / "c", 6)
        assert wait_for_call(api, process, 0)
        os.kill(*children(process.pid), signal.SIGTERM)
        said, _ = process.communicate()
        assert "was told to stop before" in said
        sent = len(api.calls)
        assert 1 <= sent <= 4
        with opened(tmp_path / "c") as store:
            assert store.ledger()[:3] == (sent, sent, 0)
        assert begin(api, tmp_path / "c", 6).communicate()[0].count('"yes"') == 6
    assert len(api.calls) == len(api.paid) == 6


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found
