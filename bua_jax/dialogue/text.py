"""Events, days and labels as text, and back.

An event is `07:30 L1 check weather` (`07:30 check weather` in sets without places; place 0 is
`other`). A day is its weekday's three letters and its events (`Tue 07:30 L1 alarm; 08:00 L2 walk`),
or `Tue nothing`. `Catalogue` refuses labels with ';' or line breaks, so the form is unambiguous: a
label is all that follows the place (or clock) up to the next '; '.
"""

import itertools
import re
import unicodedata
from functools import lru_cache

from bua_jax.events.schema import NUM_PLACES, WEEKDAYS, Catalogue, History
from bua_jax.events.windows import Day

NOTHING = "nothing"
GAP_LINE = "..."
"""Line of a written-out history where an unknown time passed."""

_EVENT = re.compile(r"(\d{1,2}):(\d{2})(?:\s+(.*))?", re.DOTALL)
_PLACE = re.compile(r"(L(?:\d{1,2})|other)\s+(.*)", re.DOTALL | re.IGNORECASE)


def place_text(place: int) -> str:
    """`L1` .. `L10`, or `other` for 0."""
    return f"L{place}" if place else "other"


def event_text(catalogue: Catalogue, slot: int, place: int, behaviour: int) -> str:
    """`07:30 L1 check weather`."""
    where = f"{place_text(place)} " if catalogue.has_places else ""
    return f"{catalogue.clock(slot)} {where}{catalogue.behaviours[behaviour]}"


def event_record(catalogue: Catalogue, slot: int, place: int, behaviour: int) -> dict[str, str]:
    """The same as it stands in JSON: time, behaviour, and place where there are any."""
    event = {"time": catalogue.clock(slot), "behaviour": catalogue.behaviours[behaviour]}
    return {**event, "place": place_text(place)} if catalogue.has_places else event


def day_text(catalogue: Catalogue, day: Day) -> str:
    """`Tue 07:30 L1 check weather; 08:00 L2 subway`; a day without events is `Tue nothing`."""
    events = [
        event_text(catalogue, *event)
        for event in zip(day.slot, day.place, day.behaviour, strict=True)
    ]
    return f"{WEEKDAYS[day.weekday][:3]} {'; '.join(events) or NOTHING}"


def history_days(history: History) -> list[tuple[bool, Day]]:
    """The days of a history in order, each with whether an unknown gap lies right before it.

    A gap within a day divides it in two.
    """
    days: list[tuple[bool, Day]] = []
    columns = (history.slot.tolist(), history.place.tolist(), history.behaviour.tolist())
    cuts = [
        i
        for i in range(len(history))
        if i == 0 or history.gap[i] or history.day[i] != history.day[i - 1]
    ]
    for begin, stop in itertools.pairwise([*cuts, len(history)]):
        slot, place, behaviour = (tuple(column[begin:stop]) for column in columns)
        day = Day(int(history.weekday[begin]), slot, place, behaviour)
        days.append((bool(history.gap[begin]), day))
    return days


def history_text(catalogue: Catalogue, history: History) -> str:
    """A line per day, `...` where an unknown time passed; days without events are left out."""
    lines = []
    for after_gap, day in history_days(history):
        lines += [GAP_LINE] * after_gap + [day_text(catalogue, day)]
    return "\n".join(lines)


@lru_cache(maxsize=8)
def _exact(catalogue: Catalogue) -> tuple[dict[str, int], dict[str, int]]:
    clocks = {catalogue.clock(slot): slot for slot in range(catalogue.slots_per_day)}
    return clocks, {label: i for i, label in enumerate(catalogue.behaviours)}


@lru_cache(maxsize=8)
def _loose(catalogue: Catalogue) -> dict[str, int]:
    """Normalised label -> id, where that is unambiguous."""
    found: dict[str, int] = {}
    clashes = set()
    for i, label in enumerate(catalogue.behaviours):
        key = normalise(label)
        if key in found:
            clashes.add(key)
        found[key] = i
    return {key: i for key, i in found.items() if key not in clashes}


def normalise(label: str) -> str:
    """Case, width, spaces and surrounding punctuation do not make another label."""
    text = unicodedata.normalize("NFKC", label).casefold()
    stripped = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    return " ".join((stripped or text).split())


def history_pieces(catalogue: Catalogue, history: History) -> list[str]:
    """`history_text` in a piece per event, each of which ends with its behaviour."""
    pieces, before = [], ""
    for after_gap, day in history_days(history):
        before += f"{GAP_LINE}\n" * after_gap + f"{WEEKDAYS[day.weekday][:3]} "
        for event in zip(day.slot, day.place, day.behaviour, strict=True):
            pieces.append(before + event_text(catalogue, *event))
            before = "; "
        before = "\n"
    return pieces


def parse_label(text: str, catalogue: Catalogue) -> int:
    """Behaviour id of a freely decoded label; -1 if it is none.

    Exact text first; else ignoring case, spaces and surrounding punctuation, if only one label
    matches that way. Nothing is guessed: a longer or shorter text is invalid.
    """
    exact = _exact(catalogue)[1].get(text.strip())
    return exact if exact is not None else _loose(catalogue).get(normalise(text), -1)


def parse_day(text: str, catalogue: Catalogue) -> Day | None:
    """Inverse of `day_text` for days in time order; None for any other text."""
    clocks, labels = _exact(catalogue)
    head, _, rest = text.partition(" ")
    weekdays = [name[:3] for name in WEEKDAYS]
    if head not in weekdays:
        return None
    events = []
    for piece in rest.split("; ") if rest != NOTHING else []:
        clock, _, tail = piece.partition(" ")
        place = 1
        if catalogue.has_places:
            where, _, tail = tail.partition(" ")
            ids = {place_text(p): p for p in range(NUM_PLACES + 1)}
            if where not in ids:
                return None
            place = ids[where]
        if clock not in clocks or tail not in labels:
            return None
        events.append((clocks[clock], place, labels[tail]))
    slots = tuple(event[0] for event in events)
    if list(slots) != sorted(slots):
        return None
    return Day(
        weekdays.index(head), slots, tuple(e[1] for e in events), tuple(e[2] for e in events)
    )


def _parse_event(piece: str, catalogue: Catalogue) -> tuple[int, int, int] | None:
    match = _EVENT.fullmatch(piece.strip())
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        return None
    slot = (int(match[1]) * 60 + int(match[2])) * catalogue.slots_per_day // 1440
    tail, place = match[3] or "", 1
    if catalogue.has_places:
        where = _PLACE.fullmatch(tail)
        if where is None:
            return None
        name, tail = where[1].casefold(), where[2]
        place = 0 if name == "other" else int(name[1:])
        if not (name == "other" or 1 <= place <= NUM_PLACES):
            return None
    behaviour = parse_label(tail, catalogue)
    return None if behaviour < 0 else (slot, place, behaviour)


def parse_day_lenient(text: str, catalogue: Catalogue, weekday: int) -> tuple[Day, int]:
    """What can be read of a freely decoded day, and the number of invalid pieces.

    `weekday` is the asked-for one; a text that starts with another or none counts as one invalid
    piece and keeps its events. An event that does not parse, or lies before the one ahead of it, is
    dropped and counted. Clock times are rounded down to their slot.
    """
    text = text.strip()
    match = re.match(r"[^\W\d]+", text)
    word = match[0].casefold() if match else ""
    said = [
        i for i, name in enumerate(WEEKDAYS) if len(word) >= 3 and name.casefold().startswith(word)
    ]
    invalid = int(said != [weekday])
    if match and said:
        text = text[match.end() :].lstrip(" :,.")
    events: list[tuple[int, int, int]] = []
    if normalise(text) != NOTHING:
        for piece in re.split(r"[;\n]", text):
            if not piece.strip():
                continue
            event = _parse_event(piece, catalogue)
            if event is None or (events and event[0] < events[-1][0]):
                invalid += 1
            else:
                events.append(event)
    slot, place, behaviour = zip(*events, strict=True) if events else ((), (), ())
    return Day(weekday, tuple(slot), tuple(place), tuple(behaviour)), invalid
