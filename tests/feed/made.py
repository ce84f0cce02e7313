"""Dialogues of given lengths, and token records that are told apart by their numbers."""

import numpy as np

from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import Dialogue, Round
from tests.dialogue.stores import make_store

STORE = make_store([[(day, 4 * day, day % 3, day % 5, False) for day in range(12)]])


class Letters:
    """A tokenizer with one token per character."""

    im_start, im_end, soft_start, soft, soft_end, vocab_size = 256, 257, 258, 259, 260, 264

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids) -> str:
        return bytes(ids).decode()


def dialogues(lengths: list[int]) -> list[Dialogue]:
    return [
        Dialogue(f"u0:{i}", "train", 1, "hobbies", 0, 10, (Round("hobbies", "What?", "x" * n),))
        for i, n in enumerate(lengths)
    ]


def record(number: int, length: int, events: int, supervised: int = 3) -> TokenRecord:
    """A record whose tokens and events all carry its number."""
    round_ids = np.zeros(length, np.int32)
    round_ids[length - supervised :] = 1
    return TokenRecord(
        np.full(length, number, np.int32),
        round_ids,
        round_ids * 4,
        np.arange(length, dtype=np.int32) % max(1, events),
        np.full((events, 4), number, np.int32),
        1 + number % 8,
    )


def random_records(count: int, seed: int, longest: int = 60) -> list[TokenRecord]:
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(4, longest)), int(rng.integers(0, 20))) for _ in range(count)]
    return [record(i + 1, length, events) for i, (length, events) in enumerate(sizes)]


def dialogues_of(batch, records) -> list[int]:
    """Numbers of the dialogues in a batch, after checking that each is whole and aligned."""
    found = []
    assert {v.dtype for v in batch.values()} == {np.dtype(np.int32)}
    for row in range(len(batch["tokens"])):
        segments, events = batch["segments"][row], batch["event_segments"][row]
        for segment in range(1, segments.max(initial=0) + 1):
            here = np.flatnonzero(segments == segment)
            number = int(batch["tokens"][row, here[0]])
            original = records[number - 1]
            np.testing.assert_array_equal(np.diff(here), 1)
            np.testing.assert_array_equal(batch["tokens"][row, here], original.tokens)
            np.testing.assert_array_equal(batch["round_ids"][row, here], original.round_ids)
            np.testing.assert_array_equal(batch["kinds"][row, here], original.kinds)
            np.testing.assert_array_equal(batch["tasks"][row, here], original.task)
            np.testing.assert_array_equal(batch["positions"][row, here], np.arange(len(here)))
            seen = np.flatnonzero(events == segment)
            np.testing.assert_array_equal(batch["events"][row, seen], original.events)
            if len(seen):
                expected = seen[0] + original.soft_index
                np.testing.assert_array_equal(batch["soft_index"][row, here], expected)
            np.testing.assert_array_equal(batch["event_positions"][row, seen], np.arange(len(seen)))
            found.append(number)
        padding = segments == 0
        for name in ("tokens", "round_ids", "kinds", "tasks"):
            assert not batch[name][row, padding].any()
        # The i-th event of the row is the i-th one in the order of its dialogues.
        assert (np.diff(events[events > 0]) >= 0).all()
    return found
