"""Whom a chat asks (`interop.openai`), within which limits, and whether it may."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import Legal, Real, Text, Whole

LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Host:
    """Who is asked. `key_variable` names the environment variable with the API key; empty: it takes none."""

    url: str  # up to /chat/completions
    model: str
    key_variable: str = ""
    part: str = ""  # of the config that names it, for errors

    @property
    def name(self) -> str:
        """The name that consent is given to."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Limits:
    """See `execution.api_limits`; 0 = no limit of tokens per minute or cost."""

    concurrency: int = 8
    requests_per_minute: int = 300
    tokens_per_minute: int = 0
    tokens: int = 1_000_000  # of all calls in the cache, those that were asked again too
    cost: float = 0.0  # likewise
    price_in: float = 0.0  # of a million tokens
    price_out: float = 0.0
    timeout: float = 120.0  # seconds for a whole answer
    tries: int = 6  # of a call, with those that are asked again
    backoff: float = 1.0  # seconds before the second try, doubled with each


LEGAL: dict[str, Legal] = {
    "api_cache": Text(empty=False),
    "api_consent": Text(),
    "api_limits.concurrency": Whole(1, 1000),
    "api_limits.requests_per_minute": Whole(1),
    "api_limits.tokens_per_minute": Whole(0),
    "api_limits.tokens": Whole(1),
    "api_limits.cost": Real(0),
    "api_limits.price_in": Real(0),
    "api_limits.price_out": Real(0),
    "api_limits.timeout": Real(0, above=True),
}
"""What these fields of `execution` may be."""


def canonical(url: str) -> str:
    """The address of a host's chat, in one spelling. Raises `ConfigError` for what is no base of one.

    Without name, password or query: they would hold secrets, and be written down.
    """
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:
        raise ConfigError(f"expected a URL such as https://HOST/v1 ({error})") from error
    secret = (
        parts.username is not None or parts.password is not None or parts.query or parts.fragment
    )
    if parts.scheme not in ("http", "https") or not name or secret:
        raise ConfigError("expected a URL such as https://HOST/v1, without user, password or query")
    if parts.scheme == "http" and name not in LOCAL:
        raise ConfigError(
            "anybody on the way could read it: expected https://, or http:// to this machine alone "
            "(localhost, through a tunnel)"
        )
    shown = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}[parts.scheme]
    where = shown if port in (None, default) else f"{shown}:{port}"
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme}://{where}{path}/chat/completions"


def check_host(host: Host, consent: str) -> None:
    """To be asked before anything is sent. Raises `ConfigError` naming field, value and remedy.

    consent: `execution.api_consent`.
    """
    for name in ("url", "model"):
        if not getattr(host, name):
            raise ConfigError(
                f"config.{host.part}.{name} is empty: nobody is named to be asked. Set it."
            )
    try:
        canonical(host.url)
    except ConfigError as error:
        raise ConfigError(f"config.{host.part}.url={host.url!r}: {error}.") from error
    if consent.lower() != host.name:
        raise ConfigError(
            f"config.execution.api_consent={consent!r} is not {host.name!r}, the host of "
            f"config.{host.part}.url: histories of people would be sent there. If they may be, consent with "
            f"--config.execution.api_consent={host.name}"
        )


def secret(host: Host) -> str:
    """The API key, from the environment alone; empty where the host takes none. Raises `ConfigError`.

    To be asked when something is sent: where all answers are kept it is not needed. What a header may not
    hold is refused here: the libraries below would print it.
    """
    variable = host.key_variable
    key = os.environ.get(variable, "") if variable else ""
    if variable and not re.fullmatch(r"[!-~]+", key):
        wrong = "holds blanks or other characters than ASCII's" if key else "is not set"
        raise ConfigError(
            f"config.{host.part}.key_variable={variable!r}: that environment variable {wrong}. Put the API "
            "key there, and nowhere else; or leave the field empty for a host that takes none."
        )
    return key


def check_limits(limits: Limits) -> None:
    """Raises `ConfigError` for a ceiling of cost that nothing could be held against."""
    if limits.cost and not (limits.price_in or limits.price_out):
        raise ConfigError(
            f"config.execution.api_limits.cost={limits.cost:g} is a ceiling, but price_in and price_out "
            "beside it are 0: give the prices of a million tokens."
        )
