"""Does a text follow the log? The log is edited, and what is no longer true should no longer be said.

Of the true claims of a text some are false of the edited log: they should be gone from the text about it. The
others are still true: they should stay. A writer who is deaf to the log repeats all and has 0 and 1; one who
guesses anew each time has 1 and 0; `follows`, their sum minus 1, is 0 for both.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bua_jax.dialogue import facts
from bua_jax.dialogue.facts import Window
from bua_jax.evaluation.understanding.checks import Ground, holds
from bua_jax.evaluation.understanding.claims import read
from bua_jax.events.schema import Catalogue, History
from bua_jax.events.windows import with_places

_HOURS = 3


class Edit(NamedTuple):
    """What is changed of a history; one that it cannot be done to stays as it is."""

    name: str
    does: Callable[[History, Catalogue], History]


def _most(history: History) -> int:
    """The most frequent behaviour."""
    return facts.ranked(Counter(history.behaviour.tolist()))[0][0]


def _another_behaviour(history: History, catalogue: Catalogue) -> History:
    """The most frequent behaviour becomes one that did not occur, the next in the order of labels."""
    most, size = _most(history), len(catalogue.behaviours)
    seen = {*history.behaviour.tolist()}
    absent = [b for b in ((most + i) % size for i in range(1, size)) if b not in seen]
    if not absent:
        return history
    behaviour = np.where(history.behaviour == most, absent[0], history.behaviour)
    return dataclasses.replace(history, behaviour=behaviour.astype(np.int32))


def _later(history: History, catalogue: Catalogue) -> History:
    """All events three hours later, of their day the last slot at most."""
    later = history.slot + _HOURS * catalogue.slots_per_day // 24
    slot = np.minimum(later, catalogue.slots_per_day - 1).astype(np.int32)
    return dataclasses.replace(history, slot=slot)


def _half_as_often(history: History, catalogue: Catalogue) -> History:
    """Every second event of the most frequent behaviour is left out, never the last event of all."""
    is_most = history.behaviour == _most(history)
    out = is_most & (np.cumsum(is_most) % 2 == 0)
    out[-1] = False
    kept = np.flatnonzero(~out)
    unknown = np.cumsum(history.gap)[
        kept
    ]  # a gap before what is left out is before what follows it
    gap = np.diff(unknown, prepend=unknown[0]) > 0
    columns = {name: column[kept] for name, column in vars(history).items()}
    return with_places(History(**{**columns, "gap": gap}), columns["place_seen"])


def _another_home(history: History, catalogue: Catalogue) -> History:
    """What happened at home at night happened at the place that was most visited but home."""
    if not catalogue.has_places:
        return history
    window = Window(history, catalogue, np.ones(len(catalogue.behaviours)), "")
    home, hours = facts.home(window)[0], np.asarray(window.hours)
    night = (hours < 7) | (hours >= 21)
    others = [p for p, _ in facts.ranked(Counter(window.places)) if p not in (0, home)]
    if not home or not others:
        return history
    seen = dict(zip(window.places, history.place_seen.tolist(), strict=True))
    moved = night & (history.place == home)
    return with_places(history, np.where(moved, seen[others[0]], history.place_seen))


def _last_two_exchanged(history: History, catalogue: Catalogue) -> History:
    if len(history) < 2 or history.gap[-1]:
        return history
    behaviour = history.behaviour.copy()
    behaviour[-2:] = behaviour[-2:][::-1]
    return dataclasses.replace(history, behaviour=behaviour)


EDITS = (
    Edit("another behaviour", _another_behaviour),
    Edit("three hours later", _later),
    Edit("half as often", _half_as_often),
    Edit("another home", _another_home),
    Edit("last two exchanged", _last_two_exchanged),
)


def edited(history: History, catalogue: Catalogue, row: int) -> History:
    """The history of a row of a set, edited; rows take the edits in turn."""
    return EDITS[row % len(EDITS)].does(history, catalogue)


def followed(ground: Ground, row: int, before: str, after: str) -> tuple[int, int, int, int]:
    """(claims that should flip, that did, claims that should stay, that did).

    ground: the window as it was; before, after: texts about it, and about what `edited` makes of it.
    """
    window = ground.window
    changed = edited(window.history, window.catalogue, row)
    now = Ground(dataclasses.replace(window, history=changed))
    true = {claim for claim in read(window.catalogue, before).claims if holds(ground, claim)}
    still = {claim for claim in true if holds(now, claim)}
    said = read(window.catalogue, after).claims
    return len(true - still), len(true - still - said), len(still), len(still & said)
