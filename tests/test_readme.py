"""The code blocks of README and docs: `ci` run as they are, `smoke` elsewhere, `long` are parsed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import ROOT
from tests.support.readme import BLOCKS, TAGS, check_flags, commands, tagged

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


OTHERS = {
    "export",
    "sbatch",
    ".",
    "pip",
    "cp",
    "mkdir",
}  # what pages use beside our own scripts and modules


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
