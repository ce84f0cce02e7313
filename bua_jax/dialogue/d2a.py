"""D2A (Wang et al., 2024): a person whose desires drift, and what a language model is asked about them.

Eleven desires stand at 0 to 10. Some grow worse as they rise (hunger), the others as they fall. A model
says how fast each drifts in this person, offers plans for the next minutes, and says how the desires stand
after each; the plan after which least is lacking is what the person does. Nothing here knows the day that
came.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bua_jax.dialogue.text import history_text, parse_label, place_text
from bua_jax.events.schema import NUM_PLACES, WEEKDAYS, Catalogue, History

RISING = ("hunger", "thirst", "sleepiness")
"""Desires that are worse the higher they stand."""
DESIRES = (
    *("hunger", "thirst", "comfort", "health", "sleepiness", "joyfulness", "cleanliness", "safety"),
    *("passion", "spiritual satisfaction", "social connectivity"),
)
DEGREES = {"extremely": 2.0, "quite": 1.5, "moderately": 1.0, "slightly": 0.5}
"""How fast a desire drifts in a person: points per hour."""
MOST = 10
LEVELS = tuple(map(str, range(MOST + 1)))
_FIXED = {"sleepiness": 3.0, "passion": 8.0}  # targets that no trait moves
_MOVES = 3  # of a desire in an hour, each of one point
_SHOWN = 8  # events of the day so far
_STATES = ("not at all", "hardly", "a little", "clearly", "strongly", "as much as can be")
Event = tuple[int, int, int]  # slot, place, behaviour


def targets(drifts: np.ndarray) -> np.ndarray:
    """float[11]: where this person's desires ought to stand; drifts float[11], points per hour."""
    found = [
        _FIXED.get(name, _MOVES - drift if name in RISING else MOST - (_MOVES - drift))
        for name, drift in zip(DESIRES, drifts.tolist(), strict=True)
    ]
    return np.asarray(found)


def drifted(
    levels: np.ndarray, drifts: np.ndarray, minutes: int, rng: np.random.Generator
) -> np.ndarray:
    """int[11] after some minutes: in every 20 each is a point worse with probability drift / 3."""
    moves = rng.binomial(minutes * _MOVES // 60, np.minimum(drifts / _MOVES, 1))
    signs = np.asarray([1 if name in RISING else -1 for name in DESIRES])
    return np.clip(levels + signs * moves, 0, MOST)


def lacking(levels: np.ndarray, wanted: np.ndarray) -> float:
    """How far desires are from their targets on the worse side, in all."""
    signs = np.asarray([1 if name in RISING else -1 for name in DESIRES])
    return float(np.maximum(0, signs * (levels - wanted)).sum())


# ------------------------------------------------------------------------------------------ asking


class Moment(NamedTuple):
    """Where a person's day stands."""

    weekday: int
    slot: int
    minutes: int  # that are planned
    levels: np.ndarray  # int[11], of the desires
    today: Sequence[Event]  # so far


def degrees_question(catalogue: Catalogue, history: History) -> str:
    """Asks how fast each desire drifts in a person, from the history alone."""
    return (
        f"{_seen(catalogue, history)} How fast does each of these needs come back in this person: "
        f"{', '.join(DESIRES)}? Say of each {' or '.join(DEGREES)}."
    )


def plan_question(catalogue: Catalogue, history: History, now: Moment, number: int) -> str:
    """Asks for one of several plans."""
    labels = json.dumps(list(catalogue.behaviours), ensure_ascii=False)
    where = "its place, one of those above, " if catalogue.has_places else ""
    return (
        f"{_seen(catalogue, history)} {_now(catalogue, now)} What may the person do in the next "
        f"{now.minutes} minutes? Give plan {number} of several that differ, for what is lacking most: for "
        f"each event its minute from now, {where}and its activity, one of {labels}. No event is a plan too."
    )


def rating_question(catalogue: Catalogue, now: Moment, plan: Sequence[Event]) -> str:
    """Asks how the desires stand after a plan."""
    done = ", ".join(catalogue.behaviours[event[2]] for event in plan) or "nothing in particular"
    return (
        f"{_now(catalogue, now)} In the next {now.minutes} minutes the person does: {done}. How does each "
        f"need stand then, from 0 to {MOST}? {', '.join(RISING).capitalize()} are bad when high, the others "
        "when low."
    )


def _seen(catalogue: Catalogue, history: History) -> str:
    return f"{history_text(catalogue, history)}\nAbove are events of one person, oldest first."


def _now(catalogue: Catalogue, now: Moment) -> str:
    stands = ", ".join(
        f"{name} {level} ({_STATES[level // 2]})"
        for name, level in zip(DESIRES, now.levels.tolist(), strict=True)
    )
    last = ", ".join(
        f"{catalogue.clock(slot)} {catalogue.behaviours[behaviour]}"
        for slot, _, behaviour in now.today[-_SHOWN:]
    )
    when = f"{WEEKDAYS[now.weekday][:3]} {catalogue.clock(now.slot)}"
    return f"It is {when}; today so far: {last or 'nothing'}. The needs of the person: {stands}."


# ----------------------------------------------------------------------------------------- reading


def read_object(text: str) -> Mapping[str, Any] | None:
    """The JSON object of a text; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_degrees(text: str) -> tuple[np.ndarray, int]:
    """(drifts float[11], what could not be read); what is not said is moderate."""
    said = read_object(text) or {}
    found = [DEGREES.get(str(said.get(name))) for name in DESIRES]
    drifts = [DEGREES["moderately"] if drift is None else drift for drift in found]
    return np.asarray(drifts), sum(drift is None for drift in found)


def read_levels(text: str, before: np.ndarray) -> tuple[np.ndarray, int]:
    """(levels int[11], what could not be read); what is not said stays as it was."""
    said, levels, invalid = read_object(text) or {}, before.copy(), 0
    for number, name in enumerate(DESIRES):
        value = said.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
            levels[number] = value
        else:
            invalid += 1
    return levels, invalid


def read_plan(
    text: str, catalogue: Catalogue, slot: int, minutes: int, places: Sequence[int]
) -> tuple[list[Event], int]:
    """(events from `slot` on, what could not be read).

    An event is left out, and counted, whose minute is none of these or before the last one's, whose place
    is none of `places`, or whose activity is no label (`parse_label`: never a part of a text).
    """
    said = (read_object(text) or {}).get("plan")
    if not isinstance(said, list):
        return [], 1
    named = {place_text(place): place for place in range(NUM_PLACES + 1)}
    found: list[Event] = []
    for one in said:
        one = one if isinstance(one, dict) else {}
        minute: Any = one.get("minute")
        place = 1
        label = parse_label(str(one.get("activity", "")), catalogue)
        good = isinstance(minute, int) and not isinstance(minute, bool) and 0 <= minute < minutes
        if catalogue.has_places:
            place = named.get(str(one.get("place")), -1)
        at = slot + minute * catalogue.slots_per_day // 1440 if good else -1
        if label < 0 or at < 0 or (found and at < found[-1][0]) or place not in places:
            continue
        found.append((at, place, label))
    return found, len(said) - len(found)
