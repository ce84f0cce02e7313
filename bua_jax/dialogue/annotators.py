"""Rule-based reference answers: what a careful reader of the window would write.

Every function sees a `Window` (the history, what its ids mean, and how common each behaviour is among
training users) and nothing else, so no answer can know the target. The one exception, the future
scene, is given the true next two hours by its caller. Wording varies with the sample id, facts do not.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bua_jax.dialogue.text import SHORT_DAYS, event_text, history_text, place_name
from bua_jax.events.schema import WEEKDAYS, Catalogue, History

SCENE_HOURS = 2
VERSION = "rules-1"


@dataclass(frozen=True)
class Window:
    """A history with what is needed to speak about it. `shares`: float64[C] over training users."""

    history: History
    catalogue: Catalogue
    shares: np.ndarray
    sample_id: str

    def label(self, behaviour: int) -> str:
        return self.catalogue.behaviours[behaviour]

    def choose(self, kind: str, options: Sequence[str]) -> str:
        """One of `options`, fixed by the sample and the kind."""
        digest = hashlib.sha256(f"{self.sample_id}|{kind}".encode()).digest()
        return options[digest[0] % len(options)]

    def hours(self) -> np.ndarray:
        """Hour of the day of each event, int[L]."""
        return self.history.slot * 24 // self.catalogue.slots_per_day

    def clock(self, slot: float) -> str:
        return self.catalogue.clock(int(slot))


def part_of_day(hour: int) -> str:
    """A word for the hour."""
    names = ((5, "night"), (9, "morning"), (12, "late morning"), (14, "early afternoon"), (18, "afternoon"))
    return next((name for end, name in names if hour < end), "evening" if hour < 22 else "night")


def typical_clock(window: Window, behaviour: int) -> str:
    """Median time of a behaviour's events in the window."""
    slots = window.history.slot[window.history.behaviour == behaviour]
    return window.clock(np.sort(slots)[(len(slots) - 1) // 2])


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def reconstruction(window: Window) -> str:
    """The history, spelled out."""
    return history_text(window.catalogue, window.history)


def past_scene(window: Window) -> np.ndarray:
    """Indices of the last two hours' events (the last event included); a gap ends the look back."""
    h, slots = window.history, window.catalogue.slots_per_day
    moment = h.day.astype(np.int64) * slots + h.slot
    inside = moment >= moment[-1] - SCENE_HOURS * slots // 24
    gaps = np.flatnonzero(h.gap)
    if len(gaps):
        inside &= np.arange(len(h)) >= gaps[-1]
    return np.flatnonzero(inside)


def scene_text(window: Window, rows: Sequence[tuple[int, int, int]]) -> str:
    """Events (slot, place, behaviour) of a scene, at most the last five."""
    return ", then ".join(event_text(window.catalogue, *row) for row in rows[-5:])


def current_scene(window: Window) -> str:
    h, rows = window.history, past_scene(window)
    events = [(int(h.slot[i]), int(h.place[i]), int(h.behaviour[i])) for i in rows]
    day = WEEKDAYS[h.weekday[-1]]
    scene = f"{day} {part_of_day(int(window.hours()[-1]))}"
    start = window.choose("current_scene", ("It is {}", "This is {}", "The scene is {}")).format(
        scene
    )
    where = f" at {place_name(int(h.place[-1]))}" if window.catalogue.has_places else ""
    return f"{start}{where}. Past two hours: {scene_text(window, events)}."


def future_scene(window: Window, following: Sequence[tuple[int, int, int]]) -> str:
    """The true next two hours: (slot, place, behaviour) of each event, places ranked by the history."""
    if not following:
        return window.choose(
            "future_scene",
            ("Nothing is recorded in the next two hours.", "No event in the next two hours."),
        )
    hour = following[-1][0] * 24 // window.catalogue.slots_per_day
    body = ", then ".join(event_text(window.catalogue, *row) for row in following[:5])
    return f"Next two hours, {part_of_day(hour)}: {body}."


def home_work(window: Window) -> str:
    """Home: the place most visited from 21:00 to 7:00; work: on weekdays from 9:00 to 18:00, elsewhere."""
    h, hours = window.history, window.hours()
    night = (hours < 7) | (hours >= 21)
    home, at_home = _most(h.place[night & (h.place > 0)])
    parts = []
    if home:
        parts.append(f"Home is L{home}: {at_home} of {int(night.sum())} night events.")
    else:
        home, at_home = _most(h.place[h.place > 0])
        seen = f"; L{home} is visited most, {at_home} times" if home else ""
        parts.append(f"No night event shows a home{seen}.")
    office = (hours >= 9) & (hours < 18) & (h.weekday < 5) & (h.place > 0) & (h.place != home)
    work, at_work = _most(h.place[office])
    if at_work >= 2:
        parts.append(f"Work is L{work}: {at_work} events in weekday working hours.")
    else:
        parts.append("No separate work place is seen.")
    return " ".join(parts)


def _most(values: np.ndarray) -> tuple[int, int]:
    """(most frequent value, its count); ties go to the smaller value; (0, 0) if there is none."""
    counts = np.bincount(values) if len(values) else np.zeros(1, int)
    return int(counts.argmax()), int(counts.max())


def lifts(window: Window) -> np.ndarray:
    """How much more frequent each behaviour is here than among training users, float64[C]."""
    counts = np.bincount(window.history.behaviour, minlength=len(window.catalogue.behaviours))
    expected = window.shares * len(window.history)
    return np.where(counts > 0, (counts + 0.5) / (expected + 0.5), 0.0)


def distinctive(window: Window, limit: int) -> list[int]:
    """Behaviours seen at least twice and clearly more often than usual, strongest first."""
    counts = np.bincount(window.history.behaviour, minlength=len(window.catalogue.behaviours))
    lift = lifts(window)
    found = [b for b in np.argsort(-lift, kind="stable") if counts[b] >= 2 and lift[b] >= 1.3]
    return [int(b) for b in found[:limit]]


def hobbies(window: Window) -> str:
    found = distinctive(window, 3)
    counts = Counter(window.history.behaviour.tolist())
    if not found:
        top = counts.most_common(1)[0]
        return f"No hobby stands out; most frequent is {window.label(top[0])} ({top[1]} times)."
    parts = [
        f"{window.label(b)} ({counts[b]} times, around {typical_clock(window, b)})" for b in found
    ]
    opening = window.choose("hobbies", ("Likes", "Is fond of", "Often chooses"))
    return f"{opening} {listed(parts)}."


def key_behaviours(window: Window) -> str:
    """Frequent behaviours with their times, what opens the days, and the transition just made."""
    h = window.history
    counts = Counter(h.behaviour.tolist())
    top = sorted(counts, key=lambda b: (-counts[b], b))[:3]
    frequent = listed(
        [f"{window.label(b)} {counts[b]} times around {typical_clock(window, b)}" for b in top]
    )
    first = np.flatnonzero(np.diff(h.day, prepend=h.day[0] - 1) != 0)
    opener, opened = _most(h.behaviour[first])
    opening = window.choose("key", ("Frequent", "Most frequent", "Key"))
    parts = [f"{opening}: {frequent}."]
    if opened >= 2:
        parts.append(f"Days open with {window.label(opener)} ({opened} of {len(first)}).")
    now = f"{SHORT_DAYS[h.weekday[-1]]} {window.clock(h.slot[-1])}"
    if len(h) > 1 and not h.gap[-1]:
        parts.append(
            f"Now {now}: {window.label(h.behaviour[-2])}, then {window.label(h.behaviour[-1])}."
        )
    else:
        parts.append(f"Now {now}: {window.label(h.behaviour[-1])}.")
    return " ".join(parts)


def recurring_pairs(window: Window) -> list[tuple[tuple[int, int], int]]:
    """Consecutive pairs within a day that occur at least twice: ((a, b), count), most frequent first."""
    h = window.history
    same_day = (h.day[1:] == h.day[:-1]) & ~h.gap[1:]
    pairs = zip(
        h.behaviour[:-1][same_day].tolist(), h.behaviour[1:][same_day].tolist(), strict=True
    )
    counts = Counter(pairs)
    return sorted(
        ((p, n) for p, n in counts.items() if n >= 2), key=lambda item: (-item[1], item[0])
    )


def successors(window: Window) -> list[tuple[int, int]]:
    """What followed earlier events of the last behaviour: (behaviour, count), most frequent first."""
    h = window.history
    before = np.flatnonzero((h.behaviour[:-1] == h.behaviour[-1]) & ~h.gap[1:])
    counts = Counter(h.behaviour[before + 1].tolist())
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def same_hours(window: Window) -> list[tuple[int, int]]:
    """What earlier days held within two hours after the last event's time of day."""
    h = window.history
    width = SCENE_HOURS * window.catalogue.slots_per_day // 24
    near = (h.day < 0) & (h.slot >= h.slot[-1]) & (h.slot <= h.slot[-1] + width)
    counts = Counter(h.behaviour[near].tolist())
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def patterns(window: Window) -> str:
    """Recurring pairs, what follows the last behaviour, and what this time of day holds."""
    pairs = recurring_pairs(window)[:2]
    texts = [f"{window.label(a)} then {window.label(b)} ({n} times)" for (a, b), n in pairs]
    opening = window.choose("patterns", ("Recurring", "Repeated", "Patterns"))
    parts = [f"{opening}: {listed(texts)}." if texts else "No pair of behaviours recurs."]
    last, following = window.label(window.history.behaviour[-1]), successors(window)[:2]
    if following:
        texts = [f"{window.label(b)} ({n})" for b, n in following]
        parts.append(f"After {last}: {listed(texts)}.")
    later = same_hours(window)[:2]
    if later:
        texts = [f"{window.label(b)} ({n})" for b, n in later]
        parts.append(
            f"Around {window.clock(window.history.slot[-1])} on other days: {listed(texts)}."
        )
    return " ".join(parts)


def rhythm(window: Window) -> str:
    """A word for when this person is active: from the median first event of the window's days."""
    h = window.history
    first = np.flatnonzero(np.diff(h.day, prepend=h.day[0] - 1) != 0)
    hour = float(np.median(window.hours()[first]))
    return "an early riser" if hour < 8 else "a late starter" if hour >= 11 else "a morning starter"


def regularity(window: Window) -> str:
    """Routine-driven where few behaviours make up half of the window, varied where many do."""
    counts = np.sort(np.bincount(window.history.behaviour))[::-1]
    needed = int(np.searchsorted(np.cumsum(counts), len(window.history) / 2)) + 1
    return "routine-driven" if needed <= 3 else "balanced" if needed <= 5 else "varied"


def summary(window: Window) -> str:
    """Traits, then habits, then anchors (the structure that Appendix O asks for), briefly."""
    counts = Counter(window.history.behaviour.tolist())
    found = distinctive(window, 2) or [counts.most_common(1)[0][0]]
    habits = listed([f"{window.label(b)} in the {_when(window, b)}" for b in found])
    anchors = [
        f"{window.label(b)} {counts[b]} times around {typical_clock(window, b)}" for b in found[:1]
    ]
    subject = window.choose("summary", ("Trait", "Traits", "Person"))
    text = (
        f"{subject}: {rhythm(window)}, {regularity(window)}. Habits: {habits}. Anchor: {anchors[0]}"
    )
    place, visits = _most(window.history.place[window.history.place > 0])
    if window.catalogue.has_places and place:
        text += f", L{place} {visits} times"
    return f"{text}."


def _when(window: Window, behaviour: int) -> str:
    hours = window.hours()[window.history.behaviour == behaviour]
    return part_of_day(int(np.sort(hours)[(len(hours) - 1) // 2]))


def refined_summary(window: Window) -> str:
    """The summary under Appendix O's criteria: abstraction, calibrated times, hierarchy, personal."""
    h = window.history
    counts = Counter(h.behaviour.tolist())
    found = distinctive(window, 3) or [counts.most_common(1)[0][0]]
    days = len(np.unique(h.day))
    weekend = int((h.weekday >= 5).sum())
    trait = f"Trait: {rhythm(window)} with a {regularity(window)} life, drawn to {window.label(found[0])}."
    habits = [
        f"{window.label(b)} in the {_when(window, b)} ({counts[b]} of {len(h)} events)"
        for b in found
    ]
    pairs = recurring_pairs(window)[:1]
    linked = "".join(f", {window.label(a)} leading to {window.label(b)}" for (a, b), _ in pairs)
    anchor = f"{window.label(found[0])} around {typical_clock(window, found[0])}"
    share = f"{weekend} of {len(h)} events on weekends, {days} days seen"
    return f"{trait} Habits: {listed(habits)}{linked}. Anchors: {anchor}; {share}."


ANNOTATORS = {
    "reconstruction": reconstruction,
    "current_scene": current_scene,
    "home_work": home_work,
    "hobbies": hobbies,
    "key_behaviours": key_behaviours,
    "patterns": patterns,
    "summary": summary,
    "refinement": refined_summary,
}
"""Annotators that see the window alone, by round kind."""
