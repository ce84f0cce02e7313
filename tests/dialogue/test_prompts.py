"""Token records: spans, stop tokens, placeholders, and agreement with decoding's prompts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.prompts import encode_dialogue, next_turn, num_placeholders, opening
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS, Dialogue, Round
from bua_jax.events.windows import history
from tests.dialogue.stores import make_store
from tests.support.characters import CharTokenizer

TURNS = st.builds(Round, st.sampled_from(ROUND_KINDS), st.text(max_size=20), st.text(max_size=20))

ROWS = [(day, 10 + day, 3, day % 3, False) for day in range(12)]


TOKENIZER = CharTokenizer()
SEEN = history(make_store([ROWS]), 0, len(ROWS))


def dialogue(rounds, task="prediction"):
    return Dialogue("u0:12", "train", 2, task, 0, 12, tuple(rounds))


def test_ids_are_one_based_and_in_the_agreed_order():
    assert ROUND_KINDS.index("key_behaviours") + 1 == 6
    assert TASKS[5:] == ("prediction", "generation", "refinement")


def test_a_dialogue_is_chatml_with_placeholders_in_the_first_user_turn():
    record = encode_dialogue(dialogue([Round("summary", "A?", "b")]), SEEN, TOKENIZER)
    t, char = TOKENIZER, TOKENIZER.encode
    soft = [t.soft_start, *[t.soft] * 12, t.soft_end]
    expected = [t.im_start, *char("user\n"), *soft, *char("A?"), t.im_end, *char("\n")]
    expected += [t.im_start, *char("assistant\n"), *char("b"), t.im_end]
    assert record.tokens.tolist() == expected
    assert record.task == TASKS.index("prediction") + 1
    np.testing.assert_array_equal(record.events, SEEN.encoder_fields())


def written(turn: Round) -> str:
    """An answer as tokens spell it: a predicted label stands after a space, as in running text."""
    return f" {turn.answer}" if turn.kind == "prediction" else turn.answer


@settings(max_examples=100, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=4))
def test_spans_hold_the_answer_and_its_stop_token_exactly(rounds):
    record = encode_dialogue(dialogue(rounds), SEEN, TOKENIZER)
    assert {a.dtype for a in (record.tokens, record.round_ids, record.kinds)} == {np.dtype("int32")}
    for number, turn in enumerate(rounds, 1):
        at = np.flatnonzero(record.round_ids == number)
        assert (np.diff(at) == 1).all()
        span = record.tokens[at].tolist()
        assert span[-1] == TOKENIZER.im_end
        assert TOKENIZER.im_end not in span[:-1]
        assert TOKENIZER.decode(span) == written(turn)
        assert set(record.kinds[at].tolist()) == {ROUND_KINDS.index(turn.kind) + 1}
    np.testing.assert_array_equal(record.kinds == 0, record.round_ids == 0)
    assert (record.tokens == TOKENIZER.soft).sum() == len(SEEN)


@settings(max_examples=50, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=4))
def test_decoding_sees_the_prompts_of_training(rounds):
    tokens = opening(TOKENIZER, len(SEEN), rounds[0].instruction)
    for i, turn in enumerate(rounds):
        tokens += next_turn(TOKENIZER, turn.instruction) if i else []
        tokens += [*TOKENIZER.encode(written(turn)), TOKENIZER.im_end]
    assert tokens == encode_dialogue(dialogue(rounds), SEEN, TOKENIZER).tokens.tolist()


def test_the_final_turn_has_second_tokens_of_the_last_events():
    rounds = [Round("summary", "A?", "b"), Round("patterns", "C?", "d")]
    final = Round("prediction", "E?", "f")
    record = encode_dialogue(dialogue([*rounds, final]), SEEN, TOKENIZER, recall=3)
    tokens = opening(TOKENIZER, 12, "A?") + [*TOKENIZER.encode("b"), TOKENIZER.im_end]
    tokens += next_turn(TOKENIZER, "C?") + [*TOKENIZER.encode("d"), TOKENIZER.im_end]
    tokens += next_turn(TOKENIZER, "E?", 3) + [*TOKENIZER.encode(" f"), TOKENIZER.im_end]
    assert record.tokens.tolist() == tokens
    placeholders = record.tokens == TOKENIZER.soft
    assert record.soft_index[placeholders].tolist() == [*range(12), -10, -11, -12]
    assert not record.soft_index[~placeholders].any()


@pytest.mark.parametrize(
    ("rounds", "mode", "recall", "expected"),
    [
        ([Round("prediction", "E?", "f")], "sequence", 3, 15),
        ([Round("summary", "A?", "b"), Round("patterns", "C?", "d")], "sequence", 3, 12),
        ([Round("summary", "A?", "b"), Round("generation", "E?", "f")], "sequence", 30, 24),
        ([Round("summary", "A?", "b"), Round("generation", "E?", "f")], "pooled", 3, 2),
        ([Round("summary", "A?", "b"), Round("generation", "E?", "f")], "none", 3, 0),
    ],
)
def test_how_many_there_are(rounds, mode, recall, expected):
    record = encode_dialogue(dialogue(rounds), SEEN, TOKENIZER, soft_tokens=mode, recall=recall)
    assert (record.tokens == TOKENIZER.soft).sum() == expected


def test_text_that_spells_a_special_token_stays_text():
    turn = Round("summary", "<|im_end|><|behavior|>", "<|im_start|>")
    tokens = encode_dialogue(dialogue([turn]), SEEN, TOKENIZER).tokens
    assert (tokens == TOKENIZER.im_end).sum() == 2
    assert (tokens == TOKENIZER.soft).sum() == len(SEEN)


@pytest.mark.parametrize(
    ("mode", "placeholders", "events"),
    [("sequence", 12, 12), ("item", 12, 12), ("pooled", 1, 12), ("none", 0, 0), ("text", 0, 0)],
)
def test_soft_token_modes(mode, placeholders, events):
    record = encode_dialogue(
        dialogue([Round("summary", "A?", "b")]), SEEN, TOKENIZER, soft_tokens=mode
    )
    assert num_placeholders(12, mode) == placeholders
    assert (record.tokens == TOKENIZER.soft).sum() == placeholders
    assert (record.tokens == TOKENIZER.soft_start).sum() == (placeholders > 0)
    assert record.events.shape == (events, 4)


def test_unknown_soft_token_mode():
    with pytest.raises(ConfigError, match="soft_tokens='sequences'"):
        num_placeholders(3, "sequences")
