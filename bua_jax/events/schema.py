"""What an event is, what its ids mean, and the two views of events: the store and a history."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics.errors import DataError
from bua_jax.basics.files import atomic_write, sha256_arrays, sha256_text
from bua_jax.events.names import WRITABLE, writable

SLOTS_PER_DAY = (24, 48)
"""Resolutions of the clock: hours and half-hours."""
NUM_PLACES = 10
"""Places a model can tell apart in a history: ids 1..10 (L1..L10); 0 is "other"."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SPLITS = ("train", "validation", "test")

# Ids and offsets are in the file's metadata, which pyarrow reads up to 100 MB of unless told otherwise.
_UNLIMITED: dict[str, Any] = dict.fromkeys(
    ("thrift_string_size_limit", "thrift_container_size_limit"), 2**31 - 1
)
_COLUMNS = {
    "day": np.int32,
    "weekday": np.int8,
    "slot": np.int16,
    "location": np.int32,
    "behaviour": np.int16,
    "gap": np.bool_,
}


@dataclass(frozen=True)
class Catalogue:
    """What the ids of a data set mean: its label set, clock and whether it has places.

    `behaviours` has a fixed order that does not depend on frequency; a behaviour id is its index.
    Raises `DataError` for labels that the text form of events cannot carry.
    """

    behaviours: tuple[str, ...]
    slots_per_day: int
    has_places: bool
    has_dates: bool = True

    def __post_init__(self) -> None:
        if not self.behaviours:
            raise DataError("The label set is empty; expected at least one behaviour.")
        for label in self.behaviours:
            spaced = label != label.strip() or not label
            if spaced or any(c in label for c in ";<>|") or not writable(label):
                raise DataError(
                    f"Behaviour label {label[:80]!r} cannot be written in a dialogue: expected "
                    f"{WRITABLE}, without surrounding spaces, ';', '<', '>' or '|'. Rename it."
                )
        if len(set(self.behaviours)) != len(self.behaviours):
            raise DataError("The label set names a behaviour twice.")
        if self.slots_per_day not in SLOTS_PER_DAY:
            raise DataError(f"slots_per_day is {self.slots_per_day}, expected 24 or 48.")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Catalogue":
        values = json.loads(text)
        return cls(**{**values, "behaviours": tuple(values["behaviours"])})

    def fingerprint(self) -> str:
        """Short hash of the label set; models carry it and refuse another one."""
        return sha256_text(self.to_json())

    def clock(self, slot: int) -> str:
        """Start of a slot as `HH:MM`."""
        return self._clocks[slot]

    @cached_property
    def _clocks(self) -> tuple[str, ...]:
        minutes = range(0, 1440, 1440 // self.slots_per_day)
        return tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in minutes)


@dataclass(frozen=True)
class EventStore:
    """All events of a data set, columnar, sorted by user and then by time.

    Events of user u are positions `offsets[u]:offsets[u + 1]`. `location` codes raw areas (-1 =
    none or dropped) and never reaches a model. `day` is an elapsed-day number, non-decreasing
    within a user; where `gap` is set, an unknown time passed before that event.
    """

    catalogue: Catalogue
    users: np.ndarray  # str[U]
    split: np.ndarray  # int8[U], index into SPLITS
    offsets: np.ndarray  # int64[U + 1]
    day: np.ndarray  # int32[N]
    weekday: np.ndarray  # int8[N], 0 = Monday
    slot: np.ndarray  # int16[N]
    location: np.ndarray  # int32[N]
    behaviour: np.ndarray  # int16[N]
    gap: np.ndarray  # bool[N]
    fingerprint: str = ""

    def columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def with_fingerprint(self) -> "EventStore":
        """The same store with the hash of its content filled in."""
        arrays = {**self.columns(), "offsets": self.offsets, "split": self.split}
        arrays["users"] = np.frombuffer("\n".join(map(str, self.users)).encode(), np.uint8)
        digest = sha256_text(sha256_arrays(arrays) + self.catalogue.fingerprint())
        return dataclasses.replace(self, fingerprint=digest)

    def renamed(self, words: Mapping[str, str]) -> "EventStore":
        """The same events with labels in other words, as they shall be read and written.

        words: label -> words, of some or all labels; labels of the same words become one. Raises `DataError`
        for words that no label can be.
        """
        given = [words.get(label, label) for label in self.catalogue.behaviours]
        labels = tuple(dict.fromkeys(given))
        code = np.asarray([labels.index(label) for label in given], np.int16)
        catalogue = dataclasses.replace(self.catalogue, behaviours=labels)
        return dataclasses.replace(
            self, catalogue=catalogue, behaviour=code[self.behaviour]
        ).with_fingerprint()

    @cached_property
    def shown_users(self) -> list[str]:
        """A name for each user in files that are shown to others.

        It is the same for the same store, and tells nothing to who has not the store's events: a hash of
        the user's id with all of them.
        """
        key = sha256_arrays({**self.columns(), "offsets": self.offsets})
        return [sha256_text(f"{key}|{user}") for user in self.users]

    def user_of(self, positions: np.ndarray) -> np.ndarray:
        """Index of the user who owns each event position."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    def users_of_split(self, split: str) -> np.ndarray:
        """Indices of the users of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def save(self, path: str | Path) -> None:
        """Writes one parquet file (a row per event), the catalogue in its metadata, atomically."""
        counts = np.diff(self.offsets)
        user = pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(np.arange(len(self.users), dtype=np.int32), counts)),
            pa.array([str(u) for u in self.users]),
        )
        table = pa.table({"user": user, **{k: pa.array(v) for k, v in self.columns().items()}})
        metadata = {
            "catalogue": self.catalogue.to_json(),
            "fingerprint": self.fingerprint,
            "split": json.dumps(self.split.tolist()),
            "users": json.dumps([str(u) for u in self.users], ensure_ascii=False),
            "offsets": json.dumps(self.offsets.tolist()),
        }
        table = table.replace_schema_metadata(metadata)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: str | Path) -> "EventStore":
        """Reads what `save` wrote. Raises `DataError` for a missing, damaged or foreign file."""
        path = Path(path)
        try:
            table = pq.read_table(path, **_UNLIMITED)
            metadata: dict[str, Any] = {
                key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
            }
            store = cls(
                catalogue=Catalogue.from_json(metadata["catalogue"]),
                users=np.asarray(json.loads(metadata["users"])),
                split=np.asarray(json.loads(metadata["split"]), np.int8),
                offsets=np.asarray(json.loads(metadata["offsets"]), np.int64),
                fingerprint=metadata["fingerprint"],
                **{k: table[k].to_numpy().astype(t) for k, t in _COLUMNS.items()},
            )
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise DataError(
                f"{path} is not an event store of bua_jax or is damaged ({error}). Remove its "
                "folder and run the same command again to rebuild it."
            ) from error
        if store.with_fingerprint().fingerprint != store.fingerprint:
            raise DataError(f"{path} was altered after it was written: its fingerprint differs.")
        return store


@dataclass(frozen=True)
class History:
    """All that a model or an annotator may see of a window; nothing of the target is in here."""

    day: np.ndarray  # int32[L], 0 = day of the last event, earlier days negative
    weekday: np.ndarray  # int32[L]
    slot: np.ndarray  # int32[L]
    behaviour: np.ndarray  # int32[L]
    place: np.ndarray  # int32[L], rank by visits within this history: 1..10, 0 = other
    place_seen: np.ndarray  # int32[L], id by order of first appearance: 1..10, 0 = beyond ten
    gap: np.ndarray  # bool[L], gap[0] is False

    def __len__(self) -> int:
        return len(self.slot)

    def encoder_fields(self) -> np.ndarray:
        """int32[L, 4]: weekday, slot, place by first appearance, behaviour."""
        return np.stack([self.weekday, self.slot, self.place_seen, self.behaviour], axis=1)
