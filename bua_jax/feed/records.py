"""Dialogues to token records, tokenised once and kept in a file."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError
from bua_jax.dialogue.prompts import (
    Tokenizer,
    TokenRecord,
    encode_dialogue,
    first_instruction,
)
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import history
from bua_jax.feed import token_file
from bua_jax.feed.token_file import TokenFile

OVERLONG_LIMIT = 0.01
"""Share of overlong dialogues beyond which skipping them would change the data."""
_PROBES = 16  # dialogues that are tokenised again to see whether a file still holds


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How dialogues about a store become tokens."""

    store: EventStore
    tokenizer: Tokenizer
    soft_tokens: str
    recall: int
    row_length: int

    def record(self, dialogue: Dialogue) -> TokenRecord:
        """The tokens of one dialogue, of whatever length."""
        seen = history(self.store, dialogue.start, dialogue.end)
        first, *others = dialogue.rounds
        text = first_instruction(first.instruction, self.store.catalogue, seen, self.soft_tokens)
        first = dataclasses.replace(first, instruction=text)
        dialogue = dataclasses.replace(dialogue, rounds=(first, *others))
        return encode_dialogue(
            dialogue, seen, self.tokenizer, soft_tokens=self.soft_tokens, recall=self.recall
        )

    def fingerprint(self, dialogues: Sequence[Dialogue]) -> str:
        """Hash of the dialogues and settings; `_PROBES` of them stand for the tokenizer and prompts."""
        digest = hashlib.sha256()
        settings = (self.soft_tokens, self.recall, self.row_length, self.store.fingerprint)
        digest.update(repr(settings).encode())
        for dialogue in dialogues:
            digest.update(repr(dialogue).encode())
        for i in np.linspace(0, len(dialogues) - 1, _PROBES).astype(int):
            record = self.record(dialogues[i])
            for array in (record.tokens, record.round_ids, record.soft_index, record.events):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def token_records(dialogues: Sequence[Dialogue], encoding: Encoding) -> list[TokenRecord]:
    """Tokenises dialogues; those beyond a row's length are counted and skipped, never cut.

    Raises `DataError` if there are no dialogues, more than 1 % are too long, or none is left.
    """
    if not dialogues:
        raise DataError(
            "There are no dialogues to train on or validate with: this split has too few windows. "
            "Lower windows.min_history, or give more people or days."
        )
    named = ((dialogue.sample_id, encoding.record(dialogue)) for dialogue in dialogues)
    return fitting(named, encoding.row_length)


def fitting(named: Iterable[tuple[str, TokenRecord]], row_length: int) -> list[TokenRecord]:
    """Those of some records, each with its name, that a row can hold.

    Raises `DataError` if more than 1 % are too long, or none is left.
    """
    records, count, longest, example = [], 0, 0, ""
    for name, record in named:
        count += 1
        if len(record.tokens) > longest:
            longest, example = len(record.tokens), name
        if len(record.tokens) <= row_length:
            records.append(record)
    skipped = count - len(records)
    if skipped > OVERLONG_LIMIT * count or not records:
        raise DataError(
            f"{skipped} of {count} dialogues are longer than row_length={row_length} "
            f"tokens (the longest, {example}, has {longest}), and at most {OVERLONG_LIMIT:.0%} may "
            f"be left out. Raise row_length in the stage's config to {longest}."
        )
    return records


def kept_records(path: Path, dialogues: Sequence[Dialogue], encoding: Encoding) -> TokenFile:
    """`token_records` through the file at `path`, which is made anew if it is of something else.

    Raises what `token_records` does, and `DataError` for a full disk.
    """
    wanted = encoding.fingerprint(dialogues) if dialogues else ""
    found = None
    if path.is_file():
        try:
            found = TokenFile(path)
        except DataError as error:
            notice(f"{error} It is written anew.")
    if found is None or found.metadata.get("fingerprint") != wanted:
        token_file.write(path, token_records(dialogues, encoding), {"fingerprint": wanted})
        found = TokenFile(path)
    if len(found) < len(dialogues):
        skipped = len(dialogues) - len(found)
        limit = encoding.row_length
        notice(f"skipped {skipped} of {len(dialogues)} dialogues longer than {limit} tokens")
    return found


def check_positions(records: TokenFile, positions: int) -> None:
    """Raises `DataError` if a dialogue is longer than the model's positions."""
    if records.longest() > positions:
        raise DataError(
            f"The longest dialogue has {records.longest()} tokens, but the model has only {positions} "
            "positions (max_position_embeddings). Lower --config.windows.generation_history and "
            "prediction_history, or choose another model."
        )
