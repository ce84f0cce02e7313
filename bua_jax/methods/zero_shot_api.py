"""A language model behind an API, as it comes: the row DeepSeek-V3 of the paper's tables.

The history goes there in words (`dialogue.text`), with the labels in an order of its own. What comes back is
read as JSON, else as a label exactly, else as the one label that it is but for case, width, blanks and
surrounding punctuation; never by parts of a text, so that no label is found in another. All else is no
label, which counts as wrong. The paper publishes neither its prompt nor how it decoded.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ApiError
from bua_jax.basics.legal import Whole
from bua_jax.dialogue.text import history_text, parse_label
from bua_jax.events.schema import WEEKDAYS, Catalogue
from bua_jax.interop.openai_page import LEGAL, chat_of, check_page
from bua_jax.methods.protocol import About, Case, Cases, Data, Method, Prediction, Site

if TYPE_CHECKING:
    from bua_jax.interop.openai import Answer, Chat

NAME = "zero_shot_api"
CATALOGUE = "catalogue.json"
PART = f"methods.{NAME}"


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
    check_page(config.methods.zero_shot_api, config.execution, PART)


def keep_catalogue(site: Site, data: Data) -> Mapping[str, Any]:
    """The fit of who is not trained: what the labels are, for `kept_catalogue` when it is asked."""
    catalogue = json.loads(data.store.catalogue.to_json())
    files.write_json(site.folder / CATALOGUE, catalogue)
    return {"training_windows": 0}


def kept_catalogue(site: Site) -> Catalogue:
    """What `keep_catalogue` wrote. Raises `DataError` for a damaged file."""
    return Catalogue.from_json(json.dumps(files.read_json(site.folder / CATALOGUE)))


def _load(site: Site) -> ZeroShotApi:
    page = site.inputs[f"fit/{NAME}"].settings.methods.zero_shot_api
    chat = chat_of(page, site.config.execution, PART)
    return ZeroShotApi(chat, kept_catalogue(site), page.order_seed, 8 * chat.limits.concurrency)


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
    fit=keep_catalogue,
    files=(CATALOGUE,),
    check=check,
    legal={**LEGAL, "order_seed": Whole(0)},
)
