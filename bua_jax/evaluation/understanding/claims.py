"""Claims that a text makes about a person, read off it: the wording of the rules, and much of a model's own.

A text is read in two steps. Labels become marks, so that what stands between them is plain English whatever
the labels are; then each clause is searched for what is said of the behaviours in it. A count, a time or a
place is about what its clause names last before it, or first after it. What cannot be read is no claim.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from bua_jax.dialogue.traits import KINDS
from bua_jax.events.schema import WEEKDAYS, Catalogue

ASPECTS = ("behaviours", "counts", "times", "places", "order", "traits")


class Claim(NamedTuple):
    """One thing said. `about`: behaviours, a single one or a chain; none where it is the person.

    kind and value by aspect:
    behaviours: named.
    counts: "" (n,) or (n, of) events; after, then, opens, moves, home, work, weekend (n, of);
    at (n, of, place).
    times: around (slots ...); part (word,); opens, either of these; now (weekday or -1, slot);
    event, then (slot,).
    places: at, mostly, home, work, visited (place,); event (place, slot); moves.
    order: follows, after, opens, last (); never where nothing followed.
    traits: trait, rhythm, regularity (word,).
    """

    aspect: str
    about: tuple[int, ...]
    kind: str
    value: tuple[int | str, ...] = ()


class Said(NamedTuple):
    """A claim, and where in the marked text its value stands (of `behaviours`: the mark)."""

    claim: Claim
    start: int
    end: int


class Reading(NamedTuple):
    """A text with its labels as marks, and what it says."""

    marked: str
    said: tuple[Said, ...]

    @property
    def claims(self) -> frozenset[Claim]:
        """What is said, each once."""
        return frozenset(one.claim for one in self.said)


# ---------------------------------------------------------------------------------- labels as marks

_OPEN, _CLOSE = "\ue000", "\ue001"  # of private use: no label has them
_MARK = rf"{_OPEN}(\d+){_CLOSE}"
_ANY = rf"{_OPEN}\d+{_CLOSE}"
_HEADS = "Most frequent|Frequent|Key"
_TRAITS = "|".join(sorted((re.escape(k.trait) for k in KINDS if k.trait), key=len, reverse=True))
RHYTHMS = ("early riser", "morning starter", "late starter", "evening person", "daytime person")
REGULARITIES = ("routine-driven", "balanced", "varied")
_DAY = "|".join(day[:3] for day in WEEKDAYS)
_OWN = re.compile(  # words of ours, which a label may share: "food-loving" does not name Food
    rf"(?<!\w)(?:{_TRAITS}|{'|'.join(RHYTHMS)}|(?:home|work)(?: place)?(?: is| seems to be)?(?= L\d)"
    rf"|(?:{_HEADS}|Recurring|Repeated|Patterns|Traits|Character|Person|Habits|Anchors)(?=: )"
    rf"|Now (?:{_DAY})\b|No night event shows a home|No separate work place is seen|night events"
    r"|weekday daytime events|events on weekends|A change of place comes with|Days open with"
    r"|opens the day|on other days|No sequence recurs within a day|Nothing followed"
    r"|No hobby stands out|the most frequent leisure is|No leisure behaviour is recorded)(?!\w)",
    re.IGNORECASE,
)
_COUNTED_LIST = re.compile(rf"(?<!\w)(?:{_HEADS}): (?:(?!\. ).)*", re.DOTALL)
_NUMBERED = re.compile(r"(.+) (\d+)")


@lru_cache(maxsize=8)
def _labels(catalogue: Catalogue) -> tuple[re.Pattern, dict[str, int]]:
    """A pattern of all labels, longer ones first, and their ids, also by their words in small letters."""
    ordered = sorted(catalogue.behaviours, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE)
    ids = {label: b for b, label in enumerate(catalogue.behaviours)}
    return pattern, {label.casefold(): b for label, b in reversed(ids.items())} | ids


def marked(catalogue: Catalogue, text: str) -> str:
    """The text with a mark for each label; of labels that begin alike, the longest that fits.

    A label that ends in a number may also be a shorter one with its count ("gym 2 of 40"): it is, where the
    words after it, or a list in which each item has its count, say so.
    """
    text = text.replace(_OPEN, "").replace(_CLOSE, "")
    pattern, ids = _labels(catalogue)
    own = [match.span() for match in _OWN.finditer(text)]
    lists = [match.span() for match in _COUNTED_LIST.finditer(text)]
    parts, begin = [], 0
    for match in pattern.finditer(text):
        start, end = match.span()
        if any(a < end and start < b and not (start <= a and b < end) for a, b in own):
            continue
        label, after = match[0], text[end : end + 12]
        shorter = _NUMBERED.fullmatch(label)
        if shorter and (shorter[1] in ids or shorter[1].casefold() in ids):
            listed = any(a <= start < b for a, b in lists) and not re.match(r" \(?\d", after)
            if listed or re.match(r" (?:of \d|times?\b|events?\b)", after):
                label, end = shorter[1], start + len(shorter[1])
        b = ids[label] if label in ids else ids[label.casefold()]
        parts += [text[begin:start], f"{_OPEN}{b}{_CLOSE}"]
        begin = end
    return "".join([*parts, text[begin:]])


def mark_of(behaviour: int) -> str:
    """What stands for a label in a marked text."""
    return f"{_OPEN}{behaviour}{_CLOSE}"


def plain(catalogue: Catalogue, text: str) -> str:
    """A marked text with labels again."""
    return re.sub(_MARK, lambda match: catalogue.behaviours[int(match[1])], text)


# ------------------------------------------------------------------------------------------ clauses

CLAUSE_END = re.compile(r";\s|\.(?:\s|$)|\n")
_JOIN = r"(?:,? then |,? leading to |,? followed by | ?(?:→|->) ?)"
_CHAIN = re.compile(rf"{_ANY}(?:{_JOIN}{_ANY})*")
_CLOCK = r"\d{1,2}:\d\d"
_SHARE = rf"{_MARK} \((\d+) of (\d+)\)"
_NOW = re.compile(rf"\bNow (?:({_DAY})\w* )?({_CLOCK}): ({_ANY})(?:, then ({_ANY}))?")
_AFTER = re.compile(rf"\bAfter ({_CHAIN.pattern}): ((?:{_ANY} \(\d+ of \d+\)(?:, | and )?)+)")
_THEN = re.compile(rf"\bAround ({_CLOCK}) on other days: ((?:{_ANY} \(\d+ of \d+\)(?:, | and )?)+)")
_OPEN_WITH = re.compile(rf"\bDays open with {_MARK}(?: \((\d+) of (\d+)\))?")
_OPENS = re.compile(rf"{_MARK} opens the day")
_MOVES = re.compile(rf"\bA change of place comes with {_MARK}(?: \((\d+) of (\d+)\))?")
_MOSTLY = re.compile(rf"\b[Aa]t L(\d{{1,2}}),? mostly {_MARK}(?: \((\d+) of (\d+)\))?")
_NOTHING = re.compile(rf"\bNothing followed {_MARK} before")
_NONE_RECURS = re.compile(r"\bNo sequence recurs within a day")
_ANCHOR = re.compile(
    r"\b(home|work)(?: place)?(?: is| seems to be)? L(\d{1,2})\b"
    r"(?:: (\d+) of (\d+) (?:night|weekday daytime) events)?",
    re.IGNORECASE,
)
_WEEKEND = re.compile(r"\b(\d+) of (\d+) events on weekends")
_EVENT = re.compile(rf"\b({_CLOCK}) (?:(?:L(\d{{1,2}})|other) )?{_MARK}")
_COUNT = re.compile(
    r"\b(\d+) of (?:the )?(\d+)\b|\b(\d+) ?(?:times|events|occurrences)\b|\b([Oo]nce|[Tt]wice)\b"
    rf"|(?<={_CLOSE}) \(?(\d+)\b(?!:| of \d| of the \d| ?(?:times|events|occurrences)\b)"
)
_TIME = re.compile(rf"(?<![\d:])({_CLOCK})(?:(?: and | or )({_CLOCK}))?")
_PART = re.compile(
    r"\b(late morning|early afternoon|morning|afternoon|evening|night)s?\b"
    r"(?! (?:person|starter|commute|event))",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\bL(\d{1,2})\b")
_WORDS = re.compile(
    rf"\b(?:(?P<trait>{_TRAITS})|(?P<rhythm>{'|'.join(RHYTHMS)})"
    r"|(?P<regularity>routine-driven|(?:balanced|varied)(?= (?:days?|routines?)\b)))",
    re.IGNORECASE,
)
_WRITTEN = {"once": 1, "twice": 2}


def _slot(catalogue: Catalogue, clock: str) -> int:
    """The slot of HH:MM; -1 for a time that no day has."""
    hour, minute = map(int, clock.split(":"))
    if hour > 23 or minute > 59:
        return -1
    return (hour * 60 + minute) * catalogue.slots_per_day // 1440


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(b) for b in re.findall(_MARK, text))


def read(catalogue: Catalogue, text: str) -> Reading:
    """Reads a text about a person. Any text may be given; an empty one says nothing."""
    shown = marked(catalogue, text)
    said = [
        Said(Claim("behaviours", (int(match[1]),), "named"), *match.span())
        for match in re.finditer(_MARK, shown)
    ]
    begin = 0
    for end in [*(match.end() for match in CLAUSE_END.finditer(shown)), len(shown)]:
        said += (
            Said(claim, begin + start, begin + stop)
            for claim, start, stop in _clause(catalogue, shown[begin:end])
        )
        begin = end
    return Reading(shown, tuple(said))


def _clause(catalogue: Catalogue, clause: str) -> Iterator[Said]:
    """What a clause says; positions are within it."""
    for match in _WORDS.finditer(clause):
        kind = str(match.lastgroup)
        yield Said(Claim("traits", (), kind, (match[kind].lower(),)), *match.span())
    rest = clause
    for pattern, of in _FORMS:
        for match in pattern.finditer(rest):
            yield from of(catalogue, match)
            if pattern is not _OPENS:  # a time may follow, which is about what opens the day
                rest = rest[: match.start()] + " " * len(match[0]) + rest[match.end() :]
    named = _Named(rest, [(m.start(), m.end(), _ids(m[0])) for m in _CHAIN.finditer(rest)])
    if named.subjects:
        yield from _loose(named)
        yield from _loose_times(catalogue, named)
    for match in _PLACE.finditer(rest):
        subject, _ = named.about(match.start())
        kind = "at" if len(subject) == 1 else "visited"
        claim = Claim("places", subject if kind == "at" else (), kind, (int(match[1]),))
        yield Said(claim, *match.span(1))


class _Named(NamedTuple):
    """A clause, and the behaviours and chains in it: (start, end, ids)."""

    clause: str
    subjects: list[tuple[int, int, tuple[int, ...]]]

    def about(self, at: int) -> tuple[tuple[int, ...], bool]:
        """(what is named last before a position, or first after it; whether it is said to open the day)."""
        before = [subject for subject in self.subjects if subject[1] <= at]
        if before:
            return before[-1][2], self.clause.startswith(" opens the day", before[-1][1])
        return (self.subjects[0][2], False) if self.subjects else ((), False)


def _loose(named: _Named) -> Iterator[Said]:
    """Chains and counts."""
    for start, end, chain in named.subjects:
        if len(chain) > 1:
            yield Said(Claim("order", chain, "follows"), start, end)
    for match in _COUNT.finditer(named.clause):
        which = next(i for i in (1, 3, 4, 5) if match[i])
        number = _WRITTEN.get(match[which].lower()) or int(match[which])
        value = (number, int(match[2])) if match[2] else (number,)
        subject, _ = named.about(match.start(which))
        yield Said(Claim("counts", subject, "", value), *match.span(which))


def _loose_times(catalogue: Catalogue, named: _Named) -> Iterator[Said]:
    """Clock times and parts of the day."""
    for match in _TIME.finditer(named.clause):
        subject, opens = named.about(match.start())
        slots = tuple(_slot(catalogue, clock) for clock in match.groups() if clock)
        yield Said(Claim("times", subject, "opens" if opens else "around", slots), *match.span())
    for match in _PART.finditer(named.clause):
        subject, opens = named.about(match.start())
        claim = Claim("times", subject, "opens" if opens else "part", (match[1].lower(),))
        yield Said(claim, *match.span(1))


# ---------------------------------------------------------------------- what has a form of its own


def _counted(claim: Claim, match: re.Match, group: int) -> Iterator[Said]:
    """A count of the groups `group` (n) and the next (of), where they are there."""
    if match[group]:
        value = (int(match[group]), int(match[group + 1]), *claim.value)
        yield Said(claim._replace(value=value), *match.span(group))


def _of_now(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    days = [day[:3] for day in WEEKDAYS]
    weekday = days.index(match[1].title()) if match[1] else -1
    value = (weekday, _slot(catalogue, match[2]))
    yield Said(Claim("times", (), "now", value), *match.span(2))
    last = _ids(match[3] + (match[4] or ""))
    yield Said(Claim("order", last, "last"), match.start(3), match.end())


def _shares(match: re.Match, before: Sequence[int], kind: str) -> Iterator[Said]:
    """Counts of a list `z (2 of 3) and w (1 of 3)`, the second group of `match`."""
    for one in re.finditer(_SHARE, match[2]):
        start = match.start(2) + one.start(2)
        value = (int(one[2]), int(one[3]))
        claim = Claim("counts", (*before, int(one[1])), kind, value)
        yield Said(claim, start, start + len(one[2]))


def _of_after(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    before = _ids(match[1])
    for said in _shares(match, before, "after"):
        yield said._replace(claim=Claim("order", said.claim.about, "after"))
        yield said


def _of_then(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    slot = (_slot(catalogue, match[1]),)
    for said in _shares(match, (), "then"):
        yield Said(Claim("times", said.claim.about, "then", slot), *match.span(1))
        yield said


def _of_start(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    about = (int(match[1]),)
    yield Said(Claim("order", about, "opens"), *match.span())
    if match.re is _OPEN_WITH:
        yield from _counted(Claim("counts", about, "opens"), match, 2)


def _of_move(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    about = (int(match[1]),)
    yield Said(Claim("places", about, "moves"), *match.span())
    yield from _counted(Claim("counts", about, "moves"), match, 2)


def _of_habit(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    about, place = (int(match[2]),), (int(match[1]),)
    yield Said(Claim("places", about, "mostly", place), *match.span(1))
    yield from _counted(Claim("counts", about, "at", place), match, 3)


def _of_nothing(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    about = (int(match[1]),) if match.re is _NOTHING else ()
    yield Said(Claim("order", about, "never"), *match.span())


def _of_anchor(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    kind = match[1].lower()
    yield Said(Claim("places", (), kind, (int(match[2]),)), *match.span(2))
    yield from _counted(Claim("counts", (), kind), match, 3)


def _of_weekend(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    yield from _counted(Claim("counts", (), "weekend"), match, 1)


def _of_event(catalogue: Catalogue, match: re.Match) -> Iterator[Said]:
    about, slot = (int(match[3]),), _slot(catalogue, match[1])
    yield Said(Claim("times", about, "event", (slot,)), *match.span(1))
    if match[2]:
        yield Said(Claim("places", about, "event", (int(match[2]), slot)), *match.span(2))


_FORMS = (
    (_NOW, _of_now),
    (_AFTER, _of_after),
    (_THEN, _of_then),
    (_OPEN_WITH, _of_start),
    (_OPENS, _of_start),
    (_MOVES, _of_move),
    (_MOSTLY, _of_habit),
    (_NOTHING, _of_nothing),
    (_NONE_RECURS, _of_nothing),
    (_ANCHOR, _of_anchor),
    (_WEEKEND, _of_weekend),
    (_EVENT, _of_event),
)
