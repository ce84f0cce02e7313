"""The command `bua`: every verb, the first things, and what a wrong word says."""

import ast
import pkgutil
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bua_jax import __main__ as bua
from bua_jax import cli
from tests.support.helpers import ROOT
from tests.support.readme import check_flags
from tests.support.runs import verb


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bua_jax", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_verb_is_listed_with_what_it_does() -> None:
    calls = {
        path.stem
        for path in (ROOT / "bua_jax").glob("[a-z]*.py")
        if "__main__" in path.read_text() and path.stem != "cli"
    }
    assert set(bua.verbs()) == calls
    for name, about in bua.verbs().items():
        assert about.endswith("."), name
        assert len(about) < 120, name
        assert f"  {name}" in bua.usage()


def test_the_first_things_are_commands() -> None:
    lines = [line.partition(" >")[0] for line in (bua.__doc__ or "").splitlines()]
    given = [shlex.split(line) for line in lines if line.startswith("  bua ")]
    assert len(given) == 5
    for words in given:
        check_flags(f"bua_jax.{words[1]}", words[2:])


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == bua.usage() + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "There is no verb 'trian'. Did you mean 'train'?"),
        (("cli",), "There is no verb 'cli'."),
        (("xyzxyz",), "There are annotate, anonymise, bench,"),
        (("bench", "foo"), "no benchmark 'foo'"),
    ],
)
def test_a_wrong_word_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_by_its_name_is_the_module() -> None:
    done = run("train", "--help")
    assert done.returncode == 0, done.stderr
    assert "--[no]dry_run" in done.stdout
    assert "python -m bua_jax.train" in done.stdout


def test_it_is_installed_as_a_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pkgutil.resolve_name(project["scripts"]["bua"]) is bua.main
    tree = ast.parse(Path(bua.__file__).read_text())
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    # --help imports nothing of ours
    assert not any("bua_jax" in ast.dump(node) for node in imported)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--dry-run", "--dry_run"),
        ("--dry_run", "--dry_run"),
        ("--key-file=a-b.json", "--key_file=a-b.json"),
        ("--config.data.path=a-b", "--config.data.path=a-b"),
        ("--config=my-configs/a.py", "--config=my-configs/a.py"),
        ("my-file.csv", "my-file.csv"),
        ("-1", "-1"),
    ],
)
def test_flags_may_be_written_with_hyphens(written: str, meant: str) -> None:
    assert cli._spelled(written) == meant


def test_several_values_without_their_flags_name(tmp_path: Path) -> None:
    done = verb("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.returncode == 2
    assert f"There is no folder {tmp_path / 'a'}" in done.stderr
