"""D2A (Wang et al., 2024): a day of what eases a person's desires most, as a language model rates them.

Two rows: `d2a` asks the base as it comes, which writes JSON under a grammar, `d2a_api` a host, with consent.
A step of a day is one question for each of three plans and one for each of their outcomes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.legal import OneOf, Real
from bua_jax.dialogue import d2a as desires
from bua_jax.dialogue.annotator import ask_twice
from bua_jax.dialogue.d2a import DEGREES, DESIRES, LEVELS, Moment
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day
from bua_jax.interop.openai_page import LEGAL, chat_of, check_page
from bua_jax.methods.protocol import About, Cases, Generation, Method, Site
from bua_jax.methods.zero_shot import READS, untuned
from bua_jax.methods.zero_shot_api import CATALOGUE, keep_catalogue, kept_catalogue

if TYPE_CHECKING:
    from bua_jax.decoding.dialogue import Decoder
    from bua_jax.decoding.forms import Form
    from bua_jax.interop.openai import Chat

NAME, API = "d2a", "d2a_api"
PLANS = 3  # of a step
_SEES = ("weekday", "slot", "place", "behaviour")
STEPS = (60, 120, 180, 240, 360, 480, 720)
"""Minutes of a step: whole parts of a day, and whole hours, which every clock has."""


class Question(NamedTuple):
    """What is asked of whom; answers are drawn from its stream."""

    text: str
    stream: int  # 31 bits
    places: Sequence[int]  # that may be named


class Voice(Protocol):
    """Whoever is asked: `kind` is degrees, levels or plan, the form of the JSON that comes back."""

    def say(self, kind: str, asked: Sequence[Question]) -> list[str]:
        """An answer to each question."""
        ...


@dataclass(frozen=True)
class Base:
    """A base under grammars."""

    decoder: "Decoder"
    minutes: int
    temperature: float
    seed: int

    @cached_property
    def forms(self) -> Mapping[str, "Form"]:
        """The grammar of each kind of answer."""
        from bua_jax.decoding.forms import Form, choices, plans

        words = [json.dumps(degree) for degree in DEGREES]
        starts = range(0, self.minutes, 1440 // self.decoder.catalogue.slots_per_day)
        plan = plans(self.decoder.catalogue, starts)
        return {
            "degrees": Form(self.decoder, choices(dict.fromkeys(DESIRES, words)), "key 0"),
            "levels": Form(self.decoder, choices(dict.fromkeys(DESIRES, LEVELS)), "key 0"),
            "plan": Form(self.decoder, plan, "first"),
        }

    def say(self, kind: str, asked: Sequence[Question]) -> list[str]:
        texts, streams, places = zip(*asked, strict=True)
        write = self.forms[kind].write
        return write(texts, streams, places, temperature=self.temperature, seed=self.seed)


@dataclass(frozen=True)
class Host:
    """A host; an answer that is in no form of JSON is asked for once more, and then is none."""

    chat: "Chat"

    def say(self, kind: str, asked: Sequence[Question]) -> list[str]:
        said = ask_twice(self.chat, [one.text for one in asked], shape_of(kind), Counter())
        return [
            "" if one.value is None else one.value.model_dump_json(by_alias=True) for one in said
        ]


def shape_of(kind: str) -> Any:
    """The form of an answer, for a host; names and ranges are read by `dialogue.d2a`, piece by piece."""
    from pydantic import Field, create_model

    if kind == "plan":
        event = create_model("Event", minute=(int, ...), place=(str, ""), activity=(str, ...))
        return create_model("Plan", plan=(list[event], ...))  # type: ignore[valid-type]
    value = int if kind == "levels" else str
    fields: dict[str, Any] = {
        name.replace(" ", "_"): (value, Field(alias=name)) for name in DESIRES
    }
    return create_model("Needs", **fields)


class _Person:
    """A case and where its day stands."""

    def __init__(self, cases: Cases, row: int, seed: int) -> None:
        case = cases[row]
        assert case.weekday is not None
        self.name, self.history, self.weekday = case.sample_id, case.history, case.weekday
        self.places = sorted({*case.history.place.tolist()})
        self.rng = np.random.default_rng([seed, crc32(self.name.encode())])
        self.levels = self.rng.integers(0, desires.MOST + 1, len(DESIRES))
        self.drifts = self.wanted = np.zeros(len(DESIRES))
        self.today: list[desires.Event] = []
        self.invalid, self.written = 0, list[str]()

    def question(self, text: str, *about: Any) -> Question:
        """With a stream of its own: of the person's name and what it is about."""
        stream = crc32("|".join(map(str, (self.name, *about))).encode()) >> 1
        return Question(text, stream, self.places)


@dataclass(frozen=True)
class D2A:
    """Days of people whose desires a model rates."""

    voice: Voice
    catalogue: Catalogue
    minutes: int  # of a step
    seed: int
    facts: Mapping[str, Any]
    rows: int = 16

    def generate(self, cases: Cases) -> Generation:
        """What was written in the end of every step beside each day, and pieces that could not be read."""
        people = [_Person(cases, row, self.seed) for row in range(len(cases))]
        asked = [
            one.question(desires.degrees_question(self.catalogue, one.history)) for one in people
        ]
        for one, text in zip(people, self._said("degrees", asked), strict=True):
            one.drifts, invalid = desires.read_degrees(text)
            one.wanted, one.invalid = desires.targets(one.drifts), one.invalid + invalid
        for start in range(0, 1440, self.minutes):
            self._step(people, start * self.catalogue.slots_per_day // 1440)
        pieces = sum(one.invalid for one in people)
        notice(f"d2a: {pieces} pieces of what was written about {len(people)} days were not valid")
        return Generation(
            [_day(one) for one in people],
            ["\n".join(one.written) for one in people],
            [one.invalid for one in people],
        )

    def _said(self, kind: str, asked: Sequence[Question]) -> list[str]:
        return self.voice.say(kind, asked) if asked else []

    def _step(self, people: Sequence[_Person], slot: int) -> None:
        """Everybody's desires drift, and everybody does the plan after which least is lacking."""
        catalogue, moments = self.catalogue, list[Moment]()
        for one in people:
            one.levels = desires.drifted(one.levels, one.drifts, self.minutes, one.rng)
            moments.append(Moment(one.weekday, slot, self.minutes, one.levels, tuple(one.today)))
        every = [
            (one, now, number)
            for one, now in zip(people, moments, strict=True)
            for number in range(PLANS)
        ]
        asked = [
            one.question(
                desires.plan_question(catalogue, one.history, now, number + 1), slot, number
            )
            for one, now, number in every
        ]
        texts = self._said("plan", asked)
        plans = [
            desires.read_plan(text, catalogue, slot, self.minutes, one.places)
            for (one, _, _), text in zip(every, texts, strict=True)
        ]
        asked = [
            one.question(desires.rating_question(catalogue, now, plan), slot, number, "after")
            for (one, now, number), (plan, _) in zip(every, plans, strict=True)
        ]
        rated = [
            desires.read_levels(text, now.levels)
            for (_, now, _), text in zip(every, self._said("levels", asked), strict=True)
        ]
        for row, one in enumerate(people):
            own = range(row * PLANS, (row + 1) * PLANS)
            one.invalid += sum(plans[i][1] + rated[i][1] for i in own)
            best = min(own, key=lambda i: desires.lacking(rated[i][0], one.wanted))
            one.today += plans[best][0]
            one.levels = rated[best][0]
            one.written.append(texts[best])


def _day(one: _Person) -> Day:
    slots, places, behaviours = zip(*one.today, strict=True) if one.today else ((), (), ())
    return Day(one.weekday, slots, places, behaviours)


# -------------------------------------------------------------------------------- rows of the table


def _load(site: Site) -> D2A:
    bua, page, seed = untuned(site), site.config.methods.d2a, site.config.seed
    voice = Base(bua.decoder, page.step_minutes, page.temperature, seed)
    facts = {"training_windows": 0, "step_minutes": page.step_minutes}
    return D2A(voice, bua.catalogue, page.step_minutes, seed, facts)


def _load_api(site: Site) -> D2A:
    had = site.inputs[f"fit/{API}"].settings
    page = had.methods.d2a_api
    voice = Host(chat_of(page, site.config.execution, f"methods.{API}"))
    host = {"url": voice.chat.host.url, "model": voice.chat.host.model}
    facts = {"training_windows": 0, "step_minutes": page.step_minutes, "asked": host}
    return D2A(voice, kept_catalogue(site), page.step_minutes, had.seed, facts)


def _check_api(config: Settings) -> None:
    check_page(config.methods.d2a_api, config.execution, f"methods.{API}")


METHODS = (
    Method(
        NAME,
        About("D2A", "Wang et al. (2024), desires that the base rates", _SEES, "nothing"),
        load=_load,
        says=("generate",),
        needs=lambda config: ("encoder",),
        reads=READS,
        legal={"step_minutes": OneOf(STEPS), "temperature": Real(0, 10)},
    ),
    Method(
        API,
        About(
            "D2A, by API",
            "Wang et al. (2024), desires that a host rates",
            _SEES,
            "nothing",
            sends_logs=True,
        ),
        load=_load_api,
        says=("generate",),
        fit=keep_catalogue,
        files=(CATALOGUE,),
        check=_check_api,
        legal={**LEGAL, "step_minutes": OneOf(STEPS)},
    ),
)
