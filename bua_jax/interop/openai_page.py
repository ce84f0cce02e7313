"""Parts of a config that name a host to be asked (`methods.zero_shot_api`, `teacher`, `judge`), as chats."""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import Legal, OneOf, Read, Real, Text, Whole, keys_of
from bua_jax.interop.openai_host import Host, Limits, check_host, check_limits

if TYPE_CHECKING:
    from bua_jax.interop.openai import Chat

_PACKAGES = ("aiolimiter", "httpx", "pydantic", "tenacity")  # the extra `api`


def extra(text: str) -> dict[str, Any]:
    """The field `extra`. Raises `ConfigError` for what is no object of JSON."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"expected an object of JSON ({error})") from error
    if not isinstance(value, dict) or {"messages", "model", "stream", "n"} & {*value}:
        raise ConfigError("expected an object of JSON, without messages, model, stream and n")
    return value


LEGAL: dict[str, Legal] = {
    "url": Text(),
    "model": Text(),
    "key_variable": Text(),
    "json_mode": OneOf(("auto", *keys_of("interop.openai", "MODES"))),
    "max_tokens": Whole(1),
    "temperature": Real(0, 2),
    "extra": Read(extra, str),
}
"""What the fields of such a part may be."""
PARTS = {f"{part}.{name}": legal for part in ("teacher", "judge") for name, legal in LEGAL.items()}
"""What those of the parts beside the methods' may be."""


def check_page(page: Settings, how: Settings, part: str) -> tuple[Host, Limits]:
    """Who is asked, within which limits. Raises `ConfigError` where that may not or cannot be.

    page: the config's `part`; how: its `execution`. A key that is not set is said, and no error before
    something is sent: all answers may be kept.
    """
    host, limits = _checked(page, how, part)
    if host.key_variable and not os.environ.get(host.key_variable):
        notice(
            f"config.{part}.key_variable={host.key_variable!r}: that environment variable is not set, so "
            "that nothing can be asked that execution.api_cache does not hold"
        )
    return host, limits


def _checked(page: Settings, how: Settings, part: str) -> tuple[Host, Limits]:
    host = Host(page.url, page.model, page.key_variable, part)
    limits = Limits(**how.api_limits.to_dict())
    check_host(host, how.api_consent)
    check_limits(limits)
    _check_packages(part)
    return host, limits


def _check_packages(part: str) -> None:
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"config.{part} needs the packages {', '.join(missing)}, the extra api: pip install "
            f"{' '.join(missing)}"
        )


def _options(page: Settings) -> dict[str, Any]:
    """Of the body of each question."""
    options = {"max_tokens": page.max_tokens, "temperature": page.temperature, **extra(page.extra)}
    return {name: value for name, value in options.items() if value is not None}


def chat_of(page: Settings, how: Settings, part: str) -> "Chat":
    """The chat that a part names. Raises as `check_page`."""
    host, limits = _checked(page, how, part)
    from bua_jax.interop.openai import Chat

    mode = "" if page.json_mode == "auto" else page.json_mode
    return Chat(
        host, Path(how.api_cache).expanduser(), how.api_consent, limits, _options(page), mode
    )


def said_cost(
    asked: Sequence[tuple[Sequence[str], Callable[[], Any]]],
    page: Settings,
    how: Settings,
    part: str,
) -> str:
    """How much is asked: questions, each once, tokens as the ceilings count them before an answer, the price.

    asked: questions, and what makes the form of their answers. page, how, part: see `check_page`. A question
    is measured as it is sent, with that form (see `openai.tokens_of`); in the longest way to ask for JSON
    where the host's is not known. Raises `ConfigError` where a package of the extra `api` is missing.
    """
    _check_packages(part)
    from bua_jax.interop.openai import MODES, as_bytes, body_of, tokens_of

    host, limits = Host(page.url, page.model, page.key_variable, part), how.api_limits
    mode = MODES[0] if page.json_mode == "auto" else page.json_mode
    bodies = [
        body_of(host, _options(page), question, shape, mode)
        for questions, form in asked
        for shape in [form()]
        for question in questions
    ]
    counted = [tokens_of(body) for body in {as_bytes(body): body for body in bodies}.values()]
    tokens_in, tokens_out = sum(one for one, _ in counted), sum(most for _, most in counted)
    cost = (tokens_in * limits.price_in + tokens_out * limits.price_out) / 1e6
    price = (
        f"{cost:.2f} at the prices of execution.api_limits"
        if limits.price_in or limits.price_out
        else "at an unknown price (execution.api_limits.price_in and price_out are 0)"
    )
    return (
        f"{len(counted):,} questions, each asked twice at most: of one round about {tokens_in:,} tokens in "
        f"(one for three bytes of what is sent; a host may count more), at most {tokens_out:,} out, {price}"
    )
