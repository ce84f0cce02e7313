"""What is measured of texts, as it is shown: tables, sentences and pictures, of much and of nothing."""

from typing import Any

import pytest

from bua_jax.evaluation import findings, plots, tables
from bua_jax.evaluation.counts import resamples
from bua_jax.evaluation.report import Report, render, sections
from bua_jax.evaluation.understanding.ladder import climb
from bua_jax.evaluation.understanding.score import count_texts, scored
from bua_jax.pipeline.report import _of_texts
from tests.evaluation.understanding.described import described

PNG = b"\x89PNG"


def measured(main: str) -> dict[str, Any]:
    """As metrics.json has it: the rules, and who writes nothing."""
    some = described()
    rows = {"reference": some.texts, "silent": [""] * len(some.texts)}
    counts = {name: count_texts(some.people, some.about, texts) for name, texts in rows.items()}
    drawn = resamples(len(counts[main]), 50, 0)
    few = slice(0, 6)
    rungs = climb(
        some.people[few], some.about[few], rows[main][few], some.others[few], some.names[few]
    )
    return {
        "main": main,
        "rows": {name: scored(one, drawn) for name, one in counts.items()},
        "ladder": {"of": main, "n": 6, "rungs": rungs},
    }


@pytest.fixture(scope="module")
def of_rules() -> dict[str, Any]:
    return measured("reference")


def test_a_row_for_each_kind_of_text(of_rules: dict[str, Any]) -> None:
    rules, silent = tables.understanding_rows(of_rules)
    assert rules[:2] == ["reference", "100.0 (100.0 to 100.0)"]
    assert silent[:4] == ["silent", "-", "0.0 (0.0 to 0.0)", "100.0 (100.0 to 100.0)"]
    assert len(rules) == len(tables.UNDERSTANDING_HEADER)
    assert tables.understanding_rows({}) == tables.ladder_rows({}) == []
    for name in (*tables.UNDERSTANDING_HEADER[1:], "spearman"):
        assert tables.metric_of(name) == name  # it is explained


def test_a_row_for_each_corruption(of_rules: dict[str, Any]) -> None:
    rows = {name: rest for name, *rest in tables.ladder_rows(of_rules)}
    assert rows["double counts"][:3] == ["counts precision", "100.0", "0.0"]
    assert rows["double counts"][-1] == "none"
    assert len(rows) == 5


def test_sections_and_sentences(of_rules: dict[str, Any]) -> None:
    metrics = {"prediction": {}, "generation": {}, "understanding": of_rules}
    shown = {one.title: one for one in sections(metrics)}
    assert shown["What texts say of people"].ours == {"reference"}
    assert "spoilt on purpose" in shown["Does that measure fall?"].said
    assert "are true most often (100%)" in findings.of_texts(of_rules)
    assert findings.of_texts({**of_rules, "main": "silent"}) == "silent claims nothing."
    assert findings.of_ladder(of_rules["ladder"]).endswith("; the others stay.")
    strayed = {"x": {"spearman": -1.0, "strayed": ["a"]}, "y": {"spearman": None, "strayed": []}}
    assert findings.of_ladder({"rungs": strayed}) == (
        "What is spoilt is seen in 1 of 2 cases; others moved too by: x."
    )
    page = render(Report("t", tables=sections(metrics)))
    assert page.count('id="what-texts-say-of-people"') == 1


def test_pictures_of_much_and_of_nothing(of_rules: dict[str, Any]) -> None:
    assert _of_texts({}) == []
    for table in (of_rules, measured("silent")):
        pictures = _of_texts(table)
        assert [one.data[:4] for one in pictures] == [PNG, PNG]
        assert all(one.finding for one in pictures)
    assert plots.shares({"a": {"row": {"x": None}}, "b": {"row": {"x": 0.5}}})[:4] == PNG
