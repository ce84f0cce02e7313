"""Tokenizers from `tokenizer.json`, as dialogues need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from bua_jax.errors import CheckpointError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class HFTokenizer:
    """A `tokenizers` tokenizer with the ids of ChatML and of the soft tokens.

    The three soft-token ids are rows of the embedding table that the tokenizer does not use, so the
    table is not resized (design, decision 6).
    """

    tokenizer: tokenizers.Tokenizer
    im_start: int
    im_end: int
    soft_start: int
    soft: int
    soft_end: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens written out in it stay text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; ids that the tokenizer does not use are left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)


def load_tokenizer(folder: str | Path, vocab_size: int) -> HFTokenizer:
    """Reads `folder`/tokenizer.json for a model with `vocab_size` embedding rows.

    Raises `CheckpointError` if it is missing or damaged, lacks the ChatML tokens, uses ids beyond the
    table, or leaves fewer than three of its rows free.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json.")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise CheckpointError(f"{path} is not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True  # written-out special tokens stay text
    used = set(tokenizer.get_vocab(with_added_tokens=True).values())
    if max(used) >= vocab_size:
        raise CheckpointError(
            f"{path} uses id {max(used)}, but the model's table has only {vocab_size} rows."
        )
    im_start, im_end = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
    if im_start is None or im_end is None:
        raise CheckpointError(f"{path} lacks {IM_START} or {IM_END}; a ChatML model is needed.")
    free = [i for i in range(vocab_size - 1, -1, -1) if i not in used][:3]
    if len(free) < 3:
        raise CheckpointError(
            f"{path} leaves {len(free)} of {vocab_size} table rows free; the soft tokens need three."
        )
    soft_end, soft, soft_start = free
    return HFTokenizer(tokenizer, im_start, im_end, soft_start, soft, soft_end, vocab_size)


def _byte_of_character() -> dict[str, int]:
    """Inverse of the byte-level alphabet: printable Latin-1 stands for itself, the rest is shifted."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [b for b in range(256) if b not in kept]
    table = {chr(b): b for b in kept}
    return table | {chr(256 + i): b for i, b in enumerate(shifted)}


def token_bytes(tokenizer: HFTokenizer) -> list[bytes | None]:
    """Bytes that each embedding row stands for; None for special tokens and unused rows."""
    table = _byte_of_character()
    found: list[bytes | None] = [None] * tokenizer.vocab_size
    added = set(tokenizer.tokenizer.get_added_tokens_decoder())
    for text, number in tokenizer.tokenizer.get_vocab(with_added_tokens=True).items():
        if number not in added and all(c in table for c in text):
            found[number] = bytes(table[c] for c in text)
    return found
