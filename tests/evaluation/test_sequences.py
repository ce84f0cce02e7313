"""Generation metrics against sacrebleu, scipy and hand-computed cases."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from bua_jax.basics.errors import DataError
from bua_jax.evaluation.day_counts import generation_metrics
from bua_jax.evaluation.sequences import (
    bleu,
    js_distance,
    jsd,
    originality,
    self_bleu,
    tvd,
)
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day

weights = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(sum)


@given(weights, weights)
def test_distances_equal_scipy(a, b):
    """1e-9: scipy clips the divergence differently near zero."""
    p, q = np.asarray(a) / sum(a), np.asarray(b) / sum(b)
    assert tvd(p, q) == pytest.approx(0.5 * np.abs(p - q).sum(), abs=1e-12)
    assert js_distance(p, q) == pytest.approx(np.nan_to_num(jensenshannon(p, q)), abs=1e-7)
    assert jsd(p, q) == pytest.approx(js_distance(p, q) ** 2, abs=1e-12)
    assert jsd(p, q) >= tvd(p, q) ** 2 / 2 - 1e-12  # the bound that the paper's tables obey


def test_by_hand():
    assert tvd([1, 0], [0, 1]) == 1
    assert jsd([1, 0], [0, 1]) == pytest.approx(np.log(2))
    assert jsd([0.5, 0.5], [0.5, 0.5]) == 0


def test_bleu_equals_sacrebleu_and_counts_empty_days():
    made, real = [[1, 2, 3, 4, 5], [7, 8]], [[1, 2, 3, 4, 6], [7, 8, 9]]
    text = [[" ".join(map(str, x)) for x in side] for side in (made, real)]
    expected = sacrebleu.corpus_bleu(text[0], [text[1]], tokenize="none", force=True).score / 100
    assert bleu(made, real) == pytest.approx(expected, abs=1e-12)
    assert bleu([[1, 2, 3, 4, 5], []], real) < bleu([[1, 2, 3, 4, 5], [7, 8]], real)
    assert bleu(real, real) == pytest.approx(1)


def test_generation_metrics_of_equal_days_and_of_sets_without_places():
    days = [Day(1, (3, 9, 9, 12, 20), (1, 1, 2, 1, 1), (0, 1, 2, 1, 0))] * 3
    catalogue = Catalogue(("a", "b", "c"), 24, has_places=True)
    found = generation_metrics(days, days, catalogue)
    assert set(found) == {"event", "timestamp", "location"}
    for values in found.values():
        assert values == pytest.approx({"bleu": 1, "tvd": 0, "jsd": 0, "js_distance": 0})
    assert "location" not in generation_metrics(days, days, Catalogue(("a", "b", "c"), 24, False))


def test_malformed_input_is_refused():
    with pytest.raises(DataError):
        tvd([0.5, 0.6], [1, 0])
    with pytest.raises(DataError):
        bleu([[1]], [])


def test_self_bleu_equals_sacrebleu_on_each_against_the_rest():
    days = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [7, 8, 9, 7, 8]]
    text = [" ".join(map(str, day)) for day in days]
    expected = [
        sacrebleu.sentence_bleu(text[i], text[:i] + text[i + 1 :], tokenize="none").score
        for i in range(3)
    ]
    assert self_bleu(days) == pytest.approx(np.mean(expected) / 100, abs=1e-12)
    assert self_bleu([[1, 2, 3, 4]] * 3) == pytest.approx(1)
    assert self_bleu([[1, 2, 3, 4]]) == 0


def test_copies_are_counted_by_hand():
    a, b = Day(0, (1, 2), (1, 1), (0, 3)), Day(1, (5,), (2,), (1,))
    other, nothing = Day(0, (1, 2), (1, 2), (0, 3)), Day(2, (), (), ())
    found = originality([a, a, other, nothing], [b, Day(6, a.slot, a.place, a.behaviour)])
    assert found["copied"] == pytest.approx(2 / 3)  # the weekday may differ, a place may not
    assert found["distinct"] == pytest.approx(2 / 3)
    assert originality([nothing], [a])["copied"] == 0
