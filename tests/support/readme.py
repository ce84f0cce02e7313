"""The pages that people read (README and docs) and their code blocks, by tag.

`ci` blocks run in CI as they are, `smoke` blocks at reduced size, `long` ones are only parsed.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from bua_jax.basics import config as configs
from tests.support.helpers import ROOT

TAGS = ("ci", "smoke", "long")
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)


class Block(NamedTuple):
    """A fenced block; its words are those after the opening backticks."""

    page: str  # path from the root
    words: tuple[str, ...]
    body: str


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, also those without language or tag."""
    page, found, words, body = path.relative_to(ROOT).as_posix(), [], None, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("```"):
            body.append(line)
        elif words is None:
            words, body = tuple(line[3:].split()), []
        else:
            found.append(Block(page, words, "\n".join(body) + "\n"))
            words = None
    assert words is None, f"{page}: a block is not closed"
    return found


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def tagged(language: str, tag: str) -> list[str]:
    """The bodies of all blocks of a language with a tag."""
    return [block.body for block in BLOCKS if block.words == (language, tag)]


def commands(body: str) -> list[list[str]]:
    """The commands of a shell block, comments and line continuations removed."""
    joined = re.sub(r"\\\n\s*", " ", body)
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


FLAG = re.compile(r'DEFINE_\w+\(\s*"(\w+)"')


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
