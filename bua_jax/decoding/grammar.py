"""The grammar of a generated day as an automaton over tokens, compiled once for a label set.

A day is `Tue 07:30 L1 check weather; 08:00 L2 subway` or `Tue nothing`: the given weekday, slots that
do not decrease, places of the history (or other), known behaviours. The line's bytes are lifted to any
tokenizer's vocabulary. A state says which part of the line is being typed and what of it stands already.
Weekday, places and the earliest slot differ by row, so they are guards on the edges; a state's edges
are few, so a step chooses among their tokens alone, inside jit, and never looks at the vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.dialogue.text import NOTHING, place_text
from bua_jax.events.schema import NUM_PLACES, WEEKDAYS, Catalogue

_ANY = 2**30  # a guard that always holds
LAST = b"\x00"  # stands for the stop token


class Tables(NamedTuple):
    """Edges of state s: columns [s, k]; unused ones have latest = -1, so no row may take them."""

    tokens: jax.Array  # int32[S, K]
    target: jax.Array  # int32[S, K]
    latest: jax.Array  # int32[S, K], the latest slot it can lead to; must be >= the row's earliest
    slot: jax.Array  # int32[S, K], the slot of an event that it begins, else -1
    places: jax.Array  # int32[S, K], bit set of places it can lead to
    weekdays: jax.Array  # int32[S, K], bit set of weekdays
    continues: jax.Array  # bool[S, K], leads to one more event


class DayState(NamedTuple):
    """Where the day of each row stands, int32[B] each. `weekdays`, `places`: bit sets of the row."""

    state: jax.Array
    earliest: jax.Array
    events: jax.Array
    weekdays: jax.Array
    places: jax.Array


def start_of(weekday: int, places: Sequence[int]) -> tuple[int, int, int, int, int]:
    """The values of a row's `DayState` before its first token; without places any is allowed."""
    return 0, 0, 0, 1 << weekday, sum(1 << place for place in set(places)) or _ANY - 1


Segments = Mapping[str, Sequence["Option"]]
"""Each segment's complete texts, none a prefix of another; the segment `end` has none.

A text that ends with `LAST` is the whole's last one. What `start` says of the weekday, `first` and `clock` of
the slot and `place` of the place is held against the row's.
"""


class Option(NamedTuple):
    """A complete text of a segment and the segment after it."""

    text: bytes
    following: str
    slot: int = -1
    place: int = -1
    weekday: int = -1
    continues: bool = False


def _segments(catalogue: Catalogue) -> dict[str, list[Option]]:
    """Each segment's texts; none is a prefix of another, since they end in a space, `; ` or the end."""
    after_clock = "place" if catalogue.has_places else "label"
    clocks = [
        Option(f"{catalogue.clock(slot)} ".encode(), after_clock, slot=slot)
        for slot in range(catalogue.slots_per_day)
    ]
    labels = [label.encode() for label in catalogue.behaviours]
    return {
        "start": [
            Option(f"{name[:3]} ".encode(), "first", weekday=day)
            for day, name in enumerate(WEEKDAYS)
        ],
        "first": [*clocks, Option(NOTHING.encode() + LAST, "end")],
        "clock": clocks,
        "place": [
            Option(f"{place_text(place)} ".encode(), "label", place=place)
            for place in range(NUM_PLACES + 1)
        ],
        "label": [Option(text + LAST, "end") for text in labels]
        + [Option(text + b"; ", "clock", continues=True) for text in labels],
        "end": [],
    }


_State = tuple[str, bytes]  # segment, what is typed of it


class _Guards(NamedTuple):
    """What a row must allow for an edge; `slot` as in `Tables`."""

    latest: int = _ANY
    slot: int = -1
    places: int = _ANY - 1
    weekdays: int = _ANY - 1
    continues: bool = False


class _Automaton:
    """Byte-level steps of the grammar."""

    def __init__(self, segments: Segments) -> None:
        self._alive: dict[_State, list[Option]] = {}
        for segment, options in segments.items():
            for option in options:
                for end in range(len(option.text) + 1):
                    self._alive.setdefault((segment, option.text[:end]), []).append(option)

    def step(self, state: _State, guards: _Guards, byte: int) -> tuple[_State, _Guards] | None:
        """After one byte. None if it is illegal, or if a token would reach into a second event.

        Such a token is never needed: its text has a spelling of shorter ones.
        """
        typed = (state[0], state[1] + bytes([byte]))
        alive = self._alive.get(typed)
        if alive is None:
            return None
        slots = [_ANY if option.slot < 0 else option.slot for option in alive]
        if typed[0] in ("clock", "first"):
            if guards.slot >= 0:
                return None
            guards = guards._replace(latest=max(slots))
        if typed[0] == "place":
            guards = guards._replace(places=sum(1 << option.place for option in alive))
        if typed[0] == "start":
            guards = guards._replace(weekdays=sum(1 << option.weekday for option in alive))
        enters = not all(option.continues for option in self._alive[state])
        if enters and all(option.continues for option in alive):
            guards = guards._replace(continues=True)
        if typed[1] == alive[0].text:
            return (alive[0].following, b""), guards._replace(slot=max(guards.slot, alive[0].slot))
        return typed, guards


def compile_day(
    catalogue: Catalogue, vocabulary: Sequence[bytes | None], vocab_size: int, stop: int
) -> Tables:
    """The automaton of a label set for a tokenizer; see `compile_segments`."""
    return compile_segments(_segments(catalogue), "start", vocabulary, vocab_size, stop)


def compile_segments(
    segments: Segments, begin: str, vocabulary: Sequence[bytes | None], vocab_size: int, stop: int
) -> Tables:
    """The automaton of texts that begin in a segment, for a tokenizer; state 0 is the start.

    `vocabulary`: bytes of each token id (None for ids that are no text).
    """
    automaton, trie = _Automaton(segments), _byte_trie(vocabulary[:vocab_size])
    numbers: dict[_State, int] = {(begin, b""): 0}
    queue, edges = [(begin, b"")], []
    for state in queue:  # grows while it is walked
        found: list[tuple[int, _State, _Guards]] = []
        _walk(automaton, trie, state, _Guards(), found)
        end = automaton.step(state, _Guards(), 0)
        if end is not None:
            found.append((stop, *end))
        for _, target, _ in found:
            if target not in numbers:
                numbers[target] = len(queue)
                queue.append(target)
        edges.append([(token, numbers[target], *guards) for token, target, guards in found])
    width = max(map(len, edges))
    table = np.full((len(edges), width, 7), 0, np.int64)
    table[:, :, 2] = -1
    for number, some in enumerate(edges):
        if some:
            table[number, : len(some)] = some
    return Tables._make(
        jnp.asarray(table[:, :, i], bool if name == "continues" else jnp.int32)
        for i, name in enumerate(Tables._fields)
    )


def _walk(automaton: _Automaton, trie: dict, state: _State, guards: _Guards, found: list) -> None:
    """Collects (token, state after it, guards) of all tokens below a node of the vocabulary's trie."""
    for byte, below in trie.items():
        if byte is None:
            continue
        after = automaton.step(state, guards, byte)
        if after is not None:
            found += [(token, *after) for token in below.get(None, [])]
            _walk(automaton, below, *after, found)


def _byte_trie(vocabulary: Sequence[bytes | None]) -> dict:
    """byte -> trie below it; None -> ids of the tokens that end there."""
    root: dict = {}
    for token, text in enumerate(vocabulary):
        if not text or 0 in text:  # byte 0 stands for the stop token
            continue
        node = root
        for byte in text:
            node = node.setdefault(byte, {})
        node.setdefault(None, []).append(token)
    return root


def allowed(tables: Tables, day: DayState, full: jax.Array) -> jax.Array:
    """bool[B, K]: the edges that each row may take; where `full` bool[B], no further event.

    Never all False before the end.
    """
    state = day.state
    legal = tables.latest[state] >= day.earliest[:, None]
    legal &= (tables.places[state] & day.places[:, None]) > 0
    legal &= (tables.weekdays[state] & day.weekdays[:, None]) > 0
    return legal & ~(tables.continues[state] & full[:, None])


def advance(tables: Tables, day: DayState, choice: jax.Array) -> DayState:
    """After edge choice int32[B] of each row."""
    slot = tables.slot[day.state, choice]
    begins = slot >= 0
    return day._replace(
        state=tables.target[day.state, choice],
        earliest=jnp.where(begins, slot, day.earliest),
        events=day.events + begins,
    )


def longest_event(catalogue: Catalogue) -> int:
    """Bytes of the longest event with what is around it: what finishing one may take."""
    segments = _segments(catalogue)
    parts = (
        ("start", "clock", "place", "label")
        if catalogue.has_places
        else ("start", "clock", "label")
    )
    return sum(max(len(option.text) for option in segments[part]) for part in parts)
