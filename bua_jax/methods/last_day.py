"""A generator without a model: the last day once more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bua_jax.events.schema import History
from bua_jax.events.windows import Day
from bua_jax.methods.protocol import ROWS, About, Cases, Generation, Method, Site


def last_day(seen: History) -> Day:
    """The last day of a history, repeated on the weekday after it."""
    rows = np.flatnonzero(seen.day == 0)
    return Day(
        int(seen.weekday[-1] + 1) % 7,
        tuple(seen.slot[rows].tolist()),
        tuple(seen.place[rows].tolist()),
        tuple(seen.behaviour[rows].tolist()),
    )


@dataclass(frozen=True)
class LastDay:
    """Repeats the last day of every case."""

    facts: Mapping[str, Any] = field(default_factory=lambda: {"training_windows": 0})
    rows: int = ROWS

    def generate(self, cases: Cases) -> Generation:
        return Generation([last_day(seen) for seen in cases.histories()])


def _load(site: Site) -> LastDay:
    return LastDay()


METHOD = Method(
    "last_day",
    About(
        "Last day",
        "the last day, repeated",
        ("weekday", "slot", "place", "behaviour"),
        "nothing",
    ),
    load=_load,
    says=("generate",),
)
