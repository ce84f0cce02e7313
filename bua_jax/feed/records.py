"""Dialogues to token records."""

import dataclasses
from collections.abc import Sequence

from bua_jax.console import notice
from bua_jax.dialogue.prompts import (
    Tokenizer,
    TokenRecord,
    encode_dialogue,
    first_instruction,
)
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.errors import DataError
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import history

OVERLONG_LIMIT = 0.01
"""Share of overlong dialogues beyond which skipping them would change the data."""


def token_records(
    dialogues: Sequence[Dialogue],
    store: EventStore,
    tokenizer: Tokenizer,
    *,
    soft_tokens: str,
    recall: int,
    row_length: int,
) -> list[TokenRecord]:
    """Tokenises dialogues; those beyond `row_length` tokens are counted and skipped, never cut.

    Raises `DataError` if there are no dialogues, more than 1 % are too long, or none is left.
    """
    if not dialogues:
        raise DataError(
            "There are no dialogues to train on or validate with: this split has too few windows. "
            "Lower windows.min_history, or give more people or days."
        )
    records, longest, example = [], 0, ""
    for dialogue in dialogues:
        seen = history(store, dialogue.start, dialogue.end)
        first, *others = dialogue.rounds
        text = first_instruction(first.instruction, store.catalogue, seen, soft_tokens)
        first = dataclasses.replace(first, instruction=text)
        dialogue = dataclasses.replace(dialogue, rounds=(first, *others))
        record = encode_dialogue(dialogue, seen, tokenizer, soft_tokens=soft_tokens, recall=recall)
        if len(record.tokens) > longest:
            longest, example = len(record.tokens), dialogue.sample_id
        if len(record.tokens) <= row_length:
            records.append(record)
    skipped = len(dialogues) - len(records)
    if skipped > OVERLONG_LIMIT * len(dialogues) or not records:
        raise DataError(
            f"{skipped} of {len(dialogues)} dialogues are longer than row_length={row_length} "
            f"tokens (the longest, {example}, has {longest}), and at most {OVERLONG_LIMIT:.0%} may "
            f"be left out. Raise row_length in the stage's config to {longest}."
        )
    if skipped:
        notice(f"skipped {skipped} of {len(dialogues)} dialogues longer than {row_length} tokens")
    return records
