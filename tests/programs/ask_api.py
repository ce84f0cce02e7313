"""Asks a host of tests.support.api, and prints what it said.

python -m tests.programs.ask_api URL CACHE COUNT
"""

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from bua_jax.basics.errors import BuaError
from bua_jax.interop.openai import Chat
from bua_jax.interop.openai_host import Host, Limits


class Said(BaseModel):
    """The form that answers take."""

    word: str


KEY = "BUA_TEST_KEY"
LIMITS = Limits(
    concurrency=4, requests_per_minute=60_000, timeout=1.0, backoff=0.01, tokens=10_000_000
)


def chat(url: str, cache: Path, **more: object) -> Chat:
    """A chat with the host, within generous limits."""
    settings = {"limits": LIMITS, "options": {"max_tokens": 20}, "mode": "json_object", **more}
    return Chat(Host(url, "fake", KEY, "methods.x"), cache, "127.0.0.1", **settings)


if __name__ == "__main__":
    url, cache, count = sys.argv[1:]
    try:
        found = chat(url, Path(cache)).ask([f"question {i}" for i in range(int(count))], Said)
    except BuaError as error:
        print(error)
        sys.exit(2)
    print(json.dumps([one.value and one.value.word for one in found]))
