"""Parts of a config that name a host to be asked (`methods.zero_shot_api`, `teacher`, `judge`), as chats."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bua_jax.basics.config import Settings
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

    page: the config's `part`; how: its `execution`.
    """
    host = Host(page.url, page.model, page.key_variable, part)
    limits = Limits(**how.api_limits.to_dict())
    check_host(host, how.api_consent)
    check_limits(limits)
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"config.{part} needs the packages {', '.join(missing)}, the extra api: pip install "
            f"{' '.join(missing)}"
        )
    return host, limits


def chat_of(page: Settings, how: Settings, part: str) -> "Chat":
    """The chat that a part names. Raises as `check_page`."""
    host, limits = check_page(page, how, part)
    from bua_jax.interop.openai import Chat

    options = {"max_tokens": page.max_tokens, "temperature": page.temperature, **extra(page.extra)}
    options = {name: value for name, value in options.items() if value is not None}
    mode = "" if page.json_mode == "auto" else page.json_mode
    return Chat(host, Path(how.api_cache).expanduser(), how.api_consent, limits, options, mode)


def said_cost(questions: Sequence[str], page: Settings, how: Settings) -> str:
    """How much is asked: questions, each once, tokens at most (four characters to each), and the price.

    page, how: see `check_page`.
    """
    limits, questions = how.api_limits, [*dict.fromkeys(questions)]
    tokens_in, tokens_out = sum(map(len, questions)) / 4, len(questions) * page.max_tokens
    cost = (tokens_in * limits.price_in + tokens_out * limits.price_out) / 1e6
    price = f", {cost:.2f} at the prices of execution.api_limits" if cost else ""
    return (
        f"{len(questions):,} questions, each asked twice at most: of one round about {tokens_in:,.0f} "
        f"tokens in, at most {tokens_out:,.0f} out{price}"
    )
