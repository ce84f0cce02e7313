"""What mkdocs does not read of our pages: the tags of code blocks (tests/support/readme.py)."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its blocks' tags left out."""
    return re.sub(r"^```(\w+) (ci|smoke|long)$", r"```\1", markdown, flags=re.MULTILINE)
