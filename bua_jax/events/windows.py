"""Windows: a history and the target that follows it.

A window never crosses users. A history may cross an unknown gap (the flag stays visible); a target
day may not. "Two hours" after an event in slot s are the slots s .. s + 2 h: at half-hour
resolution up to four slots on (two to two and a half hours), at hour resolution up to two slots on
(an event at 14:xx covers through 16:59, two to three hours).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.basics.files import atomic_write, sha256_arrays, sha256_text
from bua_jax.events.schema import NUM_PLACES, EventStore, History

AT_ONCE = 4096
"""Windows whose events are gathered together, which bounds the memory that it takes."""


@dataclass(frozen=True)
class WindowIndex:
    """Positions in an `EventStore`: history events[start:end], target events[end:target_end]."""

    user: np.ndarray  # int32[n]
    start: np.ndarray  # int64[n]
    end: np.ndarray  # int64[n]
    target_end: np.ndarray  # int64[n]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> "WindowIndex":
        return WindowIndex(self.user[rows], self.start[rows], self.end[rows], self.target_end[rows])


@dataclass(frozen=True)
class Day:
    """One day of events; places are ranked by the history before it."""

    weekday: int
    slot: tuple[int, ...]
    place: tuple[int, ...]
    behaviour: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.slot)


def _check(history_length: int, min_history: int) -> None:
    if not 1 <= min_history <= history_length:
        raise ConfigError(
            f"min_history={min_history} and history_length={history_length} cannot work: "
            "expected 1 <= min_history <= history_length."
        )


def _index(
    store: EventStore, user: np.ndarray, end: np.ndarray, target_end: np.ndarray, length: int
) -> WindowIndex:
    start = np.maximum(end - length, store.offsets[user])
    return WindowIndex(user.astype(np.int32), start, end, target_end)


def prediction_windows(
    store: EventStore,
    split: str,
    *,
    history_length: int = 40,
    min_history: int = 10,
) -> WindowIndex:
    """Every position with `min_history` events before it; the target is one event.

    The history is up to `history_length` events; it and the step to the target may cross a gap.
    """
    _check(history_length, min_history)
    users = store.users_of_split(split)
    first, last = store.offsets[users] + min_history, store.offsets[users + 1]
    counts = np.maximum(0, last - first)
    user = np.repeat(users, counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    end = np.repeat(first, counts) + within
    return _index(store, user, end, end + 1, history_length)


def generation_windows(
    store: EventStore, split: str, *, history_length: int = 100, min_history: int = 10
) -> WindowIndex:
    """Histories that end with the last event of a day; the target is the next calendar day.

    Only a day that directly follows (day + 1), holds events and is not behind or cut by a gap is a
    target: nothing recorded is no evidence of nothing done.
    """
    _check(history_length, min_history)
    n = len(store.day)
    owner = np.repeat(np.arange(len(store.users)), np.diff(store.offsets))
    change = np.ones(n, bool)
    if n:
        change[1:] = (np.diff(store.day) != 0) | (np.diff(owner) != 0) | store.gap[1:]
    begin = np.flatnonzero(change)
    stop = np.append(begin[1:], n)
    group_user, group_day, after_gap = owner[begin], store.day[begin], store.gap[begin]
    ends = np.zeros(len(begin), bool)
    if len(begin) > 1:
        ends[1:] = (
            (group_user[1:] == group_user[:-1])
            & (group_day[1:] == group_day[:-1] + 1)
            & ~after_gap[1:]
        )
        cut_by_gap = np.zeros(len(begin), bool)
        cut_by_gap[:-1] = (
            (group_user[1:] == group_user[:-1]) & (group_day[1:] == group_day[:-1]) & after_gap[1:]
        )
        ends &= ~cut_by_gap
    ends &= begin - store.offsets[group_user] >= min_history
    ends &= np.isin(group_user, store.users_of_split(split))
    return _index(store, group_user[ends], begin[ends], stop[ends], history_length)


def sample_windows(windows: WindowIndex, count: int, seed: int) -> WindowIndex:
    """A deterministic draw without replacement, in the original order; 0 or too many keeps all."""
    if count <= 0 or count >= len(windows):
        return windows
    return windows.take(
        np.sort(np.random.default_rng(seed).choice(len(windows), count, replace=False))
    )


def sample_ids(store: EventStore, windows: WindowIndex) -> list[str]:
    """Stable names of windows: user and number of events before the target.

    Draws depend on them. They name the user: what is shown to others has `shown_id`.
    """
    users, before = store.users[windows.user], windows.end - store.offsets[windows.user]
    return [f"{user}:{n}" for user, n in zip(users.tolist(), before.tolist(), strict=True)]


def sample_id(store: EventStore, windows: WindowIndex, row: int) -> str:
    """That of one window."""
    return sample_ids(store, windows.take(np.asarray([row])))[0]


def shown_id(store: EventStore, windows: WindowIndex, row: int) -> str:
    """The window's name in files that are shown to others: `sample_id` without the user's own id."""
    user = int(windows.user[row])
    return f"{store.shown_users[user]}:{int(windows.end[row] - store.offsets[user])}"


def _places(location: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rank by visits, id by first appearance) of `location` int[n, L] >= 0; `valid`: it has one."""
    rows, length = np.arange(len(location))[:, None], location.shape[1]
    code = np.where(valid, location, -1)
    together = np.argsort(code, axis=1, kind="stable")  # visits of a place, in their order
    in_order = code[rows, together]
    begins = np.ones(code.shape, bool)
    begins[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    place = np.cumsum(begins) - 1  # of all rows, one after the other
    visits, first = np.empty_like(together), np.empty_like(together)
    visits[rows, together] = np.bincount(place)[place].reshape(code.shape)
    first[rows, together] = together[begins][place].reshape(code.shape)
    is_first = valid & (first == np.arange(length))
    # Most visits first; ties go to the earlier first visit. Only first visits compete for ranks.
    score = np.where(is_first, visits * length + (length - 1 - np.arange(length)), -1)
    rank = np.empty_like(together)
    rank[rows, np.argsort(-score, axis=1, kind="stable")] = np.arange(1, length + 1)

    def known(of_first: np.ndarray) -> np.ndarray:
        each = of_first[rows, first]
        return np.where(valid & (each <= NUM_PLACES), each, 0).astype(np.int32)

    return known(rank), known(np.cumsum(is_first, axis=1))


def _columns(
    store: EventStore, start: np.ndarray, end: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    """Fields of histories events[start:end] int64[n], each [n, length], left-aligned, zero-padded.

    Nothing at or after `end` is read.
    """
    inside = np.arange(length) < (end - start)[:, None]
    position = np.where(inside, start[:, None] + np.arange(length), start[:, None])
    if store.catalogue.has_places:
        location = store.location[position]
        rank, seen = _places(location, inside & (location >= 0))
    else:
        rank = seen = inside.astype(np.int32)
    day = store.day[position]
    return {
        "day": ((day - store.day[end - 1][:, None]) * inside).astype(np.int32),
        "weekday": store.weekday[position].astype(np.int32) * inside,
        "slot": store.slot[position].astype(np.int32) * inside,
        "behaviour": store.behaviour[position].astype(np.int32) * inside,
        "place": rank,
        "place_seen": seen,
        "gap": store.gap[position] & inside & (np.arange(length) > 0),
    }


def histories(store: EventStore, start: np.ndarray, end: np.ndarray) -> list[History]:
    """The histories events[start:end] of windows. Nothing at or after `end` is read."""
    counts = end - start
    columns = _columns(store, start, end, int(counts.max(initial=0)))
    return [
        History(**{name: column[row, :count] for name, column in columns.items()})
        for row, count in enumerate(counts.tolist())
    ]


def history(store: EventStore, start: int, end: int) -> History:
    """That of one window."""
    return histories(store, np.asarray([start]), np.asarray([end]))[0]


def by_appearance(codes: np.ndarray) -> np.ndarray:
    """int32[n, L]: the places of n histories by order of first appearance, as `History.place_seen` has them.

    codes: int[n, L], equal where they are the same place, 0 where there is none.
    """
    return _places(codes, codes > 0)[1]


def with_places(history: History, codes: np.ndarray) -> History:
    """The history at other places: codes int[L], equal where they are the same place, 0 where it has none."""
    rank, seen = (found[0] for found in _places(codes[None], codes[None] > 0))
    return replace(history, place=rank, place_seen=seen.astype(np.int32))


def target_day(
    store: EventStore, windows: WindowIndex, row: int, seen: History | None = None
) -> Day:
    """The target day of a generation window, its places ranked by the history alone.

    Its events are in the order of the clock, also where clocks are put back. seen: the history, where it
    is at hand.
    """
    start, end, stop = (int(x[row]) for x in (windows.start, windows.end, windows.target_end))
    if store.catalogue.has_places:
        ranked = (seen or history(store, start, end)).place.tolist()
        ranks = dict(zip(store.location[start:end].tolist(), ranked, strict=True))
        place = tuple(ranks.get(code, 0) for code in store.location[end:stop].tolist())
    else:
        place = (1,) * (stop - end)
    events = zip(
        store.slot[end:stop].tolist(), place, store.behaviour[end:stop].tolist(), strict=True
    )
    slots, places, behaviours = zip(*sorted(events, key=lambda event: event[0]), strict=True)
    return Day(int(store.weekday[end]), slots, places, behaviours)


def future_events(store: EventStore, end: int, hours: int) -> slice | None:
    """Positions of the events in the `hours` after the event before `end`.

    None where that span touches an unknown gap or the user's record ends before it is over.
    """
    user = int(store.user_of(np.asarray(end - 1)))
    last = int(store.offsets[user + 1])
    slots = store.catalogue.slots_per_day
    limit = int(store.day[end - 1]) * slots + int(store.slot[end - 1]) + hours * slots // 24
    stop = end
    while stop < last:
        if store.gap[stop]:
            return None
        if int(store.day[stop]) * slots + int(store.slot[stop]) > limit:
            return slice(end, stop)
        stop += 1
    return None


def window_arrays(store: EventStore, windows: WindowIndex, *, length: int) -> dict[str, np.ndarray]:
    """Histories as arrays, left-aligned and zero-padded.

    Returns fields int32[n, length, 4] (`History.encoder_fields`), place_rank int32[n, length],
    gap bool[n, length], day int32[n, length] (0 = last event's day), n_events int32[n],
    target_behaviour int32[n] (of the first target event).
    """
    n = len(windows)
    count = (windows.end - windows.start).astype(np.int32)
    if n and count.max() > length:
        raise ConfigError(f"length={length} is shorter than the longest history ({count.max()}).")
    fields = np.zeros((n, length, 4), np.int32)
    rank = np.zeros((n, length), np.int32)
    gap = np.zeros((n, length), bool)
    day = np.zeros((n, length), np.int32)
    for begin in range(0, n, AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        found = _columns(store, windows.start[rows], windows.end[rows], length)
        names = ("weekday", "slot", "place_seen", "behaviour")
        fields[rows] = np.stack([found[name] for name in names], axis=2)
        rank[rows], gap[rows], day[rows] = found["place"], found["gap"], found["day"]
    target = store.behaviour[np.minimum(windows.end, max(len(store.behaviour) - 1, 0))]
    return {
        "fields": fields,
        "place_rank": rank,
        "gap": gap,
        "day": day,
        "n_events": count,
        "target_behaviour": target.astype(np.int32),
    }


# -- frozen sets: drawn once, kept in a file, and told apart by a fingerprint

_SCHEMA = pa.schema(
    [
        ("user", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("target_end", pa.int64()),
        ("donor", pa.int64()),
    ]
)


@dataclass(frozen=True)
class WindowSet:
    """Windows of one store; `donor` is the row of another person's window, -1 where there is nobody else."""

    windows: WindowIndex
    donor: np.ndarray  # int64[n]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.windows)


def freeze(store: EventStore, windows: WindowIndex, seed: int) -> WindowSet:
    """The set of `windows`, which are ordered by user; donors are drawn by `seed`."""
    donor = draw_donors(windows.user, seed)
    return WindowSet(windows, donor, _fingerprint(store, windows, donor))


def draw_donors(user: np.ndarray, seed: int) -> np.ndarray:
    """For each of the rows of users int[n], ascending, a row of another user int64[n], or -1.

    All rows of others are equally likely.
    """
    first = np.searchsorted(user, user, side="left")
    own = np.searchsorted(user, user, side="right") - first
    others = len(user) - own
    drawn = np.random.default_rng(seed).integers(0, np.maximum(others, 1))
    return np.where(others > 0, np.where(drawn < first, drawn, drawn + own), -1)


def _fingerprint(store: EventStore, windows: WindowIndex, donor: np.ndarray) -> str:
    """Hash of the events, of the windows' positions among them, and of the donors."""
    arrays = {"start": windows.start, "end": windows.end, "target_end": windows.target_end}
    return sha256_text(store.fingerprint + sha256_arrays({**arrays, "donor": donor}))


def write_set(path: str | Path, store: EventStore, frozen: WindowSet) -> None:
    """Writes a row per window, atomically."""
    metadata = {"data": store.fingerprint, "fingerprint": frozen.fingerprint}
    columns = {**vars(frozen.windows), "donor": frozen.donor}
    table = pa.table(columns, schema=_SCHEMA.with_metadata(metadata))
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_set(path: str | Path, store: EventStore) -> WindowSet:
    """Reads what `write_set` wrote.

    Raises `DataError` for a missing, damaged or altered file, `MismatchError` if it is about other events.
    """
    try:
        table = pq.read_table(path)
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        columns = {name: table[name].to_numpy() for name in _SCHEMA.names}
        data, fingerprint = metadata["data"], metadata["fingerprint"]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(
            f"{path} is missing or no set of windows ({error}). Remove its folder and run the same "
            "command again."
        ) from error
    if data != store.fingerprint:
        raise MismatchError(
            f"{path} was drawn from data {data}, but here it is {store.fingerprint}. Remove "
            f"{Path(path).parent} and run the same command again."
        )
    donor = columns.pop("donor")
    frozen = WindowSet(WindowIndex(**columns), donor, fingerprint)
    if _fingerprint(store, frozen.windows, donor) != fingerprint:
        raise DataError(f"{path} was altered after it was written: its fingerprint differs.")
    return frozen
