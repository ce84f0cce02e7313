"""The measure of texts falls with what is spoilt, and with nothing else."""

import numpy as np
import pytest
import scipy.stats

from bua_jax.evaluation.understanding import ladder
from bua_jax.evaluation.understanding.claims import read
from bua_jax.evaluation.understanding.ladder import LADDER, STRENGTHS, Source, climb, corrupted
from tests.evaluation.understanding.described import described


@pytest.fixture(scope="module")
def rungs() -> dict:
    some = described()
    return climb(some.people, some.about, some.texts, some.others, some.names)


@pytest.mark.parametrize("corruption", LADDER, ids=lambda one: one.name)
def test_what_is_spoilt_falls_and_the_rest_stays(rungs: dict, corruption) -> None:
    found = rungs[corruption.name]
    assert found["strengths"] == [0.0, *STRENGTHS]
    assert found["spearman"] <= -0.9
    assert found["values"][-1] < 0.6 * found["values"][0]
    assert found["strayed"] == []


def test_straying_is_seen() -> None:
    """A corruption that spoils another thing than it says."""
    some = described()
    double = next(one for one in LADDER if one.name == "double counts")
    sly = ladder.Corruption("sly", double.does, "times_precision", ("counts_precision",))
    before, ladder.LADDER = ladder.LADDER, (sly,)
    try:
        found = climb(some.people, some.about, some.texts, some.others, some.names)["sly"]
    finally:
        ladder.LADDER = before
    assert found["strayed"] == ["counts_precision"]
    assert found["spearman"] is None  # times did not move


def test_strengths_are_nested_and_whole() -> None:
    """What is spoilt at one strength is so at the next; at 0 nothing, at 1 everything is."""
    some = described()
    sources = [
        Source(read(some.store.catalogue, text), one, "somebody else")
        for one, text in zip(some.about[:10], some.texts[:10], strict=True)
    ]
    for corruption in LADDER:
        made = [corrupted(corruption, sources, some.names[:10], s) for s in (0.0, 0.3, 0.7, 1.0)]
        assert made[0] == some.texts[:10]
        assert made == [
            corrupted(corruption, sources, some.names[:10], s) for s in (0.0, 0.3, 0.7, 1.0)
        ]
        moved = [[a != b for a, b in zip(made[0], one, strict=True)] for one in made]
        assert all(moved[3])
        assert np.all(np.diff(np.asarray(moved, int), axis=0) >= 0)


def test_rank_correlation() -> None:
    x, y = [0, 0.2, 0.4, 0.6, 0.8, 1], [1.0, 0.9, 0.9, 0.4, 0.5, 0.1]
    assert ladder.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)  # float64
    assert np.isnan(ladder.spearman(x, [1.0] * 6))
