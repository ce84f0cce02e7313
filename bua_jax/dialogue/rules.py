"""Rule-based reference answers: what a careful reader of the window would write (Appendix B).

Every function sees a `Window` alone, so no answer can know the target. The one exception, the
future scene, is given the true next two hours by its caller. Wording varies with the sample id,
facts do not.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from bua_jax.dialogue import facts
from bua_jax.dialogue.facts import Window, part_of_day, when
from bua_jax.dialogue.text import event_text, history_text, place_text
from bua_jax.dialogue.traits import kind_of
from bua_jax.events.schema import WEEKDAYS

VERSION = "rules-2"
NOTHING = ("Nothing is recorded in the next two hours.", "No event in the next two hours.")
_SHOWN = 5  # events of a scene that are spelled out


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def reconstruction(window: Window) -> str:
    """The history, spelled out."""
    return history_text(window.catalogue, window.history)


def _scene(window: Window, rows: Sequence[tuple[int, int, int]]) -> str:
    return ", then ".join(event_text(window.catalogue, *row) for row in rows)


def _phase(window: Window, behaviours: Sequence[int], hour: int, weekday: int) -> str:
    """`evening`; a commute if it holds travel on a working day's morning or late afternoon."""
    travels = any(kind_of(window.label(b)).trait == "often on the move" for b in behaviours)
    if travels and weekday < 5 and (6 <= hour < 10 or 16 <= hour < 20):
        return "morning commute" if hour < 12 else "evening commute"
    return part_of_day(hour)


def current_scene(window: Window) -> str:
    """The past two hours, as far back as the window knows them (`facts.past_scene`)."""
    rows, _ = facts.past_scene(window)
    codes = [window.behaviours[i] for i in rows]
    weekday = int(window.history.weekday[-1])
    opening = window.choose("current_scene", ("It is {} {}", "This is {} {}", "The scene: {} {}"))
    where = f" at {place_text(window.places[-1])}" if window.catalogue.has_places else ""
    events = [(window.slots[i], window.places[i], window.behaviours[i]) for i in rows]
    if len(rows) > _SHOWN:
        count = f"{len(rows)} events in the past two hours, the last {_SHOWN}"
    else:
        count = "Past two hours"
    phase = _phase(window, codes, window.hours[-1], weekday)
    head = opening.format(WEEKDAYS[weekday], phase)
    return f"{head}{where}. {count}: {_scene(window, events[-_SHOWN:])}."


def future_scene(window: Window, following: Sequence[tuple[int, int, int]]) -> str:
    """The true next two hours: (slot, place, behaviour) per event, places ranked by the history."""
    if not following:
        return window.choose("future_scene", NOTHING)
    hour = following[-1][0] * 24 // window.catalogue.slots_per_day
    # Past midnight the slots fall, by more than where clocks are put back: the next weekday's scene.
    later = following[-1][0] + window.catalogue.slots_per_day // 2 < window.slots[-1]
    weekday = (int(window.history.weekday[-1]) + later) % 7
    phase = _phase(window, [b for _, _, b in following], hour, weekday)
    more = f", and {len(following) - _SHOWN} more" if len(following) > _SHOWN else ""
    return f"Next two hours, {phase}: {_scene(window, following[:_SHOWN])}{more}."


def home_work(window: Window) -> str:
    """Home: most visited from 21:00 to 7:00; work: on weekdays from 9:00 to 18:00, elsewhere."""
    place, count, total = facts.home(window)
    if place:
        opening = window.choose("home", ("Home is", "Home seems to be", "The home place is"))
        text = f"{opening} {place_text(place)}: {count} of {total} night events."
    else:
        seen = facts.ranked(Counter(p for p in window.places if p))
        place = seen[0][0] if seen else 0
        most = f"; {place_text(place)} is visited most, {seen[0][1]} times" if seen else ""
        text = f"No night event shows a home{most}."
    job, count, total = facts.work(window, place)
    if not job:
        return f"{text} No separate work place is seen."
    opening = window.choose("work", ("Work is", "Work seems to be", "The work place is"))
    return f"{text} {opening} {place_text(job)}: {count} of {total} weekday daytime events."


def hobbies(window: Window) -> str:
    """Leisure behaviours that are clearly more frequent here than usual."""
    found = facts.distinctive(window, 3, leisure=True)
    if not found:
        leisure = [x for x in window.most if kind_of(window.label(x[0])).leisure]
        if not leisure:
            return "No leisure behaviour is recorded."
        behaviour, count = leisure[0]
        times = "once" if count == 1 else f"{count} times"
        return (
            f"No hobby stands out; the most frequent leisure is {window.label(behaviour)}, {times}."
        )
    parts = [
        f"{window.label(b)} ({window.counts[b]} times{facts.usually(window, b)})" for b in found
    ]
    opening = window.choose("hobbies", ("Likes", "Is fond of", "Often chooses"))
    return f"{opening} {listed(parts)}."


def key_behaviours(window: Window) -> str:
    """Frequent behaviours with their times, what opens days or marks a move, and the last two."""
    top = window.most[:3]
    parts = []
    for number, (b, count) in enumerate(top):
        of = f" of {len(window.history)}" if number == 0 else ""
        parts.append(f"{window.label(b)} {count}{of}{facts.usually(window, b)}")
    opening = window.choose("key", ("Frequent", "Most frequent", "Key"))
    text = f"{opening}: {'; '.join(parts)}."
    first, move = window.opener, facts.mover(window)
    if first is not None:
        text += f" Days open with {window.label(first[0])} ({len(first[1])} of {first[2]})."
    elif move is not None:
        text += f" A change of place comes with {window.label(move[0])} ({move[1]} of {move[2]})."
    codes, slot = window.behaviours, window.slots[-1]
    now = f"{WEEKDAYS[int(window.history.weekday[-1])][:3]} {window.clock(slot)}"
    if len(codes) > 1 and not window.gaps[-1]:
        return f"{text} Now {now}: {window.label(codes[-2])}, then {window.label(codes[-1])}."
    return f"{text} Now {now}: {window.label(codes[-1])}."


def _chain(window: Window, gram: Sequence[int]) -> str:
    return " then ".join(window.label(b) for b in gram)


def _place_habit(window: Window) -> str:
    """What is mostly done at one place and makes up most of its events, apart from home."""
    if not window.catalogue.has_places:
        return ""
    by_place: dict[int, list[int]] = {}
    for place, behaviour in zip(window.places, window.behaviours, strict=True):
        by_place.setdefault(place, []).append(behaviour)
    for place in sorted(p for p, done in by_place.items() if p and len(done) >= 3):
        behaviour, count = facts.ranked(Counter(by_place[place]))[0]
        total = len(by_place[place])
        if count >= 3 and 2 * count >= total:
            return f"At {place_text(place)} mostly {window.label(behaviour)} ({count} of {total})."
    return ""


def patterns(window: Window) -> str:
    """Recurring subsequences, regularities of place and time, and what followed this before."""
    found = facts.recurring(window, 2)
    texts = []
    for gram, at in found:
        hours = when(window, [window.slots[i] for i in at])
        texts.append(f"{_chain(window, gram)}{hours} ({len(at)} times)")
    opening = window.choose("patterns", ("Recurring", "Repeated", "Patterns"))
    parts = [f"{opening}: {'; '.join(texts)}." if texts else "No sequence recurs within a day."]
    parts.append(_place_habit(window) if len(found) < 2 else "")
    for depth in (2, 1):
        following, total = facts.successors(window, depth)
        if following:
            after = _chain(window, window.behaviours[-depth:])
            items = [f"{window.label(b)} ({n} of {total})" for b, n in following[:2]]
            parts.append(f"After {after}: {listed(items)}.")
            break
    else:
        parts.append(f"Nothing followed {window.label(window.behaviours[-1])} before.")
    then, total = facts.this_time(window)
    if then:
        items = [f"{window.label(b)} ({n} of {total})" for b, n in then[:2]]
        parts.append(f"Around {window.clock(window.slots[-1])} on other days: {listed(items)}.")
    return " ".join(part for part in parts if part)


def _habit(window: Window, behaviour: int, *, of: bool) -> str:
    count = f" ({window.counts[behaviour]} of {len(window.history)} events)" if of else ""
    return f"{window.label(behaviour)}{facts.usually(window, behaviour)}{count}"


def _home_anchor(window: Window) -> str:
    place = facts.home(window)[0] if window.catalogue.has_places else 0
    return f"home {place_text(place)}" if place else ""


def summary(window: Window) -> str:
    """Traits, then habits, then anchors (the structure that Appendix O asks for), briefly."""
    person = f"{facts.rhythm(window)} with {facts.regularity(window)} days"
    traits = [*facts.traits(window, 2), person]
    done = [_habit(window, b, of=False) for b in facts.habits(window, 2)]
    done += [f"{window.label(a)} leading to {window.label(b)}" for (a, b), _ in _pairs(window)[:1]]
    first = window.opener
    anchors = [_home_anchor(window)]
    start = when(window, [window.slots[i] for i in first[1]]) if first is not None else ""
    if first is not None and start:
        anchors.append(f"{window.label(first[0])} opens the day{start}")
    else:
        behaviour, count = window.most[0]
        anchors.append(f"{window.label(behaviour)} ({count} times)")
    subject = window.choose("summary", ("Traits", "Character", "Person"))
    held = "; ".join(anchor for anchor in anchors if anchor)
    return f"{subject}: {listed(traits)}. Habits: {listed(done)}. Anchors: {held}."


def refined_summary(window: Window) -> str:
    """The summary under Appendix O's criteria: abstract, calibrated, in three layers, personal."""
    found = facts.habits(window, 3)
    drawn = listed(facts.traits(window, 2)) or f"drawn to {window.label(found[0])}"
    person = f"{facts.rhythm(window)} with {facts.regularity(window)} days"
    done = [_habit(window, b, of=True) for b in found]
    linked = [
        f"{window.label(g[0])} leading to {window.label(g[1])} ({len(at)} times)"
        for g, at in _pairs(window)[:1]
    ]
    weekend = sum(day >= 5 for day in window.history.weekday.tolist())
    anchors = [_home_anchor(window), f"{window.label(found[0])} ({window.counts[found[0]]} times)"]
    anchors.append(f"{weekend} of {len(window.history)} events on weekends")
    held = "; ".join(anchor for anchor in anchors if anchor)
    return f"Traits: {drawn}, {person}. Habits: {listed([*done, *linked])}. Anchors: {held}."


def _pairs(window: Window) -> list[tuple[tuple[int, ...], list[int]]]:
    """Recurring pairs of two different behaviours, most frequent first."""
    pairs = facts.grams(window, 2).items()
    found = [(gram, at) for gram, at in pairs if len(at) >= 2 and gram[0] != gram[1]]
    return sorted(found, key=lambda item: (-len(item[1]), item[0]))


ANNOTATORS: dict[str, Callable[[Window], str]] = {
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
