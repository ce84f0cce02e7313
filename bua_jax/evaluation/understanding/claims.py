"""Claims that a text makes about a person, read off it: the wording of the rules, and much of a model's own.

A text is read in two steps. Labels become marks (`marks`); then each clause is searched for what is said of
the behaviours in it. A count, a time or a place is about what its clause names last before it, or first after
it. What cannot be read is no claim: a clause that denies says nothing, nor does a number that is a bound.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bua_jax.dialogue.critic import RHYTHMS
from bua_jax.evaluation.understanding.marks import (
    ANY,
    CLOSE,
    DAY,
    MARK,
    OPEN,
    TRAITS,
    marked,
)
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


# ------------------------------------------------------------------------------------------ clauses

CLAUSE_END = re.compile(r";\s|\.(?:\s|$)|\n")
_JOIN = r"(?:,? then |,? leading to |,? followed by | ?(?:→|->) ?)"
_CHAIN = re.compile(rf"{ANY}(?:{_JOIN}{ANY})*")
_CLOCK = r"\d{1,2}:\d\d(?: ?[AaPp]\.?[Mm]\b)?"
_NUMBER = r"(?<![\d.,:])(\d{1,3}(?:,\d{3})+|\d+)(?![.,:]?\d)"
_SHARE = rf"{MARK} \((\d+) of (\d+)\)"
_NOW = re.compile(rf"\bNow (?:({DAY})\w* )?({_CLOCK}): ({ANY})(?:, then ({ANY}))?")
_AFTER = re.compile(rf"\bAfter ({_CHAIN.pattern}): ((?:{ANY} \(\d+ of \d+\)(?:, | and )?)+)")
_THEN = re.compile(rf"\bAround ({_CLOCK}) on other days: ((?:{ANY} \(\d+ of \d+\)(?:, | and )?)+)")
_OPEN_WITH = re.compile(rf"\bDays open with {MARK}(?: \((\d+) of (\d+)\))?")
_OPENS = re.compile(rf"{MARK} opens the day")
_MOVES = re.compile(rf"\bA change of place comes with {MARK}(?: \((\d+) of (\d+)\))?")
_MOSTLY = re.compile(rf"\b[Aa]t L(\d{{1,2}}),? mostly {MARK}(?: \((\d+) of (\d+)\))?")
_NOTHING = re.compile(rf"\bNothing followed {MARK} before")
_NONE_RECURS = re.compile(r"\bNo sequence recurs within a day")
_ANCHOR = re.compile(
    r"\b(home|work)(?: place)?(?: is| seems to be)? L(\d{1,2})\b"
    r"(?:: (\d+) of (\d+) (?:night|weekday daytime) events)?",
    re.IGNORECASE,
)
_WEEKEND = re.compile(r"\b(\d+) of (\d+) events on weekends")
_EVENT = re.compile(rf"\b({_CLOCK}) (?:(?:L(\d{{1,2}})|other) )?{MARK}")
_TIMES = r" ?(?:times|events|occurrences)\b"
_UNIT = r" ?(?:%|[ap]\.?m\b|percent|places?|people|minutes?|hours?|days?|weeks?|months?|years?)"
_COUNT = re.compile(
    rf"\b{_NUMBER} of (?:the )?{_NUMBER}|\b{_NUMBER}{_TIMES}(?! in the past)|\b(once|twice)\b"
    rf"|(?<={CLOSE}) \(?{_NUMBER}(?!:| of \d| of the \d|{_TIMES}|{_UNIT})",
    re.IGNORECASE,
)
_OF_NEXT = re.compile(rf"(?: events)?(?: are| were| is)?(?: of)?(?: the)? (?={OPEN})")
"""Between a count and what it is about, where that follows: "6 times gym", "6 of 40 events are gym"."""
_TIME = re.compile(rf"(?<![\d:])({_CLOCK})(?:(?: and | or )({_CLOCK}))?")
_LIMIT = re.compile(  # before a number or a clock time: it is a bound, or an end of a range
    r"(?:\b(?:(?:at (?:least|most)|(?:more|less|fewer|later|earlier) than|over|under|above|below|from|to"
    r"|between|before|after|until|till|by|since)(?: (?:about|around))?(?: \S+ (?:and|or))?|\d or)"
    r"|\d ?[-–]|[<>≤≥~]) ?$",
    re.IGNORECASE,
)
_LIMITED = re.compile(  # likewise, behind it
    r" or (?:more|less|fewer|so|later|earlier)\b| at (?:least|most)\b| ?\+| ?(?:-|–|to|or) ?\d",
    re.IGNORECASE,
)
_NEARLY = re.compile(
    r"\b(?:about|around|approximately|roughly|nearly|almost|some) $", re.IGNORECASE
)
_EACH = re.compile(r"/| (?:a|an|per|each|every) \w", re.IGNORECASE)  # a rate is no count
_DENIES = re.compile(
    r"\b(?:no|not|never|nor|neither|none|nothing|nowhere|without|hardly|scarcely|barely|cannot|lack\w*"
    r"|avoid\w*|absen(?:t|ce)|except|rather than|instead of|(?:zero|0) (?:times|events|occurrences))\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_OWN_NO = re.compile(  # how the rules say that there is nothing
    rf"\b(?:Nothing followed {ANY} before|No sequence recurs within a day|No night event shows a home"
    r"|No separate work place is seen|No hobby stands out|No leisure behaviour is recorded)",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\b(late morning|early afternoon|morning|afternoon|evening|night)s?\b"
    r"(?! (?:person|starter|commute|event))",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\bL(\d{1,2})\b")
_WORDS = re.compile(
    rf"\b(?:(?P<trait>{TRAITS})|(?P<rhythm>{'|'.join(RHYTHMS)})"
    r"|(?P<regularity>routine-driven|(?:balanced|varied)(?= (?:days?|routines?)\b)))",
    re.IGNORECASE,
)
_WRITTEN = {"once": 1, "twice": 2}


def _slot(catalogue: Catalogue, clock: str) -> int:
    """The slot of HH:MM, also with am or pm; -1 for a time that no day has."""
    hour, minute = map(int, re.findall(r"\d+", clock))
    if half := re.search("[ap]", clock, re.IGNORECASE):
        hour = hour % 12 + 12 * (half[0] in "pP") if 0 < hour < 13 else hour
    if hour > 23 or minute > 59:
        return -1
    return (hour * 60 + minute) * catalogue.slots_per_day // 1440


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(b) for b in re.findall(MARK, text))


def _number(text: str) -> int:
    return _WRITTEN.get(text.lower()) or int(text.replace(",", ""))


def read(catalogue: Catalogue, text: str) -> Reading:
    """Reads a text about a person. Any text may be given; an empty one says nothing."""
    shown = marked(catalogue, text)
    ends = [0, *(match.end() for match in CLAUSE_END.finditer(shown)), len(shown)]
    clauses = [(a, b) for a, b in itertools.pairwise(ends) if not _denies(shown[a:b])]
    said = [
        Said(Claim("behaviours", (int(match[1]),), "named"), *match.span())
        for a, b in clauses
        for match in re.compile(MARK).finditer(shown, a, b)
    ]
    for begin, end in clauses:
        said += (
            Said(claim, begin + start, begin + stop)
            for claim, start, stop in _clause(catalogue, shown[begin:end])
        )
    return Reading(shown, tuple(said))


def _denies(clause: str) -> bool:
    """Whether a clause denies something. How far that reaches is not read: all of it may be denied."""
    return bool(_DENIES.search(_OWN_NO.sub("", clause)))


def _bound(clause: str, start: int, end: int) -> bool:
    """Whether what stands there is a bound, or a part of a range."""
    return bool(_LIMIT.search(clause, 0, start) or _LIMITED.match(clause, end))


def _clause(catalogue: Catalogue, clause: str) -> Iterator[Said]:
    """What a clause says; positions are within it."""
    for match in _WORDS.finditer(clause):
        kind = str(match.lastgroup)
        yield Said(Claim("traits", (), kind, (match[kind].lower(),)), *match.span())
    rest, subjects = clause, []
    for pattern, of in _FORMS:
        for match in pattern.finditer(rest):
            if pattern is _EVENT and _LIMIT.search(rest, 0, match.start()):
                continue
            yield from of(catalogue, match)
            if pattern is _OPENS:  # a time may follow, which is about what opens the day
                continue
            rest = rest[: match.start()] + " " * len(match[0]) + rest[match.end() :]
            if ids := _ids(match[0]):
                subjects.append(_Subject(*match.span(), ids if len(ids) == 1 else (), formed=True))
    subjects += [_Subject(*m.span(), _ids(m[0])) for m in _CHAIN.finditer(rest)]
    named = _Named(rest, sorted(subjects))
    yield from _loose(named)
    yield from _loose_times(catalogue, named)
    for match in _PLACE.finditer(rest):
        subject = named.about(match.start())
        kind = "at" if len(subject.ids) == 1 and not subject.formed else "visited"
        claim = Claim("places", subject.ids if kind == "at" else (), kind, (int(match[1]),))
        yield Said(claim, *match.span(1))


class _Subject(NamedTuple):
    """A behaviour or a chain in a clause; none: nothing is known to be about it."""

    start: int
    end: int
    ids: tuple[int, ...]
    formed: bool = False  # in a form of its own: a count behind it is about it, and nothing else is


class _Named(NamedTuple):
    """A clause without what has a form of its own, and what is named in it."""

    clause: str
    subjects: list[_Subject]

    def about(self, at: int) -> _Subject:
        """What is named last before a position, or first after it."""
        before = [subject for subject in self.subjects if subject.end <= at]
        loose = (subject for subject in self.subjects if not subject.formed)
        return before[-1] if before else next(loose, _Subject(0, 0, ()))

    def counted(self, match: re.Match) -> tuple[int, ...]:
        """What a count is about: what it stands before, is named last, or first; none where it is unclear."""
        ahead = None if match[5] else _OF_NEXT.match(self.clause, match.end())
        if not ahead:
            return self.about(match.start()).ids
        if self.clause.endswith(f"{CLOSE} ", 0, match.start()):
            return ()
        return next(subject.ids for subject in self.subjects if subject.start == ahead.end())


def _loose(named: _Named) -> Iterator[Said]:
    """Chains and counts."""
    for start, end, chain, _ in named.subjects:
        if len(chain) > 1:
            yield Said(Claim("order", chain, "follows"), start, end)
    for match in _COUNT.finditer(named.clause):
        which = next(i for i in (1, 3, 4, 5) if match[i])
        value = tuple(_number(said) for said in (match[which], match[2]) if said)
        subject, start = named.counted(match), match.start(which)
        vague = _NEARLY.search(named.clause, 0, start) or _EACH.match(named.clause, match.end())
        if subject and not vague and not _bound(named.clause, start, match.end()):
            yield Said(Claim("counts", subject, "", value), *match.span(which))


def _loose_times(catalogue: Catalogue, named: _Named) -> Iterator[Said]:
    """Clock times and parts of the day."""
    for pattern in (_TIME, _PART):
        for match in pattern.finditer(named.clause):
            subject = named.about(match.start())
            if subject.formed or not subject.ids or _bound(named.clause, *match.span()):
                continue
            first = (
                named.clause.startswith(" opens the day", subject.end)
                and subject.end <= match.start()
            )
            clocks = (_slot(catalogue, clock) for clock in match.groups() if clock)
            kind, value = (
                ("around", tuple(clocks)) if pattern is _TIME else ("part", (match[1].lower(),))
            )
            yield Said(
                Claim("times", subject.ids, "opens" if first else kind, value), *match.span()
            )


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
