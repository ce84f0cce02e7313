"""Are the texts true? What an answer to `key_behaviours` states, held against the events it is about.

The form is that of the rules (`dialogue.rules.key_behaviours`), which models are taught: the most frequent
behaviours with their counts, and last `Now Tue 08:30: a, then b.` What is left out, or said in another form,
is wrong.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bua_jax.dialogue.facts import Window, ranked
from bua_jax.events.schema import Catalogue

_NAMED = 3  # frequent behaviours in a reference answer
_NUMBER = re.compile(r" (\d+)\b")


class Statement(NamedTuple):
    """What an answer states: (behaviour, count) of the frequent ones, and the last event's behaviour."""

    frequent: tuple[tuple[int, int], ...]
    last: int | None


def _counted(catalogue: Catalogue, item: str) -> tuple[int, int] | None:
    """(behaviour, count) of `watch video 12 of 40 around 08:00`; of labels that fit, the longest."""
    found = [
        (len(label), b, int(count[1]))
        for b, label in enumerate(catalogue.behaviours)
        if item.startswith(label) and (count := _NUMBER.match(item, len(label)))
    ]
    return max(found)[1:] if found else None


def stated(catalogue: Catalogue, text: str) -> Statement:
    """Reads an answer; what cannot be read is left out."""
    frequent, _, now = text.rpartition(" Now ")
    items = frequent.partition(": ")[2].split("; ")
    counted = [found for item in items if (found := _counted(catalogue, item))]
    events = now.partition(": ")[2].removesuffix(".")
    ends = [
        (len(label), b)
        for b, label in enumerate(catalogue.behaviours)
        if events == label or events.endswith(f", then {label}")
    ]
    return Statement(tuple(counted), max(ends)[1] if ends else None)


def truth(windows: Iterable[Window], texts: Sequence[str]) -> dict[str, float]:
    """Shares of answers, and of counts, that are true.

    last: the last event's behaviour is named as such; top: the first of the frequent behaviours is one that
    no other is more frequent than; counts: of the behaviours that a reference answer names, those with their
    exact count; repeated: answers that name a behaviour twice among the frequent.
    """
    last, top, counts, repeated = [], [], [], []
    for window, text in zip(windows, texts, strict=True):
        said = stated(window.catalogue, text)
        most = ranked(window.counts)[:_NAMED]
        named = [b for b, _ in said.frequent]
        last.append(said.last == window.behaviours[-1])
        top.append(bool(named) and window.counts[named[0]] == most[0][1])
        counts += [dict(said.frequent).get(b) == n for b, n in most]
        repeated.append(len(set(named)) < len(named))
    shares = {"last": last, "top": top, "counts": counts, "repeated": repeated}
    return {"answers": len(last)} | {n: sum(x) / len(x) for n, x in shares.items() if x}
