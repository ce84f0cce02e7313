"""The README's code blocks."""

import re
import shlex

from tests.support.helpers import ROOT

BLOCK = re.compile(r"^```(\w+) (\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())


def commands(body: str) -> list[list[str]]:
    """The commands of a shell block, comments and line continuations removed."""
    joined = body.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]
