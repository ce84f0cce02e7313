"""Counts per person: their sums are the metrics, their resamples are resampled people."""

from collections.abc import Sequence

import numpy as np
import pytest

from bua_jax.evaluation.counts import count, interval, metrics, resamples
from bua_jax.evaluation.day_counts import count_days, day_metrics
from bua_jax.evaluation.prediction import prediction_metrics
from bua_jax.evaluation.sequences import bleu, js_distance, jsd, tvd
from bua_jax.evaluation.tables import SIDES
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day

GROUPS = {"head": [0, 1], "medium": [2], "tail": [3, 4]}
RNG = np.random.default_rng(0)
PEOPLE = np.sort(RNG.integers(0, 12, 300)) * 7
TRUE, LABEL = RNG.integers(0, 4, 300), RNG.integers(-1, 5, 300)
TABLE = RNG.dirichlet(np.ones(5), 300)


def test_a_resample_is_the_metrics_of_the_people_that_were_drawn() -> None:
    """Every metric: of each resample as of its windows, written out with repetitions."""
    counts = count(PEOPLE, TRUE, LABEL, 5, TABLE)
    drawn = resamples(12, 3, seed=1)
    found = metrics(counts.combined(drawn), GROUPS)
    owner = np.unique(PEOPLE, return_inverse=True)[1]
    for i, weights in enumerate(drawn.astype(int)):
        rows = np.concatenate(
            [np.repeat(np.flatnonzero(owner == p), w) for p, w in enumerate(weights)]
        )
        expected = prediction_metrics(TRUE[rows], LABEL[rows], GROUPS, TABLE[rows])
        assert len(found) == 12
        for name, values in found.items():
            wanted = np.nan if expected[name] is None else expected[name]
            np.testing.assert_allclose(values[i], wanted, rtol=1e-12, err_msg=name)


def test_totals_add_up() -> None:
    counts = count(PEOPLE, TRUE, LABEL, 5, TABLE)
    assert counts.total().support.tolist() == [np.bincount(TRUE, minlength=5).tolist()]
    assert counts.predicted.sum() == (LABEL >= 0).sum()
    assert counts.bins[:, 0].sum() == 300
    bare = count(PEOPLE, TRUE, LABEL, 5)
    assert "log_loss" not in metrics(bare.total(), GROUPS)
    np.testing.assert_array_equal(bare.hits, counts.hits)


def test_resamples_are_of_people_and_not_of_windows() -> None:
    """All windows of a person agree: the interval must be as wide as for one window per person."""
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 40)
    many, each = np.repeat(right, 50), np.repeat(np.arange(40), 50)
    drawn = resamples(40, 2000, seed=42)

    def spread(people: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
        counts = count(people, np.zeros(len(hit), int), np.where(hit, 0, 1), 2)
        return interval(metrics(counts.combined(drawn), {})["rec_w"])

    low, high = spread(each, many)
    assert (low, high) == pytest.approx(spread(np.arange(40), right))
    assert (high - low) / 2 == pytest.approx(1.96 * right.std() / np.sqrt(40), rel=0.15)


def test_every_resample_draws_as_many_people_as_there_are() -> None:
    drawn = resamples(7, 50, seed=3)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(1) == 7).all()
    assert drawn.max() > 1
    np.testing.assert_array_equal(drawn, resamples(7, 50, seed=3))
    assert not np.array_equal(drawn, resamples(7, 50, seed=4))


def scored(made: Sequence[Day], real: Sequence[Day]) -> dict[str, float]:
    """What a table's columns hold of days that are written out."""
    found = {}
    for (side, field), size in zip(SIDES.items(), (5, 24, 11), strict=True):
        days = [[getattr(day, field) for day in of] for of in (made, real)]
        counts = [np.bincount([i for ids in of for i in ids], minlength=size) for of in days]
        p, q = (count / count.sum() for count in counts)
        found |= {f"{side}_bleu": bleu(*days), f"{side}_tvd": tvd(p, q), f"{side}_jsd": jsd(p, q)}
        found[f"{side}_js_distance"] = js_distance(p, q)
    return found


def test_a_resample_of_days_is_what_they_score_together() -> None:
    """BLEU, TVD and JSD of sums, against sacreBLEU on the days written out; some days are empty."""
    rng, catalogue = np.random.default_rng(1), Catalogue(tuple("abcde"), 24, True)

    def day() -> Day:
        size = int(rng.integers(0, 9))
        ids = (tuple(rng.integers(0, most, size).tolist()) for most in (24, 11, 5))
        return Day(0, *ids)

    made, real = [day() for _ in range(30)], [day() for _ in range(30)]
    people = np.repeat(np.arange(10), 3)
    counts, drawn = count_days(people, made, real, catalogue), resamples(10, 3, seed=1)
    found = day_metrics(counts.combined(drawn))
    for i, weights in enumerate(drawn.astype(int)):
        rows = [r for p, w in enumerate(weights) for _ in range(w) for r in range(3 * p, 3 * p + 3)]
        expected = scored([made[r] for r in rows], [real[r] for r in rows])
        assert {name: values[i] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )
    without = day_metrics(counts.without_each())
    rest = scored(made[3:], real[3:])
    assert without["event_bleu"][0] == pytest.approx(rest["event_bleu"], abs=1e-12)
    bare = count_days(people, made, real, Catalogue(tuple("abcde"), 24, False))
    assert not any(name.startswith("location") for name in day_metrics(bare.total()))
