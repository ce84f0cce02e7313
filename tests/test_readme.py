"""The code blocks of README and docs: `ci` run as they are, `smoke` elsewhere, `long` are parsed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bua_jax.basics import config as configs
from tests.support.helpers import ROOT
from tests.support.readme import BLOCKS, TAGS, commands, tagged

LANGUAGES = {"bash", "python", "text", "json", "csv"}


def test_every_block_has_a_language_and_a_known_tag() -> None:
    assert {"README.md", "docs/methods.md"} <= {block.page for block in BLOCKS}
    for block in BLOCKS:
        assert len(block.words) == 2, block
        assert block.words[0] in LANGUAGES, block
        assert block.words[1] in TAGS, block


@pytest.mark.parametrize("body", tagged("bash", "ci"))
def test_ci_blocks_run(body: str, tmp_path: Path) -> None:
    for words in commands(body):
        words = [sys.executable if word == "python" else word for word in words]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"


FLAG = re.compile(r'DEFINE_\w+\(\s*"(\w+)"')
OTHERS = {
    "export",
    "sbatch",
    ".",
    "pip",
    "cp",
    "mkdir",
}  # what pages use beside our own scripts and modules


def flags_of(module: str) -> set[str]:
    """Names of the flags that a verb, or what it shares with others, defines."""
    own = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    shared = [ROOT / "bua_jax" / name for name in ("cli.py", "benchmarks/flags.py")]
    found = {
        name for text in (own, *(p.read_text() for p in shared)) for name in FLAG.findall(text)
    }
    return {"config", "workdir", "help", *found, *re.findall(r'add_argument\(\s*"--(\w+)"', own)}


def check_flags(module: str, words: list[str]) -> None:
    """Flags are those of the module; fields are those of the config that the command names."""
    config = configs.load("configs/stage2.py")
    for word in (word for word in words if word.startswith("--")):
        name, _, value = word[2:].partition("=")
        if name.startswith("config."):
            field = config
            for key in name.split(".")[1:]:
                field = field[key]
            continue
        assert name.replace("-", "_") in flags_of(module), word
        if name == "config":
            path, _, arg = value.partition(":")
            config = configs.load(path, arg)


@pytest.mark.parametrize("body", tagged("bash", "long"))
def test_long_blocks_name_what_exists(body: str) -> None:
    """Scripts, modules, flags, configs and fields."""
    for words in commands(body):
        if words[0].startswith("launch/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111
        elif words[0] not in OTHERS:
            assert words[:2] == ["python", "-m"], words
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words
            check_flags(words[2], words[3:])


def test_python_blocks_parse() -> None:
    bodies = [block.body for block in BLOCKS if block.words[0] == "python"]
    assert bodies
    for body in bodies:
        compile(body, "README.md", "exec")
