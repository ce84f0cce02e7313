"""What comes from data, paths and models is printed as it is: neither markup nor orders to a terminal."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

from bua_jax.basics import console
from bua_jax.basics.console import (
    bar,
    err,
    first_waited,
    in_markdown,
    notice,
    out,
    run_verb,
    visible,
    waiting,
)
from bua_jax.basics.errors import DataError
from tests.support.helpers import ROOT

HOSTILE = "[/red] [bold]a :smile: \x1b[31m\x07\x9b2J\u202eb"
SHOWN = r"[/red] [bold]a :smile: \x1b[31m\x07\x9b2J\u202eb"


def test_everything_printed_shows_what_a_terminal_would_obey(capsys) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    out.print(table)
    out.print(HOSTILE, style="bold")
    notice(HOSTILE)

    def broken() -> None:
        raise DataError(HOSTILE)

    with pytest.raises(SystemExit):
        run_verb(broken)
    printed = capsys.readouterr()
    assert printed.out.count(SHOWN) == 4
    assert printed.err == f"{SHOWN}\nDataError: {SHOWN}\n"


def test_progress_reads_no_markup_in_its_description(capsys, monkeypatch) -> None:
    monkeypatch.setattr(err, "_force_terminal", True)
    with bar() as display:
        display.add_task("[/red]", total=1)
    assert "[/red]" in capsys.readouterr().err


def test_ordinary_text_stays_as_it_is() -> None:
    text = "schläft 睡觉 \N{ZERO WIDTH NON-JOINER}👩\N{ZERO WIDTH JOINER}🚀\tx\n"
    assert visible(text) == text
    assert visible("a\ud800") == r"a\ud800"


def test_a_label_is_one_cell_of_a_markdown_table() -> None:
    assert in_markdown("a|b\n<i> [x](y) $z$ e_f") == r"a\|b \<i\> \[x\](y) \$z\$ e\_f"


def test_a_log_has_a_line_now_and_then(capsys, monkeypatch) -> None:
    """Not one for each of thousands of steps, and some while the first of them takes long."""
    monkeypatch.setattr(console, "EVERY", 0.1)
    with bar() as display:
        task = display.add_task("stage2 loss 2.345", total=5000)
        time.sleep(0.5)
        for _ in range(4000):
            display.advance(task)
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stage2 loss 2.345: 0 of 5000"
    assert re.fullmatch(r"stage2 loss 2.345: 4000 of 5000, [\d.]+ min left", lines[-1])
    assert len(lines) < 100


def test_a_step_speaks_where_nothing_in_it_does(capsys, monkeypatch) -> None:
    monkeypatch.setattr(console, "EVERY", 0.5)
    with waiting("data", 1.0):  # later than what says more
        for _ in range(12):
            time.sleep(0.1)
            notice("busy")
        assert "data" not in capsys.readouterr().err
        time.sleep(1.5)
        assert re.fullmatch(r"data: [23] s so far\n", capsys.readouterr().err)
        monkeypatch.setattr(err, "drawing", True)  # a bar
        time.sleep(1.2)
    assert capsys.readouterr().err == ""


def test_what_takes_long_is_said_and_what_does_not_is_not(capsys, monkeypatch) -> None:
    monkeypatch.setattr(console, "SOON", 0.1)
    with waiting("quick"):
        pass
    call = first_waited(time.sleep, "compiling")
    call(0.5)
    call(0.5)
    assert re.fullmatch(r"compiling: [01] s so far\n", capsys.readouterr().err)
    with pytest.raises(ZeroDivisionError), waiting("broken"):
        _ = 1 / 0


_AFTER_ITS_LOOP = """
import asyncio, sys, tensorstore
from bua_jax.basics import console

def end():
    promise, future = tensorstore.Promise.new()
    loop = asyncio.new_event_loop()

    async def wait():
        await future

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    promise.set_result(1)
    task._log_destroy_pending = False

class Broken:
    def __del__(self):
        raise ValueError("said as ever")

if sys.argv[1:]:
    end()
else:
    console.run_verb(lambda: (end(), Broken()))
"""


def test_reads_that_were_given_up_end_without_a_traceback(tmp_path: Path) -> None:
    """tensorstore reports to a closed loop, as after a damaged checkpoint; other such errors are shown."""
    script = tmp_path / "end.py"
    script.write_text(_AFTER_ITS_LOOP)
    said = {}
    for name, arguments in {"verb": [], "plain": ["plain"]}.items():
        command = [sys.executable, str(script), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        said[name] = done.stderr
    assert "loop is closed" in said["plain"]  # so it is needed
    assert "loop is closed" not in said["verb"]
    assert "said as ever" in said["verb"]
