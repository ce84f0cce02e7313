"""Worker processes pack the rows: every epoch is whole, resume is exact, and none of them is left over."""

import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bua_jax.feed import packing, token_file
from bua_jax.feed.batches import Batches, WorkerLost
from bua_jax.feed.token_file import TokenFile
from tests.feed.made import dialogues_of, random_records
from tests.support.helpers import ROOT

RECORDS = random_records(81, 1)  # an odd number, so that the workers' shares change by epoch
WORKERS = 2


def plan(workers: int, records=RECORDS, dialogues: int = 10) -> packing.PackingPlan:
    options = {"row_length": 64, "batch_dialogues": dialogues, "seed": 1, "workers": workers}
    return packing.plan_packing(records, **options)


def equal(some: list, others: list) -> bool:
    return all(
        np.array_equal(one[name], other[name])
        for one, other in zip(some, others, strict=True)
        for name in one
    )


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_whole_epochs_and_exact_resume(capsys) -> None:
    data = Batches(RECORDS, plan(WORKERS), 1)
    per_epoch, seen, drawn = round(plan(WORKERS).steps_per_epoch), Counter(), []
    for epoch in range(1, 4):
        for _ in range(per_epoch):
            drawn.append(next(data))
            seen.update(dialogues_of(drawn[-1], RECORDS))
        assert sum(seen.values()) == pytest.approx(epoch * len(RECORDS), rel=0.1)
        # Before the end of an epoch its last rows are outstanding, or the next one's first are here.
        assert max(seen.values()) <= epoch + 1
        assert sum(n >= epoch for n in seen.values()) >= 0.8 * len(RECORDS)
        if epoch == 1:
            next_to_come = json.loads(json.dumps(data.get_state()))  # as from a checkpoint
            for worker in multiprocessing.active_children():  # as a scheduler does
                os.kill(worker.pid, signal.SIGTERM)
                os.kill(worker.pid, signal.SIGINT)
    workers = [worker.pid for worker in multiprocessing.active_children()]
    assert len(workers) == WORKERS
    data.close()
    assert not any(map(is_running, workers))

    # Another process goes on at that state, and not at its own beginning.
    again = Batches(RECORDS, plan(WORKERS), 1)
    again.set_state(next_to_come)
    assert again.get_state() == next_to_come
    rest = [next(again) for _ in range(2 * per_epoch)]
    assert equal(rest, drawn[per_epoch:])
    assert not equal(rest[:per_epoch], drawn[:per_epoch])
    again.close()
    assert "worker processes" not in capsys.readouterr().err
    plain = next(Batches(RECORDS, plan(0), 1))
    assert {name: value.shape[1:] for name, value in rest[0].items()} == {
        name: value.shape[1:] for name, value in plain.items()
    }


def test_a_killed_worker_is_said() -> None:
    data = Batches(RECORDS, plan(WORKERS), 1)
    next(data)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(
        WorkerLost, match=r"run the same command again.* --config\.execution\.feed_workers=0"
    ):
        list(itertools.islice(data, 100))
    data.close()
    assert multiprocessing.active_children() == []


def test_resume_with_other_workers_restarts_the_epoch(capsys) -> None:
    alone, steps = Batches(RECORDS, plan(0), 1), round(plan(0).steps_per_epoch)
    for _ in range(steps + steps // 2):
        next(alone)
    state = alone.get_state()
    assert 1 <= state["dialogues"] / len(RECORDS) < 2

    data = Batches(RECORDS, plan(WORKERS), 1)
    data.set_state(state)
    notice = (
        "made by 0 worker processes and now are by 2, which put other dialogues together: epoch 2"
    )
    assert notice in capsys.readouterr().err
    assert (data.get_state()["workers"], data.get_state()["first_epoch"]) == (WORKERS, 1)

    # Back to none: the epoch begins anew once more, in the order that it had.
    back = Batches(RECORDS, plan(0), 1)
    back.set_state(data.get_state())
    assert "made by 2 worker processes and now are by 0" in capsys.readouterr().err
    fresh, numbers = Batches(RECORDS, plan(0), 1), []
    while len(numbers) < 2 * len(RECORDS):
        numbers += dialogues_of(next(fresh), RECORDS)
    found = [n for _ in range(steps) for n in dialogues_of(next(back), RECORDS)]
    half = len(RECORDS) // 2
    second = set(numbers[len(RECORDS) :][:half])
    assert len(second & set(found[:half])) >= 0.8 * half
    assert len(set(numbers[:half]) & set(found[:half])) <= 0.8 * half  # it is not the first again
    middle = json.loads(json.dumps(back.get_state()))
    expected = [next(back) for _ in range(3)]
    third = Batches(RECORDS, plan(0), 1)
    third.set_state(middle)
    assert equal([next(third) for _ in range(3)], expected)


def test_a_state_from_before_there_were_workers() -> None:
    data = Batches(RECORDS, plan(0), 1)
    next(data)
    old = {
        name: value
        for name, value in data.get_state().items()
        if name not in ("workers", "first_epoch", "dialogues")
    }
    again = Batches(RECORDS, plan(0), 1)
    again.set_state(old)
    assert equal([next(again)], [next(data)])


def test_no_more_workers_than_rows_in_an_epoch() -> None:
    assert plan(WORKERS).workers == WORKERS
    few = random_records(8, 0)
    rows = sum(len(r.tokens) for r in few) // 64
    assert plan(100, few).workers == rows < 8
    assert plan(3, few[:1]).workers == 1


def test_a_file_of_records_is_sent_as_its_path(tmp_path: Path, monkeypatch) -> None:
    token_file.write(tmp_path / "t.arrow", RECORDS, {})
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(TokenFile(Path("t.arrow")))
    assert len(sent) < 500
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(sent)[5].tokens, RECORDS[5].tokens)


def test_large_rows_do_not_keep_workers_from_ending() -> None:
    """More is ahead than a pipe holds, and nobody reads it."""
    records = random_records(600, 0)
    packed = packing.plan_packing(
        records, row_length=4096, batch_dialogues=600, seed=0, workers=WORKERS
    )
    data = Batches(records, packed, 0)
    assert sum(value.nbytes for value in next(data).values()) > packed.rows_per_batch * 2**16
    time.sleep(1)  # until they have packed what they may ahead
    begin = time.monotonic()
    data.close()
    assert time.monotonic() - begin < 10  # grain kills a worker after 25 s


def test_workers_end_with_a_killed_main_process(tmp_path: Path) -> None:
    token_file.write(tmp_path / "t.arrow", RECORDS, {})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.programs.feed_by_workers", str(tmp_path / "t.arrow")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == WORKERS
    assert all(map(is_running, workers))
    process.kill()
    process.wait(30)
    process.stdout.close()
    for _ in range(100):
        if not any(map(is_running, workers)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{workers} are left over")
