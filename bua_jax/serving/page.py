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

from bua_jax.dialogue.text import event_record
from bua_jax.events.histories import history_record
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowIndex,
    generation_windows,
    prediction_windows,
    sample_windows,
    target_day,
)

_EVENTS = 40  # of a history that is offered
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


def people_of(store: EventStore, count: int) -> list[dict[str, Any]]:
    """Test users as the page offers them, under numbers: their ids do not leave.

    `events` end with a day, and `after` is the one that followed; None where no day of the data follows one.
    """
    windows = sample_windows(
        generation_windows(store, "test", history_length=_EVENTS), count, seed=0
    )
    if followed := len(windows) > 0:
        after = [_day(store, windows, row) for row in range(len(windows))]
    else:
        every = prediction_windows(store, "test", history_length=_EVENTS)
        windows = sample_windows(every, count, seed=0)
    found = []
    for row in range(len(windows)):
        events = history_record(store, windows, row)["events"]
        shown = after[row] if followed else None
        found.append({"id": f"person {row + 1}", "events": events, "after": shown})
    return found


def _day(store: EventStore, windows: WindowIndex, row: int) -> list[dict[str, str]]:
    day = target_day(store, windows, row)
    events = zip(day.slot, day.place, day.behaviour, strict=True)
    return [event_record(store.catalogue, *event) for event in events]
