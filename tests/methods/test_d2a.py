"""D2A: how desires drift and answers are read, which plan is done; nobody is told the day that came."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bua_jax.basics import config as configs
from bua_jax.dialogue import d2a as desires
from bua_jax.dialogue.d2a import DEGREES, DESIRES, read_degrees, read_levels, read_plan
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import WindowIndex, generation_windows
from bua_jax.methods.d2a import D2A, METHODS, PLANS, Question
from bua_jax.methods.protocol import Built, Cases, Data, Site, cases_of
from tests.methods.sites import config_of, site_of
from tests.support.api import Do, serving

STORE = simulated_store(12, 8, 3)
WINDOWS = generation_windows(STORE, "test", history_length=20, min_history=10)
LABELS = STORE.catalogue.behaviours
HUNGER, COMFORT = DESIRES.index("hunger"), DESIRES.index("comfort")


def cases(store: EventStore = STORE, windows: WindowIndex = WINDOWS) -> Cases:
    return cases_of(store, windows, 20, told="weekday")


# -------------------------------------------------------------------------------------- desires


def test_desires_drift_for_the_worse_as_fast_as_the_degree_says() -> None:
    """Within 5 standard errors of the mean: an hour is three moves with probability drift / 3."""
    rng, count = np.random.default_rng(0), 4000
    levels = np.full(len(DESIRES), 5)
    drifts = np.full(len(DESIRES), DEGREES["quite"])
    moved = np.stack([desires.drifted(levels, drifts, 60, rng) for _ in range(count)]) - 5
    error = 5 * np.sqrt(3 * 0.5 * 0.5 / count)
    for name, column in zip(DESIRES, moved.T, strict=True):
        sign = 1 if name in ("hunger", "thirst", "sleepiness") else -1
        assert abs(sign * column.mean() - 1.5) < error
    assert (np.abs(moved).max(), moved.min(), moved.max()) == (3, -3, 3)
    assert desires.drifted(levels, drifts, 720, rng)[HUNGER] == 10


def test_targets_and_what_is_lacking() -> None:
    wanted = desires.targets(np.full(len(DESIRES), 2.0))
    assert dict(zip(DESIRES, wanted, strict=True)) == {
        **dict.fromkeys(DESIRES, 9.0),
        **{"hunger": 1.0, "thirst": 1.0, "sleepiness": 3.0, "passion": 8.0},
    }
    levels = wanted.copy()
    assert desires.lacking(levels, wanted) == 0
    levels[HUNGER], levels[COMFORT] = 4, 7
    assert desires.lacking(levels, wanted) == 3 + 2
    levels[HUNGER], levels[COMFORT] = 0, 10  # better than wanted makes up for nothing
    assert desires.lacking(levels, wanted) == 0


@pytest.mark.parametrize(
    ("text", "events", "invalid"),
    [
        ('{"plan": []}', [], 0),
        ('{"plan": [{"minute": 30, "place": "L2", "activity": "Pay "}]}', [(15, 2, "pay")], 0),
        ('{"plan": [{"minute": 0, "place": "L2", "activity": "pay by card"}]}', [], 1),
        ('{"plan": [{"minute": 60, "place": "L2", "activity": "pay"}]}', [], 1),
        ('{"plan": [{"minute": "0", "place": "L2", "activity": "pay"}]}', [], 1),
        ('{"plan": [{"minute": 0, "place": "L3", "activity": "pay"}, 7]}', [], 2),
        (
            '{"plan": [{"minute": 30, "place": "L1", "activity": "pay"}, {"minute": 29, "place": "L1", '
            '"activity": "cook"}]}',
            [(15, 1, "pay")],
            1,
        ),
        ("I would cook.", [], 1),
        ("[]", [], 1),
        ('{"plan": "pay"}', [], 1),
    ],
)
def test_how_plans_are_read(text: str, events: list[tuple], invalid: int) -> None:
    found = read_plan(text, STORE.catalogue, 14, 60, [1, 2])
    assert found == ([(slot, place, LABELS.index(label)) for slot, place, label in events], invalid)


def test_how_ratings_and_degrees_are_read() -> None:
    before = np.arange(len(DESIRES)) % 5
    levels, invalid = read_levels('{"hunger": 10, "thirst": 11, "comfort": true}', before)
    assert (levels[HUNGER], invalid) == (10, len(DESIRES) - 1)
    assert levels[1:].tolist() == before[1:].tolist()
    drifts, invalid = read_degrees('{"hunger": "extremely", "comfort": "very"}')
    assert (drifts[HUNGER], drifts[COMFORT], invalid) == (2.0, 1.0, len(DESIRES) - 1)
    assert read_levels("none", before)[1] == read_degrees("")[1] == len(DESIRES)


# ------------------------------------------------------------------------------------------ a day


@dataclass(frozen=True)
class Fake:
    """Offers to read news, to cook and to pay; all is well after cooking alone."""

    asked: list[Question] = field(default_factory=list)
    offers: Sequence[str] = ("read news", "cook", "pay")

    def say(self, kind: str, asked: Sequence[Question]) -> list[str]:
        self.asked.extend(asked)
        if kind == "degrees":
            return [json.dumps(dict.fromkeys(DESIRES, "quite")) for _ in asked]
        if kind == "plan":
            return [self._plan(one, number % PLANS) for number, one in enumerate(asked)]
        return [json.dumps(self._levels("person does: cook" in one.text)) for one in asked]

    def _plan(self, one: Question, number: int) -> str:
        place = "L1" if 1 in one.places else "other"
        event = {"minute": 30, "place": place, "activity": self.offers[number]}
        return json.dumps({"plan": [event]})

    def _levels(self, well: bool) -> dict[str, int]:
        return {n: (0 if n in desires.RISING else 10) if well else 5 for n in DESIRES}


def test_the_plan_after_which_least_is_lacking_is_done() -> None:
    voice = Fake()
    said = D2A(voice, STORE.catalogue, 240, 1, {}).generate(cases()[:2])
    for day, case in zip(said.days, cases()[:2], strict=True):
        assert day.behaviour == (LABELS.index("cook"),) * 6
        assert day.slot == tuple(range(1, 48, 8))
        assert day.weekday == case.weekday
    assert said.invalid == [0, 0]
    assert said.written is not None
    assert said.written[0].count('"cook"') == 6
    assert len(voice.asked) == 2 * (1 + 6 * 2 * PLANS)
    assert len({one.stream for one in voice.asked}) == len(voice.asked)
    last = [one.text for one in voice.asked if "04:30 cook" in one.text]
    assert any("today so far: 00:30 cook, 04:30 cook." in text for text in last)


def test_nobody_is_told_the_day_that_came() -> None:
    """Every question is the same, byte for byte, where that day and all after it are other ones."""
    row = len(WINDOWS) // 2
    one = WINDOWS.take(np.asarray([row]))
    end, last = int(one.end[0]), int(STORE.offsets[one.user[0] + 1])
    after = slice(end, last)
    behaviour, slot, location = (x.copy() for x in (STORE.behaviour, STORE.slot, STORE.location))
    behaviour[after] = (behaviour[after] + 1) % len(LABELS)
    slot[after], location[after] = 47, location[after][::-1]
    other = dataclasses.replace(STORE, behaviour=behaviour, slot=slot, location=location)
    assert (behaviour[after] != STORE.behaviour[after]).all()
    asked = []
    for store in (STORE, other):
        voice, few = Fake(), cases(store, one)
        few = dataclasses.replace(few, sample_id=("one",))  # a name is a hash of all events
        D2A(voice, STORE.catalogue, 480, 1, {}).generate(few)
        asked.append(voice.asked)
    assert asked[0] == asked[1]
    assert LABELS[int(STORE.behaviour[end - 1])] in asked[0][0].text


# ------------------------------------------------------------------------------- a base, and a host


def test_a_base_writes_what_can_be_read_whatever_else_is_asked(tmp_path: Path) -> None:
    """Its plans are of the places that may be named; another order of questions changes no answer."""
    config = config_of()
    config.methods.d2a.step_minutes = 60
    voice = METHODS[0].load(site_of(tmp_path, STORE, config)).voice
    asked = [Question(f"Plan {i}.", 7 * i, [1, 3]) for i in range(3)]
    for kind in ("degrees", "levels", "plan"):
        said = voice.say(kind, asked)
        assert voice.say(kind, asked[::-1]) == said[::-1]
        assert len({*said}) == 3 or kind == "plan"  # this base's are mostly empty
        for text in said:
            if kind == "plan":
                events, invalid = read_plan(text, STORE.catalogue, 0, 60, [1, 3])
                assert len(events) <= 3
                assert {event[0] for event in events} <= {0, 1}
            elif kind == "levels":
                invalid = read_levels(text, np.zeros(len(DESIRES), int))[1]
            else:
                invalid = read_degrees(text)[1]
            assert invalid == 0


def test_a_host_is_asked_once_more_for_what_is_no_json(tmp_path: Path) -> None:
    """Then it counts as invalid, nothing of it is done, and what could be read is."""
    place = "L1"

    def answer(question: str) -> str:
        if "Say of each" in question:
            return "They vary."
        if "In the next " in question:
            return json.dumps(dict.fromkeys(DESIRES, 5))
        if "plan 1 of" in question and "could not be read" not in question:
            return "Cook!"
        return json.dumps({"plan": [{"minute": 0, "place": place, "activity": "cook"}]})

    config: Any = configs.load("configs/base.py").copy_and_resolve_references()
    config.execution.update(api_consent="127.0.0.1", api_cache=str(tmp_path / "c"))
    config.execution.api_limits.requests_per_minute = 60_000
    method = METHODS[1]
    assert method.fit is not None
    assert method.about.sends_logs
    with serving(lambda body, before: Do(), answer) as api:
        page = {"url": api.url, "key_variable": "", "json_mode": "prompt", "step_minutes": 720}
        config.methods.d2a_api.update(page)
        method.check(config)
        site = Site(config, tmp_path, {})
        facts = method.fit(site, Data(STORE, pytest.fail))
        built = {"fit/d2a_api": Built(tmp_path, config, facts)}
        one = next(case for case in range(len(cases())) if 1 in cases()[case].history.place)
        said = method.load(Site(config, tmp_path, built)).generate(cases().take(np.asarray([one])))
    assert said.invalid == [len(DESIRES)]  # the degrees; plan 1 was repaired
    assert said.days[0].behaviour == (LABELS.index("cook"),) * 2
    assert said.days[0].slot == (0, 24)
    # degrees twice, and in both steps plan 1 twice, plans 2 and 3; outcomes are all one question
    assert len(api.calls) == 2 + 2 * (4 + 1)
