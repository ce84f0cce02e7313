"""Multi-round decoding: batches equal single rows, the cache equals recomputation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.decoding import engine, rounds
from bua_jax.decoding.dialogue import first_turn, log_softmax
from bua_jax.decoding.engine import Engine, Turn
from bua_jax.dialogue.prompts import label_tokens, next_turn, opening
from bua_jax.dialogue.text import history_text, parse_day
from tests.decoding.fakes import CATALOGUE, LABELS, ROUNDS, decoder, history_of, recomputed

HISTORIES = [history_of(length, seed) for seed, length in enumerate((12, 10, 40, 17, 33, 11, 25))]
FINAL = ["Next?"] * len(HISTORIES)


@pytest.fixture(scope="module")
def single():
    return rounds.predict(decoder(1), HISTORIES, ROUNDS, FINAL)


@pytest.mark.parametrize("batch", [3])
def test_batched_equals_single_token_for_token(single, batch):
    """Mixed lengths and left-over rows; greedy in float32. Log-probabilities go down to -60: 1e-5 of them."""
    scores, texts = rounds.predict(decoder(batch), HISTORIES, ROUNDS, FINAL)
    assert [t.texts for t in texts] == [t.texts for t in single[1]]
    assert [t.truncated for t in texts] == [t.truncated for t in single[1]]
    np.testing.assert_allclose(scores, single[0], rtol=1e-5, atol=1e-4)


def test_probabilities_are_normalised_over_labels(single):
    assert np.allclose(np.exp(single[0]).sum(1), 1, atol=1e-5)


def scored_alone(one, prompt, events) -> np.ndarray:
    """log p of every label, normalised over them, each by a forward of its own over the whole text."""
    alone = []
    for label in LABELS:
        answer = [*label_tokens(one.tokenizer, label), one.tokenizer.im_end]
        logits = recomputed(one.model, one.variables, [*prompt, *answer], events)
        log_p = jax.nn.log_softmax(logits[len(prompt) - 1 : -1])
        alone.append(sum(float(log_p[i, token]) for i, token in enumerate(answer)))
    return np.asarray(alone) - np.logaddexp.reduce(alone)


def answers(one, seen, instructions) -> list[list[int]]:
    """Token ids of the greedy answers to each instruction, on one row."""

    def job():
        found = [(yield first_turn(one, seen, instructions[0])).tokens]
        for text in instructions[1:]:
            found.append((yield Turn(next_turn(one.tokenizer, text))).tokens)
        return found

    ready = Engine(one.model, one.weights, one.tokenizer.im_end, 1, 256, one.max_new_tokens)
    ((_, found),) = engine.run(ready, [job])
    return found


@pytest.mark.parametrize("shift", [0, 40])
def test_cache_continuation_equals_recomputing(shift):
    """Every greedy token of both rounds is the argmax of a forward from scratch; a broken position
    offset (negative control) breaks that."""
    one = decoder(1)
    seen = HISTORIES[2]
    first, second = answers(one, seen, ["Key?", "Which?"])
    stop = one.tokenizer.im_end
    prompt = opening(one.tokenizer, len(seen), "Key?")
    middle = [stop, *next_turn(one.tokenizer, "Which?")]
    tokens = [*prompt, *first, *middle, *second]
    logits = recomputed(one.model, one.variables, tokens, seen.encoder_fields(), shift)
    greedy = np.asarray(logits.argmax(-1))
    begin = len(prompt) + len(first) + len(middle)
    expected = greedy[begin - 1 : begin - 1 + len(second)].tolist()
    assert len(second) > 3
    assert (expected == second) == (shift == 0)


def test_labels_scored_together_equal_each_alone():
    """1e-4: float32 rounding of two ways to sum the same log-probabilities."""
    one = decoder(2)
    scores, _ = rounds.predict(one, HISTORIES[:2], [], FINAL[:2])
    for row, seen in enumerate(HISTORIES[:2]):
        prompt = opening(one.tokenizer, len(seen), "Next?")
        expected = scored_alone(one, prompt, seen.encoder_fields())
        assert np.abs(expected - scores[row]).max() < 1e-4


def test_the_final_turn_has_second_soft_tokens():
    """Scores after two rounds equal those of one forward over the whole dialogue: 1e-4, as above."""
    one = decoder(2, recall=3)
    chosen, asked = [HISTORIES[0], HISTORIES[3]], [("key_behaviours", "Key?")]
    scores, texts = rounds.predict(one, chosen, asked, FINAL[:2])
    without, _ = rounds.predict(decoder(2), chosen, asked, FINAL[:2])
    assert np.abs(scores - without).max() > 1e-2
    stop = one.tokenizer.im_end
    for row, seen in enumerate(chosen):
        (said,) = answers(one, seen, ["Key?"])
        assert (
            one.tokenizer.soft not in said
        )  # a random model may write one; it stands for no event
        prompt = opening(one.tokenizer, len(seen), "Key?")
        prompt += [*said, stop, *next_turn(one.tokenizer, "Next?", 3)]
        expected = scored_alone(one, prompt, seen.encoder_fields())
        assert np.abs(expected - scores[row]).max() < 1e-4
        assert one.tokenizer.decode(said) == texts[row].texts["key_behaviours"]


def test_a_history_in_words_is_read_as_text():
    """As a forward over the prompt with the words in it: 1e-4, as above; no event vector is read."""
    one, seen = decoder(2, soft_tokens="text"), HISTORIES[:2]
    scores, _ = rounds.predict(one, seen, [], FINAL[:2])
    for row, history in enumerate(seen):
        words = f"{history_text(CATALOGUE, history)}\nNext?"
        prompt = opening(one.tokenizer, 0, words)
        expected = scored_alone(one, prompt, np.zeros((0, 4)))
        assert np.abs(expected - scores[row]).max() < 1e-4


@pytest.mark.parametrize("known", [1, 2])
def test_given_answers_are_read_as_the_models_own(known):
    """As one forward over the dialogue with the given answers in it: 2e-4, 1e-5 of values down to -60.

    Rounds after them are decoded; another answer (negative control) changes the prediction.
    """
    one = decoder(3, 4)
    texts = [{"key_behaviours": "eat, go", "patterns": f"work {i}"} for i in range(3)]
    given = [{kind: text[kind] for kind, _ in ROUNDS[:known]} for text in texts]
    scores, said = rounds.predict(one, HISTORIES[:3], ROUNDS, FINAL[:3], given=given)
    assert [s.texts["key_behaviours"] for s in said] == ["eat, go"] * 3
    for row, seen in enumerate(HISTORIES[:3]):
        stop, encode = one.tokenizer.im_end, one.tokenizer.encode
        prompt = [*opening(one.tokenizer, len(seen), "Key?"), *encode("eat, go"), stop]
        prompt += next_turn(one.tokenizer, "Which?")
        if known == 2:
            prompt += [*encode(f"work {row}"), stop]
        else:
            logits = recomputed(one.model, one.variables, prompt, seen.encoder_fields())
            own = []
            while len(own) < one.max_new_tokens and (token := int(logits[-1].argmax())) != stop:
                own.append(token)
                logits = recomputed(
                    one.model, one.variables, [*prompt, *own], seen.encoder_fields()
                )
            prompt += [*own, stop]
        prompt += next_turn(one.tokenizer, "Next?")
        expected = scored_alone(one, prompt, seen.encoder_fields())
        np.testing.assert_allclose(scores[row], expected, rtol=1e-5, atol=2e-4)
    other = [{**answers, "key_behaviours": "go"} for answers in given]
    changed, _ = rounds.predict(one, HISTORIES[:3], ROUNDS, FINAL[:3], given=other)
    assert np.abs(changed - scores).max() > 1e-2


def test_free_predictions_are_labels_or_invalid():
    scores, _ = rounds.predict(decoder(4), HISTORIES[:3], [], FINAL[:3], decode="free")
    assert scores.shape == (3, len(LABELS))
    assert ((scores == 0) | np.isneginf(scores)).all()
    assert ((scores == 0).sum(1) <= 1).all()


def test_greedy_decoding_along_the_tree_equals_a_walk_by_hand():
    """One forward from scratch per token; the next tokens are those of a label, or the stop."""
    one, seen = decoder(2), HISTORIES[:5]
    scores, _ = rounds.predict(one, seen, [], FINAL[:5], decode="trie")
    labels = [[*label_tokens(one.tokenizer, x), one.tokenizer.im_end] for x in LABELS]
    found = []
    for history in seen:
        prompt, written = opening(one.tokenizer, len(history), "Next?"), []
        while written not in labels:
            logits = recomputed(
                one.model, one.variables, [*prompt, *written], history.encoder_fields()
            )
            n = len(written)
            legal = {label[n] for label in labels if label[:n] == written}
            written = [*written, max(legal, key=lambda token, last=logits[-1]: last[token])]
        found.append(labels.index(written))
    assert scores.argmax(1).tolist() == found
    assert (np.isneginf(scores).sum(1) == len(LABELS) - 1).all()
    exact, _ = rounds.predict(one, seen, [], FINAL[:5])
    assert exact.argmax(1).tolist() != found  # here greedy is not the likeliest label


def test_a_day_after_a_prediction_is_the_day_without_it(single):
    """Both follow the same rounds, and the row forgets the prediction: as if each were asked alone."""
    few, options = slice(0, 5), {"temperature": 2.0, "max_events": 2}
    asked = (HISTORIES[few], ROUNDS, ["Tomorrow?"] * 5, [0, 1, 2, 3, 4])
    days, said, scores = rounds.generate(decoder(3), *asked, predict_first=FINAL[few], **options)
    alone, _, none = rounds.generate(decoder(3), *asked, **options)
    assert [d.text for d in days] == [d.text for d in alone]
    assert [t.texts for t in said] == [t.texts for t in single[1][few]]
    np.testing.assert_allclose(scores, single[0][few], rtol=1e-5, atol=1e-4)
    assert none.shape == (0, len(LABELS))


def test_a_history_that_the_encoder_has_no_positions_for_is_an_error():
    """Beyond its table the encoder would give NaN."""
    with pytest.raises(ConfigError, match="129 events, but the encoder was trained on 128"):
        rounds.understand(decoder(1), [history_of(129, 0)], ROUNDS)


def test_truncated_rounds_are_counted(single):
    assert all(t.truncated <= len(ROUNDS) for t in single[1])
    assert sum(t.truncated for t in single[1]) > 0  # a random model rarely stops


@pytest.mark.parametrize("temperature", [2.0])
def test_constrained_days_parse_and_do_not_depend_on_the_batch(temperature):
    options = {
        "temperature": temperature,
        "top_p": 1.0,
        "max_events": 3,
    }
    weekdays = [1, 5, 0, 6]
    days, *_ = rounds.generate(decoder(4, 4), HISTORIES[:4], [], FINAL[:4], weekdays, **options)
    alone, *_ = rounds.generate(decoder(1, 4), HISTORIES[:4], [], FINAL[:4], weekdays, **options)
    assert [d.text for d in days] == [d.text for d in alone]
    rest, *_ = rounds.generate(
        decoder(4, 4), HISTORIES[2:4], [], FINAL[:2], weekdays[2:], rows=(2, 3), **options
    )
    assert [d.text for d in days[2:]] == [d.text for d in rest]
    for day, weekday in zip(days, weekdays, strict=True):
        assert day.invalid == 0
        assert parse_day(day.text, CATALOGUE) == day.day
        assert day.day.weekday == weekday
        assert len(day.day) <= 3


@pytest.mark.long
def test_ten_thousand_constrained_days_parse():
    """Labels share prefixes and hold non-ASCII; half are drawn almost evenly, half from a nucleus."""
    seen = [HISTORIES[i % len(HISTORIES)] for i in range(5000)]
    weekdays = [i % 7 for i in range(5000)]
    # The random model's logits are large. Different texts: 2,626 and 1,077 when this was written.
    for temperature, top_p, least in ((100.0, 1.0, 2000), (1.0, 0.9, 500)):
        days, *_ = rounds.generate(
            decoder(64), seen, [], ["Next?"] * 5000, weekdays, temperature=temperature, top_p=top_p
        )
        for day, weekday, history in zip(days, weekdays, seen, strict=True):
            assert parse_day(day.text, CATALOGUE) == day.day
            assert day.day.weekday == weekday
            assert set(day.day.place) <= set(history.place.tolist())
        assert len({day.text for day in days}) > least


def test_free_days_are_parsed_leniently():
    days, *_ = rounds.generate(
        decoder(2, 4),
        HISTORIES[:2],
        [],
        FINAL[:2],
        [0, 1],
        constrained=False,
        max_events=2,
    )
    assert all(day.invalid > 0 for day in days)  # random bytes are no events


def test_log_probabilities_that_are_not_finite_make_no_prediction():
    """Weights may be finite and yet too large: here the products overflow."""
    one = decoder(2)
    base = {**one.variables["base"], "norm": {"scale": jnp.full(32, 3e38)}}
    large = dataclasses.replace(one, variables={**one.variables, "base": base})
    with pytest.raises(CheckpointError, match="log-probabilities of history 1 are not finite"):
        rounds.predict(large, HISTORIES[:1], [], FINAL[:1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_softmax_is_that_of_scipy(dtype) -> None:
    """Of logits, of a label that cannot be (-inf), of one label; the formula is the same, so are the bits."""
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=(20, 37)) * 30, np.asarray([[0.0, -np.inf, 2.0]]), [[-5.0]]):
        for row in np.asarray(scores, dtype):
            found = log_softmax(row)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, scipy.special.log_softmax(row), rtol=0, atol=1e-6)
