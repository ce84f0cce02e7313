"""Labels of a text as marks, so that what stands between them is plain English whatever the labels are."""

import re
from functools import lru_cache

from bua_jax.dialogue.critic import RHYTHMS
from bua_jax.dialogue.traits import KINDS
from bua_jax.events.schema import WEEKDAYS, Catalogue

OPEN, CLOSE = "\ue000", "\ue001"  # of private use: no label has them
MARK = rf"{OPEN}(\d+){CLOSE}"
ANY = rf"{OPEN}\d+{CLOSE}"
_HEADS = "Most frequent|Frequent|Key"
TRAITS = "|".join(sorted((re.escape(k.trait) for k in KINDS if k.trait), key=len, reverse=True))
DAY = "|".join(day[:3] for day in WEEKDAYS)
_OWN = re.compile(  # words of ours, which a label may share: "food-loving" does not name Food
    rf"(?<!\w)(?:{TRAITS}|{'|'.join(RHYTHMS)}|(?:home|work)(?: place)?(?: is| seems to be)?(?= L\d)"
    rf"|(?:{_HEADS}|Recurring|Repeated|Patterns|Traits|Character|Person|Habits|Anchors)(?=: )"
    rf"|Now (?:{DAY})\b|No night event shows a home|No separate work place is seen|night events"
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
    text = text.replace(OPEN, "").replace(CLOSE, "")
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
        parts += [text[begin:start], f"{OPEN}{b}{CLOSE}"]
        begin = end
    return "".join([*parts, text[begin:]])


def mark_of(behaviour: int) -> str:
    """What stands for a label in a marked text."""
    return f"{OPEN}{behaviour}{CLOSE}"


def plain(catalogue: Catalogue, text: str) -> str:
    """A marked text with labels again."""
    return re.sub(MARK, lambda match: catalogue.behaviours[int(match[1])], text)
