"""README.md of a run's folder: everything in it is there, and nobody else's page is lost."""

import re
from pathlib import Path

from bua_jax.basics.environment import command
from bua_jax.evaluation import run_page

STEPS = [("data", "events read", True), ("fit/a", "fitted", False)]


def test_a_page_shows_what_is_left_and_obeys_no_text() -> None:
    text = run_page.page("a|b", "python -m x '--a=\n```'", {"data": "x | <b>"}, STEPS)
    assert text.startswith(run_page.MARK)
    assert "1 of 2 steps are left to build." in text
    assert "| `fit/a/` | fitted (to build) |" in text
    assert "| `data/` | events read |" in text
    assert r"| data | x \| \<b\> |" in text
    assert "\n    python -m x '--a= ```'\n" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert "All is built." in run_page.page("a", "", {}, STEPS[:1])


def test_a_page_of_somebody_else_stays(tmp_path: Path) -> None:
    run_page.write_page(tmp_path, f"{run_page.MARK}\none")
    run_page.write_page(tmp_path, f"{run_page.MARK}\ntwo")
    path = tmp_path / "README.md"
    assert path.read_text().endswith("two")
    path.write_text("mine")
    run_page.write_page(tmp_path, f"{run_page.MARK}\nthree")
    assert path.read_text() == "mine"


def test_the_page_of_a_finished_run(quickstart: Path) -> None:
    text = (quickstart / "README.md").read_text()
    assert "All is built." in text
    assert "\n    python -m bua_jax.curriculum --config=configs/quickstart.py --workdir=" in text
    named = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    assert len(named) > 20
    assert all((quickstart / name / "record.json").is_file() for name in named)
    assert all((quickstart / name).is_file() for name in run_page.OF_A_RUN)
    for fact in ("data", "host", "bua\\_jax", "Python"):
        assert re.search(rf"^\| {re.escape(fact)} \| \S", text, re.MULTILINE), fact
    assert "fingerprint open" not in text


def test_the_command_of_a_program_that_is_no_verb(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["my prog.py", "--a=b c"])
    assert command() == "'my prog.py' '--a=b c'"
