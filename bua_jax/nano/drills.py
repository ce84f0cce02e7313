"""Reading drills: short questions that only the prompt answers, exactly.

They ask about events in the history (the n-th, the last, how often, what followed, what at this hour),
about order and counts, about an earlier answer's text, and about what is faintly added to a vector.
None asks about anything after the window.
"""

from collections import Counter
from collections.abc import Callable
from random import Random

from bua_jax.dialogue.facts import Window, ranked, successors
from bua_jax.dialogue.rounds import Round
from bua_jax.dialogue.text import event_text, place_text
from bua_jax.events.schema import WEEKDAYS

NOTHING = "nothing"
FAINT = "What is faint at the end?"
DRILL = "What was last?"
"""The drill that nano's prediction instruction begins with (configs/models/nano.py): its answer starts from
the same event. One control without it ended at a validation loss of 1.07 instead of 1.04: too little to
tell."""
_SHOWN = 6  # items of a list that an answer spells out


def _round(question: str, answer: str) -> Round:
    return Round("drill", question, answer)


def _event(window: Window, i: int) -> str:
    text = event_text(window.catalogue, window.slots[i], window.places[i], window.behaviours[i])
    return f"{_weekday(window, i)} {text}"


def _weekday(window: Window, i: int) -> str:
    return WEEKDAYS[int(window.history.weekday[i])][:3]


def _labels(window: Window, behaviours: list[int]) -> str:
    return "; ".join(window.label(b) for b in behaviours[:_SHOWN]) or NOTHING


def _counted(window: Window, counts: Counter[int], most: int) -> str:
    return "; ".join(f"{window.label(b)} {n}" for b, n in ranked(counts)[:most]) or NOTHING


def _some_behaviour(window: Window, rng: Random) -> int:
    """A behaviour of the window, now and then one that is not in it."""
    if rng.random() < 0.1:
        return rng.randrange(len(window.catalogue.behaviours))
    return rng.choice(window.behaviours)


def last(window: Window, rng: Random) -> Round:
    return _round(DRILL, _event(window, len(window.slots) - 1))


def nth(window: Window, rng: Random) -> Round:
    if rng.random() < 0.5:
        i = rng.randrange(len(window.slots))
        return _round(f"What was event {i + 1}?", _event(window, i))
    back = rng.randrange(1, min(10, len(window.slots)) + 1)
    return _round(f"What was event {back} from the end?", _event(window, len(window.slots) - back))


def ending(window: Window, rng: Random) -> Round:
    count = rng.randint(2, 5)
    shown = window.behaviours[-count:]
    return _round(f"What were the last {count}?", ", then ".join(map(window.label, shown)))


def how_often(window: Window, rng: Random) -> Round:
    b = _some_behaviour(window, rng)
    return _round(f"How often {window.label(b)}?", str(window.counts[b]))


def top(window: Window, rng: Random) -> Round:
    (b, count), *_ = ranked(window.counts)
    return _round("What is most frequent?", f"{window.label(b)} {count} of {len(window.slots)}")


def counts(window: Window, rng: Random) -> Round:
    return _round("What is frequent?", _counted(window, window.counts, rng.choice((3, 3, 5))))


def tally(window: Window, rng: Random) -> Round:
    """Running counts of consecutive events: what has to be known at each event to count at all."""
    begin = rng.randrange(max(1, len(window.slots) - 7))
    seen = Counter(window.behaviours[:begin])
    parts = []
    for b in window.behaviours[begin : begin + 8]:
        seen[b] += 1
        parts.append(f"{window.label(b)} {seen[b]}")
    return _round(f"Count on from event {begin + 1}.", "; ".join(parts))


def after(window: Window, rng: Random) -> Round:
    codes, b = window.behaviours, _some_behaviour(window, rng)
    following = [codes[i + 1] for i in range(len(codes) - 1) if codes[i] == b]
    if rng.random() < 0.5:
        return _round(f"What came after {window.label(b)}?", _labels(window, following))
    question = f"What came most after {window.label(b)}?"
    return _round(question, _counted(window, Counter(following), 2))


def after_last(window: Window, rng: Random) -> Round:
    depth = rng.choice((1, 1, 2))
    following, total = successors(window, depth)
    what = "the last" if depth == 1 else "the last two"
    found = "; ".join(f"{window.label(b)} {n} of {total}" for b, n in following[:2])
    return _round(f"What came before now after {what}?", found or NOTHING)


def on_day(window: Window, rng: Random) -> Round:
    i = rng.randrange(len(window.slots))
    day, slot = int(window.history.weekday[i]), window.slots[i]
    pairs = zip(window.history.weekday.tolist(), window.slots, strict=True)
    found = [window.behaviours[j] for j, pair in enumerate(pairs) if pair == (day, slot)]
    question = f"What was on {_weekday(window, i)} at {window.clock(slot)}?"
    return _round(question, _labels(window, found))


def at_hour(window: Window, rng: Random) -> Round:
    slot, width = rng.choice(window.slots), window.catalogue.slots_per_day // 24
    near = [
        b for b, s in zip(window.behaviours, window.slots, strict=True) if abs(s - slot) <= width
    ]
    return _round(f"What happens around {window.clock(slot)}?", _counted(window, Counter(near), 3))


def when(window: Window, rng: Random) -> Round:
    b = _some_behaviour(window, rng)
    times = [window.slots[i] for i, c in enumerate(window.behaviours) if c == b]
    if rng.random() < 0.5:
        times = sorted(times)
        question = f"At what times {window.label(b)}, sorted?"
    else:
        question = f"At what times {window.label(b)}?"
    return _round(question, "; ".join(map(window.clock, times[:_SHOWN])) or NOTHING)


def where(window: Window, rng: Random) -> Round | None:
    if not window.catalogue.has_places:
        return None
    if rng.random() < 0.5:
        b = _some_behaviour(window, rng)
        seen = Counter(p for p, c in zip(window.places, window.behaviours, strict=True) if c == b)
        found = "; ".join(f"{place_text(p)} {n}" for p, n in ranked(seen)[:3])
        return _round(f"Where was {window.label(b)}?", found or NOTHING)
    place = rng.choice(window.places)
    seen = Counter(b for p, b in zip(window.places, window.behaviours, strict=True) if p == place)
    return _round(f"What is at {place_text(place)}?", _counted(window, seen, 3))


def first_of_days(window: Window, rng: Random) -> Round:
    opened = Counter(window.behaviours[i] for i in window.starts)
    return _round("What opens the days?", _counted(window, opened, 2))


def is_true(window: Window, rng: Random) -> Round:
    b, other = _some_behaviour(window, rng), _some_behaviour(window, rng)
    label = window.label(b)
    form = rng.randrange(4)
    if form == 0:
        said = (
            window.counts[b]
            if rng.random() < 0.5
            else max(0, window.counts[b] + rng.choice((-2, -1, 1, 2)))
        )
        question, truth = f"{label} {said} times", said == window.counts[b]
    elif form == 1:
        question = f"more {label} than {window.label(other)}"
        truth = window.counts[b] > window.counts[other]
    elif form == 2:
        codes = window.behaviours
        question = f"{window.label(other)} right after {label}"
        truth = any(codes[i] == b and codes[i + 1] == other for i in range(len(codes) - 1))
    else:
        day = rng.randrange(7)
        pairs = zip(window.history.weekday.tolist(), window.behaviours, strict=True)
        question, truth = f"{label} on {WEEKDAYS[day][:3]}", (day, b) in set(pairs)
    return _round(f"Is it true: {question}?", "yes" if truth else "no")


def different(window: Window, rng: Random) -> Round:
    seen = list(dict.fromkeys(window.behaviours))
    if rng.random() < 0.5:
        return _round("How many different behaviours?", str(len(seen)))
    return _round("What came first, in order?", _labels(window, seen))


def size(window: Window, rng: Random) -> Round:
    if rng.random() < 0.5:
        return _round("How many events?", str(len(window.slots)))
    days = window.history.weekday.tolist()
    day = rng.choice(days)
    return _round(f"How many events on {WEEKDAYS[day][:3]}?", str(days.count(day)))


def span(window: Window, rng: Random) -> Round:
    """Some consecutive events, spelled out."""
    begin = rng.randrange(len(window.slots))
    stop = min(len(window.slots), begin + rng.randint(2, 4))
    shown = "; ".join(_event(window, i) for i in range(begin, stop))
    return _round(f"List events {begin + 1} to {stop}.", shown)


def rare(window: Window, rng: Random) -> Round:
    once = [b for b in dict.fromkeys(window.behaviours) if window.counts[b] == 1]
    return _round("What came once?", _labels(window, once))


Drill = Callable[[Window, Random], Round | None]
DRILLS: dict[Drill, float] = {
    last: 2.0,
    nth: 1.5,
    ending: 1.5,
    how_often: 2.0,
    top: 2.0,
    counts: 2.5,
    tally: 2.0,
    after: 1.5,
    after_last: 1.5,
    on_day: 1.0,
    at_hour: 1.5,
    when: 1.0,
    where: 1.0,
    first_of_days: 0.7,
    is_true: 1.5,
    different: 0.7,
    size: 0.5,
    span: 1.5,
    rare: 0.7,
}
"""Drills about the history and how often each is drawn."""
COPIES: dict[Drill, float] = {
    last: 2.0,
    nth: 1.5,
    ending: 1.5,
    span: 1.5,
    how_often: 1.0,
    after: 1.0,
}
"""Those that come first: nearly all of their answers can be copied."""


def echo(earlier: list[Round], rng: Random) -> Round:
    """A question about the text of an earlier answer of the same dialogue."""
    number = rng.randrange(len(earlier))
    answer = earlier[number].answer
    pieces = [p for part in answer.rstrip(".").split("; ") for p in part.split(", then ")]
    if len(pieces) > 1 and rng.random() < 0.7:
        i = rng.randrange(len(pieces))
        return _round(f"Answer {number + 1}, item {i + 1}?", pieces[i])
    words = answer.split(" ")
    return _round(f"Answer {number + 1}, repeat the end.", " ".join(words[-4:]))
