"""The hybrid prompt: what stands where, that BUA's source makes BUA's records, and candidates one by one."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bua_jax.dialogue.hybrid import SOURCES, Known, Prompts, distribution, record, records
from bua_jax.dialogue.prompts import TokenRecord, label_tokens
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.dialogue.tasks import prediction_instruction
from bua_jax.dialogue.text import history_pieces, history_text
from bua_jax.events.schema import Catalogue, History
from bua_jax.events.windows import history
from bua_jax.feed.records import Encoding
from tests.dialogue.stores import LABELS, make_store
from tests.support.characters import CharTokenizer

TOKENIZER = CharTokenizer()
ROWS = [(0, 10, 3, 1, False), (0, 12, 4, 0, False), (2, 20, 3, 7, True), (2, 20, 3, 2, True)]
STORE = make_store([ROWS])
SEEN = history(STORE, 0, len(ROWS))
MARKS = {0x110000: "{", 0x110001: "}", 0x110002: "<", 0x110003: "*", 0x110004: ">"}


def prompts(source: str, catalogue: Catalogue = STORE.catalogue, drill: str = "") -> Prompts:
    return Prompts(TOKENIZER, catalogue, SOURCES[source], drill)


def shown(tokens: Any) -> str:
    return "".join(MARKS.get(i) or chr(i) for i in map(int, tokens))


def same(one: TokenRecord, other: TokenRecord) -> None:
    for field in dataclasses.fields(TokenRecord):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("has_places", [True, False])
def test_pieces_joined_are_the_history_in_words(has_places: bool) -> None:
    store = make_store([ROWS], has_places=has_places)
    pieces = history_pieces(store.catalogue, history(store, 0, len(ROWS)))
    assert len(pieces) == len(ROWS)
    assert "".join(pieces) == history_text(store.catalogue, history(store, 0, len(ROWS)))
    assert all(piece.endswith(LABELS[row[3]]) for piece, row in zip(pieces, ROWS, strict=True))


@pytest.mark.parametrize("drill", ["", "What was last?"])
@pytest.mark.parametrize(("source", "kind"), [("states", "sequence"), ("none", "text")])
def test_with_buas_source_a_record_is_buas(source: str, kind: str, drill: str) -> None:
    """Of the final round alone, without second soft tokens; and without soft tokens that of its words."""
    question = prediction_instruction(STORE.catalogue, drill=drill)
    final = Round("prediction", question, LABELS[5])
    told = Dialogue("u0:4", "train", 2, "prediction", 0, len(ROWS), (final,))
    expected = Encoding(STORE, TOKENIZER, kind, 0, 512).record(told)
    [(name, found)] = records(prompts(source, drill=drill), "label", {"u0:4": Known(SEEN, 5)}, 1, 0)
    assert name == "u0:4"
    same(found, expected)


@pytest.mark.parametrize(
    ("source", "history_part", "soft"),
    [
        ("last", "<*>Mon 05:00 L1 pay; 06:00 L2 chat\n...\nWed 10:00 L1 type 7\n...\nWed 10:00 L1 "
         "Professional & Other Places\n", [-4]),
        ("item", "Mon 05:00 L1 pay*; 06:00 L2 chat*\n...\nWed 10:00 L1 type 7*\n...\nWed 10:00 L1 "
         "Professional & Other Places*\n", [0, 1, 2, 3]),
        ("item+user", "<*>Mon 05:00 L1 pay*; 06:00 L2 chat*\n...\nWed 10:00 L1 type 7*\n...\nWed 10:00 "
         "L1 Professional & Other Places*\n", [-4, 0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_where_soft_tokens_stand(source: str, history_part: str, soft: list[int]) -> None:
    """The user's is the last event's state, which index -1 - 3 means; an item's stands behind its label."""
    one = prompts(source)
    asked = one.label(SEEN)
    expected = f"{{user\n{history_part}{prediction_instruction(STORE.catalogue)}}}\n{{assistant\n"
    assert shown(asked.tokens) == expected
    made = record(one, asked, [7])
    assert made.soft_index[made.tokens == TOKENIZER.soft].tolist() == soft
    np.testing.assert_array_equal(made.events, SEEN.encoder_fields())
    assert made.round_ids.tolist() == [0] * len(asked.tokens) + [1]


@pytest.mark.parametrize("source", SOURCES)
def test_a_note_stands_before_the_log(source: str) -> None:
    """In what is trained on and in what is asked alike, and nothing else moves."""
    one, note = prompts(source), "Traits: sociable."
    line = "Background on this person: Traits: sociable.\n"
    for asked in (one.label, one.head):
        plain, noted = asked(SEEN), asked(SEEN, note)
        assert shown(noted.tokens) == shown(plain.tokens).replace("{user\n", "{user\n" + line, 1)
        assert (noted.shown, noted.events.tolist()) == (plain.shown, plain.events.tolist())
    [(_, made)] = records(one, "label", {"a": Known(SEEN, 3, note)}, 1, 0)
    assert made.tokens[made.round_ids == 0].tolist() == one.label(SEEN, note).tokens
    for _, made in records(one, "yes_no", {"a": Known(SEEN, 3, note)}, 1, 0):
        assert shown(made.tokens).startswith("{user\n" + line)


def test_a_candidate_is_an_event_of_its_own_behind_the_history() -> None:
    """Its answer is one token, where yes and no part; in words alone it has no event."""
    cases = {"a": Known(SEEN, 3)}
    [(_, right), (_, wrong)] = records(prompts("item+user"), "yes_no", cases, 1, 0)
    text = shown(right.tokens)
    assert text.endswith("Places*\nDoes read news* come next?}\n{assistant\n Y")
    assert shown(wrong.tokens)[-1] == "N"
    for one in (right, wrong):
        assert one.soft_index[one.tokens == TOKENIZER.soft].tolist() == [-4, 0, 1, 2, 3, 4]
        assert one.round_ids.sum() == 1
        np.testing.assert_array_equal(one.events[:4], SEEN.encoder_fields())
    assert right.events[4].tolist() == [0, 0, 0, 3]
    assert wrong.events[4, 3] != 3
    [(_, words), _] = records(prompts("none"), "yes_no", cases, 1, 0)
    assert len(words.events) == 0
    assert "*" not in shown(words.tokens)


def candidates(label: int, negatives: int, seed: int = 0) -> Iterator[int]:
    found = records(prompts("item"), "yes_no", {"a": Known(SEEN, label)}, negatives, seed)
    return (int(one.events[-1, 3]) for _, one in found)


def test_only_what_came_next_is_no_negative() -> None:
    """Behaviours of the history are; none comes twice, and there are no more than there are."""
    first, *others = candidates(2, 100)
    assert first == 2
    assert sorted(others) == [0, 1, 3, 4, 5, 6, 7]
    assert len({tuple(candidates(2, 3, seed)) for seed in range(9)}) > 1
    assert list(candidates(2, 3)) == list(candidates(2, 3))


def test_one_class_has_no_negatives_and_is_certain() -> None:
    catalogue = Catalogue(("sleep",), 48, has_places=True)
    seen = dataclasses.replace(SEEN, behaviour=np.zeros(4, np.int32))
    for target, count in (("yes_no", 1), ("label", 1)):
        made = list(records(prompts("item+user", catalogue), target, {"a": Known(seen, 0)}, 3, 0))
        assert len(made) == count
    assert distribution(np.asarray([[-3.0], [2.0]]), 3).tolist() == [[1.0], [1.0]]


def test_a_label_within_another_is_another_question_and_answer() -> None:
    catalogue = Catalogue(("run", "run far", "far"), 48, has_places=False)
    asked = prompts("none", catalogue)
    questions = [shown(asked.candidate(c).tokens).split("}")[0] for c in range(3)]
    assert questions == ["Does run come next?", "Does run far come next?", "Does far come next?"]
    made = [next(records(asked, "label", {"a": Known(seen_of(c), c)}, 1, 0))[1] for c in range(3)]
    answers = [one.tokens[one.round_ids > 0].tolist() for one in made]
    stop = [TOKENIZER.im_end]
    assert answers == [label_tokens(TOKENIZER, b) + stop for b in catalogue.behaviours]
    assert not any(a == b[: len(a)] for a in answers for b in answers if a is not b)


def seen_of(behaviour: int) -> History:
    return dataclasses.replace(SEEN, behaviour=np.full(4, behaviour, np.int32))


@pytest.mark.parametrize("source", SOURCES)
def test_of_somebody_of_whom_nothing_is_known(source: str) -> None:
    """No event, no soft token; the question stands all the same."""
    nothing = History(*[np.zeros(0, np.int32)] * 6, np.zeros(0, bool))
    asked = prompts(source).label(nothing)
    assert (asked.shown, len(asked.events)) == ([], 0)
    assert "Which behaviour comes next?}" in shown(asked.tokens)
    both = prompts(source).head(nothing) + prompts(source).candidate(1)
    assert both.shown == ([0] if SOURCES[source].items else [])


@pytest.mark.parametrize("negatives", [1, 3, 99])
def test_a_distribution_is_what_perfect_answers_were_drawn_from(negatives: int) -> None:
    """In ten lines: how often each candidate is shown as the next one and as another, by Bayes."""
    p = np.asarray([[0.5, 0.3, 0.15, 0.04, 0.01]])
    classes, k = p.shape[1], min(negatives, p.shape[1] - 1)
    as_next = p
    as_other = (1 - p) * k / (classes - 1)
    yes = as_next / (as_next + as_other)
    found = distribution(np.log(yes / (1 - yes)), negatives)
    np.testing.assert_allclose(found, p, atol=1e-6)
    if k < classes - 1:
        assert not np.allclose(yes / yes.sum(), p, atol=1e-2)  # without the correction


def test_logits_of_any_size_make_a_distribution() -> None:
    found = distribution(np.asarray([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]]), 1)
    np.testing.assert_allclose(found.sum(1), 1)
    assert np.isfinite(found).all()
