"""The grammar of a generated day, at the level of bytes, lifted to any tokenizer's vocabulary.

A day is `Tue 07:30 L1 check weather; 08:00 L2 subway` or `Tue nothing`: the given weekday, slots that
do not decrease, places of the history (or other), known behaviours. A state is a segment of the line,
the bytes typed in it, and the earliest legal slot; the tokens that keep a state alive are found by
walking the vocabulary's byte trie and are cached, so constrained output always parses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bua_jax.dialogue.text import place_text
from bua_jax.events.schema import WEEKDAYS, Catalogue


class State(NamedTuple):
    """Where a day stands. `segment`: start, clock, place, label or end."""

    segment: str
    typed: bytes
    slot: int  # earliest legal slot
    events: int  # begun so far


Trie = dict  # byte -> Trie; None -> list of token ids that end here


class DayGrammar:
    """Grammar of one row: its weekday and its places. Immutable but for its cache of masks.

    `vocabulary`: bytes of each token id (None for ids that are no text); `stop`: id of the stop token.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        trie: Trie,
        vocab_size: int,
        stop: int,
        weekday: int,
        places: Sequence[int],
        max_events: int,
    ) -> None:
        self._catalogue, self._trie, self._size, self._stop = catalogue, trie, vocab_size, stop
        self._max_events = max_events
        name = WEEKDAYS[weekday][:3]
        self._weekday = f"{name} ".encode()
        self._clocks = [
            f"{catalogue.clock(slot)} ".encode() for slot in range(catalogue.slots_per_day)
        ]
        self._places = [f"{place_text(place)} ".encode() for place in sorted(set(places))]
        self._labels = [label.encode() for label in catalogue.behaviours]
        self._masks: dict[tuple, np.ndarray] = {}

    def initial(self) -> State:
        return State("start", b"", 0, 0)

    def _options(self, state: State) -> list[tuple[bytes, State]]:
        """Complete strings of the segment and the state after each; prefix-free."""
        if state.segment == "start":
            return [(self._weekday, State("clock", b"", 0, 0))]
        if state.segment == "clock":
            after = "place" if self._catalogue.has_places else "label"
            options = [
                (text, State(after, b"", slot, state.events + 1))
                for slot, text in enumerate(self._clocks)
                if slot >= state.slot
            ]
            nothing = (b"nothing\x00", State("end", b"", 0, 0))
            return options if state.events else [*options, nothing]
        if state.segment == "place":
            after_place = State("label", b"", state.slot, state.events)
            return [(text, after_place) for text in self._places]
        if state.segment == "label":
            options = [
                (text + b"\x00", State("end", b"", state.slot, state.events))
                for text in self._labels
            ]
            if state.events < self._max_events:
                following = State("clock", b"", state.slot, state.events)
                options += [(text + b"; ", following) for text in self._labels]
            return options
        return []

    def _step(self, state: State, byte: int) -> State | None:
        """The state after one byte (0 stands for the stop token), or None."""
        typed = state.typed + bytes([byte])
        alive = False
        for text, after in self._options(state):
            if text == typed:
                return after
            alive = alive or text.startswith(typed)
        return state._replace(typed=typed) if alive else None

    def advance(self, state: State, text: bytes) -> State | None:
        """The state after a token's bytes; the stop token's are b"\\x00". None if illegal."""
        current: State | None = state
        for byte in text:
            if current is None:
                return None
            current = self._step(current, byte)
        return current

    def event_bytes(self) -> int:
        """Length of the longest event: what finishing one may take."""
        longest = (max(map(len, part), default=0) for part in (self._clocks, self._places))
        return sum(longest) + max(map(len, self._labels)) + len(self._weekday)

    def mask(self, state: State, *, closing: bool = False) -> np.ndarray:
        """bool[V]: the tokens that may follow; with `closing` no further event is begun.

        Never empty before the end.
        """
        if closing:
            state = state._replace(events=max(state.events, self._max_events))
        full = state.events >= self._max_events
        key = (state.segment, state.typed, state.slot, full, state.events == 0)
        if key not in self._masks:
            allowed = np.zeros(self._size, bool)
            self._walk(state, self._trie, allowed)
            if self._step(state, 0) is not None:
                allowed[self._stop] = True
            self._masks[key] = allowed
        return self._masks[key]

    def _walk(self, state: State, trie: Trie, allowed: np.ndarray) -> None:
        for byte, below in trie.items():
            if byte is None:
                continue
            after = self._step(state, byte)
            if after is not None:
                allowed[below.get(None, [])] = True
                self._walk(after, below, allowed)


def byte_trie(vocabulary: Sequence[bytes | None]) -> Trie:
    """The trie of a vocabulary's byte strings."""
    root: Trie = {}
    for token, text in enumerate(vocabulary):
        if not text or 0 in text:  # byte 0 stands for the stop token
            continue
        node = root
        for byte in text:
            node = node.setdefault(byte, {})
        node.setdefault(None, []).append(token)
    return root
