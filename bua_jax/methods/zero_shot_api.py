"""A language model behind an API, as it comes: the row DeepSeek-V3 of the paper's tables.

The history goes there in words (`dialogue.text`), with the labels in an order of its own. What comes back is
read as JSON, else as a label exactly, else as the one label that it is but for case, width, blanks and
surrounding punctuation; never by parts of a text, so that no label is found in another. All else is no
label, which counts as wrong. The paper publishes neither its prompt nor how it decoded.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ApiError, ConfigError
from bua_jax.basics.legal import Legal, OneOf, Read, Real, Text, Whole, keys_of
from bua_jax.dialogue.text import history_text, parse_label
from bua_jax.events.schema import WEEKDAYS, Catalogue
from bua_jax.interop.openai_host import Host, Limits, check_host, check_limits
from bua_jax.methods.protocol import About, Case, Cases, Data, Method, Prediction, Site

if TYPE_CHECKING:
    from bua_jax.interop.openai import Answer, Chat

NAME = "zero_shot_api"
CATALOGUE = "catalogue.json"
_PACKAGES = ("aiolimiter", "httpx", "pydantic", "tenacity")  # the extra `api`


def question(case: Case, catalogue: Catalogue, seed: int) -> str:
    """What is asked about a history; the order of the labels depends on that and the seed alone."""
    text = history_text(catalogue, case.history)
    fields = "weekday, time, place" if catalogue.has_places else "weekday, time"
    when = ""
    if case.weekday is not None:
        when = f" on {WEEKDAYS[case.weekday][:3]}"
        when += "" if case.slot is None else f" at {catalogue.clock(case.slot)}"
    labels = json.dumps(_shuffled(catalogue.behaviours, f"{seed}|{text}"), ensure_ascii=False)
    return (
        f"{text}\nAbove are events of one person, oldest first: {fields} and behaviour; a line of dots "
        f"stands for a time of which nothing is known. Which behaviour comes next{when}? It is one "
        f"of: {labels}."
    )


def _shuffled(labels: Sequence[str], seed: str) -> list[str]:
    return sorted(labels, key=lambda label: hashlib.sha256(f"{seed}|{label}".encode()).digest())


def answer_form() -> Any:
    """`{"behaviour": "..."}`; without the labels, whose order there would be the same for all."""
    from pydantic import create_model

    return create_model("NextBehaviour", behaviour=(str, ...))


def read_label(answer: "Answer[Any]", catalogue: Catalogue) -> int:
    """The behaviour that an answer names; -1 where it names none, or was cut or filtered."""
    from bua_jax.interop.openai import NO_ANSWER

    if answer.finish in NO_ANSWER:
        return -1
    text = answer.text if answer.value is None else answer.value.behaviour
    return parse_label(text, catalogue)


@dataclass(frozen=True)
class ZeroShotApi:
    """A host that is asked about histories in words."""

    chat: "Chat"
    catalogue: Catalogue
    seed: int  # of the labels' orders
    rows: int

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "training_windows": 0,
            "asked": {"url": self.chat.host.url, "model": self.chat.host.model},
        }

    def predict(self, cases: Cases) -> Prediction:
        """Labels without probabilities; beside each what was written, by which model and when."""
        asked = [question(one, self.catalogue, self.seed) for one in cases]
        said = self.chat.ask(asked, answer_form())
        if said and not any(one.text.strip() for one in said):
            why = ", ".join(sorted({one.finish or "for no reason" for one in said}))
            raise ApiError(
                f"{self.chat.host.url} wrote nothing in answer to {len(said)} questions (it "
                f"finished: {why}). A model that reasons may need a larger config.methods.{NAME}.max_tokens."
            )
        labels = np.asarray([read_label(one, self.catalogue) for one in said], np.int16)
        texts = [
            {
                "prediction": one.text,
                "model": one.model,
                "system_fingerprint": one.fingerprint,
                "answered": _day(one.created),
            }
            for one in said
        ]
        return Prediction(labels, text=texts, cut=[int(one.finish == "length") for one in said])


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if seconds else ""


# --------------------------------------------------------------------------------- the row of the table


def check(config: Settings) -> None:
    """To be asked before anything is sent. Raises `ConfigError` naming field, value and remedy.

    config: with the method's page and `execution`.
    """
    asked_host(NAME, config.methods.zero_shot_api, config.execution)


def asked_host(name: str, page: Settings, how: Settings) -> tuple[Host, Limits]:
    """Whom the method `name` asks, within which limits. Raises `ConfigError` where it may or can not."""
    host = Host(page.url, page.model, page.key_variable, f"methods.{name}")
    limits = Limits(**how.api_limits.to_dict())
    check_host(host, how.api_consent)
    check_limits(limits)
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"The method {name} needs the packages {', '.join(missing)}, the extra api: pip install "
            f"{' '.join(missing)}"
        )
    return host, limits


def _extra(text: str) -> dict[str, Any]:
    """The field `extra`. Raises `ConfigError` for what is no object of JSON."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"expected an object of JSON ({error})") from error
    if not isinstance(value, dict) or {"messages", "model", "stream", "n"} & {*value}:
        raise ConfigError("expected an object of JSON, without messages, model, stream and n")
    return value


def _fit(site: Site, data: Data) -> Mapping[str, Any]:
    catalogue = json.loads(data.store.catalogue.to_json())
    files.write_json(site.folder / CATALOGUE, catalogue)
    return {"training_windows": 0}


def chat_of(name: str, page: Settings, how: Settings) -> "Chat":
    """The chat of the method `name` with the host of its page. Raises `ConfigError` as `asked_host`."""
    host, limits = asked_host(name, page, how)
    from bua_jax.interop.openai import Chat

    options = {"max_tokens": page.max_tokens, "temperature": page.temperature, **_extra(page.extra)}
    options = {name: value for name, value in options.items() if value is not None}
    mode = "" if page.json_mode == "auto" else page.json_mode
    return Chat(host, Path(how.api_cache).expanduser(), how.api_consent, limits, options, mode)


def _load(site: Site) -> ZeroShotApi:
    page = site.inputs[f"fit/{NAME}"].settings.methods.zero_shot_api
    chat = chat_of(NAME, page, site.config.execution)
    catalogue = Catalogue.from_json(json.dumps(files.read_json(site.folder / CATALOGUE)))
    return ZeroShotApi(chat, catalogue, page.order_seed, 8 * chat.limits.concurrency)


HOST_LEGAL: dict[str, Legal] = {
    "url": Text(),
    "model": Text(),
    "key_variable": Text(),
    "json_mode": OneOf(("auto", *keys_of("interop.openai", "MODES"))),
    "max_tokens": Whole(1),
    "temperature": Real(0, 2),
    "extra": Read(_extra, str),
}
"""What a page that names a host has."""

METHOD = Method(
    NAME,
    About(
        "Zero-shot, by API",
        "a model behind an API, history in words",
        ("weekday", "slot", "place", "behaviour"),
        "nothing",
        sends_logs=True,
    ),
    load=_load,
    fit=_fit,
    files=(CATALOGUE,),
    check=check,
    legal={
        **HOST_LEGAL,
        "order_seed": Whole(0),
    },
)
