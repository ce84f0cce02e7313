"""The page at `/`: one file, of which nothing but its own script and style may run."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

PAGE = Path(__file__).parent / "page.html"


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: its script and style by their hashes, this server alone."""

    def hashes(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(text.encode()).digest() for text in found)
        return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hashes('script')}",
            f"style-src {hashes('style')}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )


def routes(people: Sequence[Mapping[str, Any]]) -> list[Route]:
    """The page, and the people that it offers."""
    text = PAGE.read_text(encoding="utf-8")
    headers = {"content-security-policy": policy(text)}

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)

    async def examples(request: Request) -> Response:
        return JSONResponse({"people": list(people)})

    return [Route("/", page), Route("/examples", examples)]


def people_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Histories as the page offers them, under numbers: their ids do not leave."""
    return [{"id": f"person {i}", "events": one["events"]} for i, one in enumerate(lines, 1)]
