"""The pages that people read (README and docs) and their code blocks, by tag.

`ci` blocks run in CI as they are, `smoke` blocks at reduced size, `long` ones are only parsed.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

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
