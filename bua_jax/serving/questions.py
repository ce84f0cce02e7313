"""A history that is asked about: from a line of a request to the line that answers it.

The answers are those of the verbs `predict`, `describe` and `generate`, made by the same functions.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bua_jax.alignment.ask import Bua
from bua_jax.decoding.dialogue import Asked, DayAsked, Said
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.tasks import generation_instruction
from bua_jax.evaluation.understanding.judged import judged
from bua_jax.events.histories import MIN_EVENTS, histories_of
from bua_jax.events.schema import WEEKDAYS, History
from bua_jax.serving.limits import Limits, Refused
from bua_jax.training.networks import Encoder, last_log_probabilities

KINDS = ("predict", "describe", "generate", "person")
"""What can be asked: three verbs, and `generate --predictions`, which the page shows."""


@dataclass(frozen=True)
class Question:
    """One history; number: its line in the request from 0, which a generated day is drawn by."""

    kind: str
    id: str
    history: History
    number: int

    def asked(self, bua: Bua) -> Asked:
        """The dialogue, as the verb holds it."""
        asker = dataclasses.replace(bua, with_rounds=True) if self.kind == "describe" else bua
        predict = bua.final_instruction if self.kind in ("predict", "person") else ""
        day = None
        if self.kind in ("generate", "person"):
            weekday = (int(self.history.weekday[-1]) + 1) % 7
            day = DayAsked(generation_instruction(weekday), weekday, self.number)
        return Asked(self.history, asker.rounds([self.history]), 0, predict, day)

    def record(self, bua: Bua, found: Said) -> dict[str, Any]:
        """What a JSON line of the verb's output holds."""
        if found.day is not None:
            answer: Any = bua.day_of(found.day, found.said, found.log_p)
        elif found.log_p is not None:
            answer = bua.next_of(found.log_p, found.said)
        else:
            answer = bua.description_of(found.said)
        return {"id": self.id, **answer.record}


def claims_of(
    bua: Bua, history: History, texts: Mapping[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """The texts in pieces (words, verdict): which of their claims are true of the history."""
    window = Window(history, bua.catalogue, bua.shares, "")
    return {part: judged(window, text) for part, text in texts.items()}


def encoder_shares(bua: Bua, history: History) -> dict[str, float]:
    """How likely every label comes next by the encoder's own head, without the language model; sum 1."""
    encoder: Any = bua.parts.model.encoder
    variables = {"encoder": bua.parts.variables["encoder"]}
    room = max(0, bua.windows.prediction_history - len(history))  # one shape is compiled
    fields = np.pad(history.encoder_fields().astype(np.int32), ((0, room), (0, 0)))[None]
    count = np.asarray([len(history)], np.int32)
    log_p = last_log_probabilities(Encoder(encoder.config), variables, fields, count)
    shares = np.exp(np.asarray(log_p[0], np.float64))
    return {b: float(p) for b, p in zip(bua.catalogue.behaviours, shares, strict=True)}


def limit_of(bua: Bua, kind: str) -> int:
    """Events of a history that are read, as the verb reads them."""
    windows = bua.windows
    return windows.generation_history if kind == "generate" else windows.prediction_history


def questions_of(bua: Bua, kind: str, body: bytes, limits: Limits) -> list[Question]:
    """The histories of a request, one JSON object to a line.

    Raises `DataError` as the verbs do of a file, `Refused` for histories that are too many or too long.
    """
    lines = body.split(b"\n")
    if sum(bool(line.strip()) for line in lines) > limits.waiting:
        raise Refused(413, f"A request may hold {limits.waiting} histories. Send them in parts.")
    if any(line.count(b'"behaviour"') > limits.events for line in lines):  # which every event has
        raise Refused(413, f"A history may have {limits.events} events. Send the last ones.")
    ids, histories = histories_of(
        "the request", io.BytesIO(body), bua.catalogue, limit_of(bua, kind)
    )
    named = zip(ids, histories, strict=True)
    return [Question(kind, name, one, i) for i, (name, one) in enumerate(named)]


def longest(bua: Bua, kind: str) -> Question:
    """A made-up history of as many events as are read, an hour apart, all of the longest label."""
    label = max(bua.catalogue.behaviours, key=len)
    events = [
        {
            "weekday": WEEKDAYS[i // 24 % 7],
            "time": f"{i % 24:02d}:00",
            "location": "somewhere",
            "behaviour": label,
        }
        for i in range(max(limit_of(bua, kind), MIN_EVENTS))
    ]
    line = json.dumps({"id": "made up", "events": events}).encode()
    return questions_of(bua, kind, line, Limits(events=len(events)))[0]
