"""The README's code blocks: `ci` run as they are, `smoke` elsewhere, `long` are parsed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bua_jax.basics import config as configs
from tests.support.helpers import ROOT
from tests.support.readme import BLOCKS, commands


def test_every_block_has_a_known_tag() -> None:
    fences = re.findall(r"^```(\S.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert fences
    assert all(fence.split()[-1] in {"ci", "smoke", "long"} for fence in fences), fences


@pytest.mark.parametrize("body", [b for lang, tag, b in BLOCKS if (lang, tag) == ("bash", "ci")])
def test_ci_blocks_run(body: str, tmp_path: Path) -> None:
    for words in commands(body):
        words = [sys.executable if word == "python" else word for word in words]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"


@pytest.mark.parametrize("body", [b for lang, tag, b in BLOCKS if (lang, tag) == ("bash", "long")])
def test_long_blocks_name_what_exists(body: str) -> None:
    for words in commands(body):
        if words[0].startswith("launch/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111
            continue
        assert words[:2] == ["python", "-m"], words
        assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words
        config = configs.load("configs/stage2.py")
        for word in words[3:]:
            if word.startswith("--config="):
                path, _, arg = word.removeprefix("--config=").partition(":")
                config = configs.load(path, arg)
            elif word.startswith("--config."):
                name, _, _ = word.removeprefix("--config.").partition("=")
                field = config
                for key in name.split("."):
                    field = field[key]


def test_python_blocks_parse() -> None:
    bodies = [body for lang, _, body in BLOCKS if lang == "python"]
    assert bodies
    for body in bodies:
        compile(body, "README.md", "exec")
