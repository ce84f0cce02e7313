"""Before every route: who may ask, from where, and what no answer says."""

import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bua_jax.basics.errors import ConfigError
from bua_jax.serving.limits import Refused

TOKEN = "BUA_SERVE_TOKEN"
"""The environment variable with the bearer token."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN = ("/", "/healthz")
"""Paths that need no token: they hold nothing of anybody."""
HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def token_for(host: str) -> str:
    """The token that clients must show; empty for none. Raises `ConfigError` where one is missing or weak.

    Off loopback there must be one; on loopback there may be.
    """
    token = os.environ.get(TOKEN, "")
    if token and not re.fullmatch(r"[!-~]{16,}", token):
        raise ConfigError(
            f"The environment variable {TOKEN} is no token: expected at least 16 characters of ASCII without "
            "blanks, for example of `openssl rand -hex 32`."
        )
    if not token and host not in LOOPBACK:
        raise ConfigError(
            f"--host={host} can be reached from other machines, and histories of people are asked about: set "
            f"the environment variable {TOKEN} to a token that clients must send, or leave --host out."
        )
    return token


def refusal(refused: Refused) -> Response:
    """The answer to a request that is refused."""
    headers = {"retry-after": str(refused.retry)} if refused.retry else None
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    said = {"error": {"message": str(refused), "type": kind}}
    return JSONResponse(said, refused.status, headers)


@dataclass(frozen=True)
class Guard:
    """The outermost layer; token: see `token_for`; counted: is told (path, status) of every answer."""

    app: ASGIApp
    token: str
    loopback: bool
    counted: Callable[[str, int], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.counted(scope["path"], message["status"])
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self._check(Request(scope))
        except Refused as refused:
            await refusal(refused)(scope, receive, sent)
            return
        await self.app(scope, receive, sent)

    def _check(self, request: Request) -> None:
        host = request.headers.get("host", "")
        # A page elsewhere could have its own name point here (DNS rebinding), or send forms.
        if self.loopback and _name_in(f"//{host}") not in LOOPBACK:
            raise Refused(403, "This server answers to localhost only.")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "Pages of other sites may not ask this server.")
        if self.token and request.url.path not in OPEN:
            shown = request.headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(shown[2].strip().encode(), self.token.encode())
            if shown[0].lower() != "bearer" or not right:
                raise Refused(401, "Send the header Authorization: Bearer TOKEN.")


def _name_in(address: str) -> str:
    """The host's name; "" where the address is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
