"""Dialogues become token records whole, or not at all."""

import numpy as np
import pytest

from bua_jax.basics.errors import DataError
from bua_jax.dialogue.prompts import encode_dialogue
from bua_jax.dialogue.text import history_text
from bua_jax.events.windows import history
from bua_jax.feed.records import Encoding, token_records
from tests.feed.made import STORE, Letters, dialogues


def records(lengths: list[int], row_length: int, soft_tokens: str = "sequence"):
    return token_records(dialogues(lengths), Encoding(STORE, Letters(), soft_tokens, 0, row_length))


def test_as_the_prompts_have_them() -> None:
    (found,) = records([5], 200)
    expected = encode_dialogue(dialogues([5])[0], history(STORE, 0, 10), Letters())
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.round_ids, expected.round_ids)
    assert (found.round_ids > 0).sum() == 6  # the answer and its stop token
    assert found.events.shape == (10, 4)


def test_a_history_in_words_stands_before_the_first_instruction() -> None:
    (found,) = records([5], 500, "text")
    (without,) = records([5], 500, "none")
    words = history_text(STORE.catalogue, history(STORE, 0, 10)) + "\n"
    at = without.tokens.tolist().index(ord("W"))  # of the instruction "What?"
    assert found.tokens.tolist() == [
        *without.tokens[:at],
        *words.encode(),
        *without.tokens[at:],
    ]
    assert found.events.shape == (0, 4)
    assert (found.round_ids > 0).sum() == (without.round_ids > 0).sum()


def test_the_limit_is_the_row() -> None:
    length = len(records([5], 500)[0].tokens)
    assert len(records([5] * 100, length)) == 100
    assert len(records([5] * 99 + [6], length)) == 99  # 1 % may be left out
    with pytest.raises(DataError, match=r"2 of 100 dialogues .* u0:99, has .* Raise row_length"):
        records([5] * 98 + [6, 7], length)
    with pytest.raises(DataError, match="1 of 1 dialogues"):
        records([6], length)


def test_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="There are no dialogues"):
        records([], 100)
