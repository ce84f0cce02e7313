"""Dialogues as tokens: ChatML, no system turn, soft-token placeholders in the first user turn.

The final user turn may have second ones of the last events (`recall`), in the same brackets.

    <|im_start|>user\\n<|behavior_start|><|behavior|>*L<|behavior_end|>{instruction}<|im_end|>\\n
    <|im_start|>assistant\\n{answer}<|im_end|>\\n<|im_start|>user\\n{next instruction}<|im_end|>\\n

Texts are tokenised piece by piece and special tokens are inserted by id. So supervised spans are
exact, text of a user cannot make a special token, and decoding sees what training saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.rounds import FINAL, Dialogue, kind_id, task_id
from bua_jax.dialogue.text import history_text
from bua_jax.events.schema import Catalogue, History

SOFT_TOKENS = ("sequence", "item", "pooled", "none", "text")
WITHOUT_ENCODER = ("none", "text")
"""Kinds of soft tokens that are none: the history is left out, or spelled out in words."""


class Tokenizer(Protocol):
    """What dialogues need of a tokenizer. `vocab_size` is the number of embedding rows."""

    @property
    def im_start(self) -> int: ...

    @property
    def im_end(self) -> int: ...

    @property
    def soft_start(self) -> int: ...

    @property
    def soft(self) -> int: ...

    @property
    def soft_end(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never parses special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""


@dataclass(frozen=True)
class TokenRecord:
    """A dialogue as tokens. `round_ids` and `kinds` are aligned with the token they belong to."""

    tokens: np.ndarray  # int32[T]
    round_ids: np.ndarray  # int32[T], 1-based round on supervised tokens, else 0
    kinds: np.ndarray  # int32[T], round-kind id on supervised tokens, else 0
    soft_index: (
        np.ndarray
    )  # int32[T], of which event a placeholder is, -1 - event for its second one, else 0
    events: np.ndarray  # int32[L, 4], encoder fields; [0, 4] without soft tokens
    task: int  # 1-based task id


def num_placeholders(history_length: int, soft_tokens: str) -> int:
    """Soft tokens of a history: one per event, one in all (pooled), or none (none, text).

    Raises `ConfigError` for an unknown mode.
    """
    if soft_tokens not in SOFT_TOKENS:
        raise ConfigError(f"soft_tokens={soft_tokens!r} is none of {', '.join(SOFT_TOKENS)}.")
    return {"pooled": 1, "none": 0, "text": 0}.get(soft_tokens, history_length)


def first_instruction(
    instruction: str, catalogue: Catalogue, history: History, soft_tokens: str
) -> str:
    """Text of the first user turn: the history in words before it if that is the kind of soft tokens.

    That is what TALLRec (Bao et al., 2023) reads; no encoder takes part in it.
    """
    if soft_tokens != "text":
        return instruction
    return f"{history_text(catalogue, history)}\n{instruction}"


def recalled(n_soft: int, recall: int) -> list[int]:
    """`soft_index` of the second soft tokens of the last `recall` of `n_soft` events: -1 - i for event i."""
    return [-1 - i for i in range(max(0, n_soft - recall), n_soft)]


def opening(tokenizer: Tokenizer, n_soft: int, instruction: str) -> list[int]:
    """A user turn with `n_soft` placeholders, up to and including the answer's `assistant\\n`."""
    said = [*bracketed(tokenizer, n_soft), *tokenizer.encode(instruction)]
    return [*turn_start(tokenizer), *said, *turn_end(tokenizer)]


def bracketed(tokenizer: Tokenizer, n_soft: int) -> list[int]:
    """`n_soft` placeholders between their brackets; nothing for none."""
    if not n_soft:
        return []
    return [tokenizer.soft_start, *[tokenizer.soft] * n_soft, tokenizer.soft_end]


def turn_start(tokenizer: Tokenizer) -> list[int]:
    """What a user turn begins with."""
    return [tokenizer.im_start, *tokenizer.encode("user\n")]


def turn_end(tokenizer: Tokenizer) -> list[int]:
    """What stands between a user turn's text and the answer."""
    after = tokenizer.encode("\n")
    return [tokenizer.im_end, *after, tokenizer.im_start, *tokenizer.encode("assistant\n")]


def next_turn(tokenizer: Tokenizer, instruction: str, n_soft: int = 0) -> list[int]:
    """Tokens between the `<|im_end|>` of an answer and the first token of the next one."""
    return [*tokenizer.encode("\n"), *opening(tokenizer, n_soft, instruction)]


def label_tokens(tokenizer: Tokenizer, label: str) -> list[int]:
    """Tokens of a label as a final answer: as in running text, after a space.

    Byte-pair tokenizers know words with the space before them; without it a label falls into pieces
    that the base model has hardly ever written.
    """
    return tokenizer.encode(f" {label}")


def encode_dialogue(
    dialogue: Dialogue,
    history: History,
    tokenizer: Tokenizer,
    *,
    soft_tokens: str = "sequence",
    recall: int = 0,
) -> TokenRecord:
    """Tokens of a dialogue; answers and the `<|im_end|>` that ends each are supervised.

    `soft_tokens` is sequence or item (a placeholder per event), pooled (one), none or text (none, and
    the first instruction has the history already: `first_instruction`); `recall` is of how many of the
    last events the final user turn has a second one (`models.projector`). Raises `ConfigError` for another
    kind.
    """
    n_soft = num_placeholders(len(history), soft_tokens)
    tokens: list[int] = []
    round_ids: list[int] = []
    kinds: list[int] = []
    shown: list[int] = []
    for number, turn in enumerate(dialogue.rounds, 1):
        in_turn = [*range(n_soft)] if number == 1 else []
        in_turn += recalled(n_soft, recall) if turn.kind in FINAL else []
        if number == 1:
            prompt = opening(tokenizer, len(in_turn), turn.instruction)
        else:
            prompt = next_turn(tokenizer, turn.instruction, len(in_turn))
        shown += in_turn
        label = turn.kind == "prediction"
        said = label_tokens(tokenizer, turn.answer) if label else tokenizer.encode(turn.answer)
        answer = [*said, tokenizer.im_end]
        tokens += prompt + answer
        round_ids += [0] * len(prompt) + [number] * len(answer)
        kinds += [0] * len(prompt) + [kind_id(turn.kind)] * len(answer)
    events = history.encoder_fields()[: len(history) if n_soft else 0]
    ids = np.asarray(tokens, np.int32)
    soft_index = np.zeros_like(ids)
    soft_index[ids == tokenizer.soft] = shown
    return TokenRecord(
        tokens=ids,
        round_ids=np.asarray(round_ids, np.int32),
        kinds=np.asarray(kinds, np.int32),
        soft_index=soft_index,
        events=events.astype(np.int32),
        task=task_id(dialogue.task),
    )
