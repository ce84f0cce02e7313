"""What every system of the paper's tables implements, and all that it may see."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, overload

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Legal
from bua_jax.events.schema import EventStore, History
from bua_jax.events.windows import Day, WindowIndex, shown_id, window_arrays

ROWS = 4096
"""Cases that a method without a model is asked about at once."""

# ------------------------------------------------------------------------------- what is asked about


@dataclass(frozen=True)
class Histories:
    """Histories as arrays, without their targets: see `window_arrays`."""

    fields: np.ndarray  # int32[n, L, 4]: weekday, slot, place by first appearance, behaviour
    place_rank: np.ndarray  # int32[n, L]: by visits, 1 the most
    day: np.ndarray  # int32[n, L]: 0 is that of the last event, those before are negative
    n_events: np.ndarray  # int32[n]

    def __len__(self) -> int:
        return len(self.n_events)

    def last(self, field: int) -> np.ndarray:
        """int32[n]: a field of the last event."""
        return self.fields[np.arange(len(self)), self.n_events - 1, field]


@dataclass(frozen=True)
class Case:
    """One question: all that a method may see of a window."""

    sample_id: str
    user: str
    history: History
    weekday: int | None = None  # of the target, where it is told
    slot: int | None = None  # likewise
    notes: Mapping[str, str] = field(default_factory=dict)  # another method's texts, by round
    predicted: Mapping[str, np.ndarray] = field(default_factory=dict)  # as `Cases.predicted`


@dataclass(frozen=True)
class Cases(Sequence[Case]):
    """Cases as columns; their names are those that are shown to others (`shown_id`)."""

    sample_id: tuple[str, ...]
    user: tuple[str, ...]
    arrays: Histories
    gap: np.ndarray  # bool[n, L]
    weekday: np.ndarray  # int8[n], -1 = not told
    slot: np.ndarray  # int16[n], -1 = not told
    notes: tuple[Mapping[str, str], ...] = ()  # of every case, or of none
    predicted: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # float[n, C] by other methods

    def __len__(self) -> int:
        return len(self.sample_id)

    @overload
    def __getitem__(self, row: int) -> Case: ...
    @overload
    def __getitem__(self, row: slice) -> "Cases": ...
    def __getitem__(self, row: int | slice) -> "Case | Cases":
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        weekday, slot = int(self.weekday[row]), int(self.slot[row])
        return Case(
            self.sample_id[row],
            self.user[row],
            self._history(row),
            None if weekday < 0 else weekday,
            None if slot < 0 else slot,
            self.notes[row] if self.notes else {},
            {name: p[row] for name, p in self.predicted.items()},
        )

    def take(self, rows: np.ndarray) -> "Cases":
        """The cases at `rows` int[m], in that order."""
        seen = self.arrays
        return Cases(
            tuple(self.sample_id[i] for i in rows),
            tuple(self.user[i] for i in rows),
            Histories(
                seen.fields[rows], seen.place_rank[rows], seen.day[rows], seen.n_events[rows]
            ),
            self.gap[rows],
            self.weekday[rows],
            self.slot[rows],
            tuple(self.notes[i] for i in rows) if self.notes else (),
            {name: p[rows] for name, p in self.predicted.items()},
        )

    def with_notes(self, notes: Sequence[Mapping[str, str]]) -> "Cases":
        """The same cases with texts about their people."""
        return dataclasses.replace(self, notes=tuple(notes))

    def with_histories(self, histories: Sequence[History]) -> "Cases":
        """The same cases about other histories, none longer than the longest that these may have."""
        size = self.arrays.fields.shape[:2]
        fields = np.zeros((*size, 4), np.int32)
        rank, day, gap = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, bool)
        for row, one in enumerate(histories):
            inside = slice(len(one))
            fields[row, inside] = one.encoder_fields()
            rank[row, inside], day[row, inside], gap[row, inside] = one.place, one.day, one.gap
        count = np.asarray([len(one) for one in histories], np.int32)
        return dataclasses.replace(self, arrays=Histories(fields, rank, day, count), gap=gap)

    def histories(self) -> list[History]:
        """The history of each case."""
        return [self._history(row) for row in range(len(self))]

    def _history(self, row: int) -> History:
        seen, n = self.arrays, int(self.arrays.n_events[row])
        weekday, slot, place_seen, behaviour = seen.fields[row, :n].T
        day, place = seen.day[row, :n], seen.place_rank[row, :n]
        return History(day, weekday, slot, behaviour, place, place_seen, self.gap[row, :n])


def cases_of(
    store: EventStore,
    windows: WindowIndex,
    length: int,
    *,
    told: str = "nothing",
) -> Cases:
    """The questions that windows of at most `length` events ask.

    told: what the cases say of the target's time: nothing, weekday or time (both).
    """
    found = window_arrays(store, windows, length=length)
    seen = Histories(found["fields"], found["place_rank"], found["day"], found["n_events"])
    unknown = np.full(len(windows), -1)
    return Cases(
        tuple(shown_id(store, windows, row) for row in range(len(windows))),
        tuple(store.shown_users[user] for user in windows.user),
        seen,
        found["gap"],
        unknown if told == "nothing" else store.weekday[windows.end],
        store.slot[windows.end] if told == "time" else unknown,
    )


def window_counts(histories: Histories, classes: int) -> np.ndarray:
    """float64[n, C]: events of each behaviour in each history."""
    n, length = histories.fields.shape[:2]
    inside = np.arange(length) < histories.n_events[:, None]
    flat = np.arange(n)[:, None] * classes + histories.fields[:, :, 3]
    return np.bincount(flat[inside], minlength=n * classes).reshape(n, classes).astype(float)


class Labelled(NamedTuple):
    """Cases and their next behaviours."""

    cases: Cases
    target: np.ndarray  # int32[n]

    def named(self, names: Sequence[str]) -> "Labelled":
        """Those of these names (`sample_id`), in that order."""
        row_of = {name: row for row, name in enumerate(self.cases.sample_id)}
        rows = np.asarray([row_of[name] for name in names], int)
        return Labelled(self.cases.take(rows), self.target[rows])


@dataclass(frozen=True)
class Data:
    """What a method is fitted on: training and validation people only; test people arrive as cases."""

    store: EventStore
    draw: Callable[[str], Labelled]  # one of the method's `fit_sets`

    @cached_property
    def train(self) -> Labelled:
        """Cases of training people; made when they are asked for."""
        return self.draw("fit_train")

    @cached_property
    def validation(self) -> Labelled:
        """Cases of validation people."""
        return self.draw("fit_validation")


# ----------------------------------------------------------------------------- where a method works


class Built(NamedTuple):
    """A finished step that a method needs."""

    folder: Path
    settings: ConfigDict  # the fields that it was built with
    result: Mapping[str, Any]  # what its builder says of it


@dataclass(frozen=True)
class Site:
    """Where a method works: it reads nothing else, and writes into `folder` alone."""

    config: Settings  # `seed`, `execution` and what the method declares
    folder: Path  # of its fit
    inputs: Mapping[str, Built]  # the steps that it needs, by name


# ---------------------------------------------------------------------------------- what it answers


class Prediction(NamedTuple):
    """What comes next in each of n cases."""

    label: np.ndarray  # int16[n]; -1 = no label could be read
    probability: np.ndarray | None = None  # float[n, C], rows sum to 1; None: it only names labels
    text: Sequence[Mapping[str, str]] | None = None  # what it wrote about each history, by round
    cut: Sequence[int] | None = None  # rounds of each that ended at the limit of tokens


class Generation(NamedTuple):
    """The next day of each of n cases."""

    days: Sequence[Day]
    written: Sequence[str] | None = None  # the lines that were read as days
    invalid: Sequence[int] | None = None  # pieces of them that could not be read
    text: Sequence[Mapping[str, str]] | None = None
    cut: Sequence[int] | None = None


class Description(NamedTuple):
    """Texts about the people of n cases, by round."""

    text: Sequence[Mapping[str, str]]
    cut: Sequence[int] | None = None


class Asked(Protocol):
    """A method that is ready; an object may predict, generate and describe."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is shown beside its row, such as `training_windows`."""
        ...

    @property
    def rows(self) -> int:
        """Cases that it is asked about at once: what a kill loses at most."""
        ...


class Predictor(Asked, Protocol):
    """Ties are broken by label order."""

    def predict(self, cases: Cases) -> Prediction:
        """What comes next in each case."""
        ...


class Generator(Asked, Protocol):
    """Days are drawn from (seed, sample_id)."""

    def generate(self, cases: Cases) -> Generation:
        """The next day of each case."""
        ...


class Describer(Asked, Protocol):
    """Writes about people."""

    def describe(self, cases: Cases) -> Description:
        """Texts about the person of each case."""
        ...


Kind = Literal["predict", "generate", "describe"]


@dataclass(frozen=True)
class About:
    """Printed beside a method's row, and held against what it does."""

    title: str
    source: str
    sees: tuple[str, ...]  # fields of an event that it reads
    trained_on: Literal["nothing", "events", "windows", "dialogues"]
    sends_logs: bool = False  # to another machine, which takes consent
    writes: tuple[str, ...] = (
        "slot",
        "place",
        "behaviour",
    )  # of a day: the rest of it is not scored


def no_needs(config: Settings) -> tuple[str, ...]:
    """The needs of a method that is built from no other step."""
    return ()


def no_check(config: Settings) -> None:
    """The check of a method that needs nothing but what the chain builds."""


@dataclass(frozen=True)
class Notes:
    """Which texts a method's cases carry: what another method wrote about the same set, by round."""

    by: str = ""  # the method that wrote them; empty: there are none
    another: bool = False  # about another person each, that of the set's donor: a placebo
    summary: bool = False  # the summary alone, and none where it states the next step


NO_NOTES = Notes()


@dataclass(frozen=True)
class Method:
    """A row of the tables: a record of functions.

    Its page in configs/methods and `seed` need no declaration: what has a `fit` reads them there, what
    has none when it is loaded.
    """

    name: str
    about: About
    load: Callable[[Site], Any]  # Predictor, Generator or Describer, by `says`
    says: tuple[Kind, ...] = ("predict",)
    fit: Callable[[Site, Data], Mapping[str, Any]] | None = None  # resumable in site.folder; facts
    fit_sets: tuple[str, ...] = ()  # of `Data`, that `fit` draws; none of test people
    page: str = ""  # its page, where that is another method's
    files: tuple[str, ...] = ()  # of site.folder: what `fit` leaves for `load`
    needs: Callable[[Settings], tuple[str, ...]] = no_needs  # steps: "encoder", "stage3"
    check: Callable[[Settings], None] = no_check  # before anything is built for it; a `ConfigError`
    notes: Notes = NO_NOTES  # that its cases carry, where it is fitted and where it is asked
    predicted_by: tuple[str, ...] = ()  # methods whose predictions about it they carry: `predicted`
    legal: Mapping[str, Legal] = field(default_factory=dict)  # values of its page's fields
    fit_reads: tuple[str, ...] = ()  # other fields that `fit` and `needs` read
    reads: tuple[str, ...] = ()  # other fields that are read when it is asked
    reads_for: Mapping[Kind, tuple[str, ...]] = field(
        default_factory=dict
    )  # and for one kind alone


@dataclass(frozen=True)
class Counted:
    """A predictor whose answer is a function of arrays: p(histories) -> float[n, C]."""

    probabilities: Callable[[Histories], np.ndarray]
    facts: Mapping[str, Any]
    rows: int = ROWS

    def predict(self, cases: Cases) -> Prediction:
        """The likeliest label of each case, and its distribution."""
        p = self.probabilities(cases.arrays)
        return Prediction(p.argmax(1).astype(np.int16), p)
