"""Rows of experiments that are asked for days or texts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.evaluation import results
from bua_jax.evaluation.day_counts import count_days, day_metrics, generation_metrics
from bua_jax.evaluation.report import render
from bua_jax.evaluation.tables import MEASURES
from bua_jax.evaluation.understanding import score
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day
from bua_jax.experiments import pages, report, report_page, run
from bua_jax.experiments.experiment import Claim, Experiment, Row, cells
from bua_jax.experiments.paper import DAY_COLUMNS, PUBLISHED
from bua_jax.pipeline.data import load_personas, load_store
from bua_jax.pipeline.evaluate import days_of, sides_of
from bua_jax.pipeline.windows import load_set
from tests.experiments.files import SMALL


def test_what_a_system_does_not_write_is_no_metric_of_it() -> None:
    """A dash in the table, here and in the paper's row."""
    day = Day(0, (3, 9), (1, 2), (0, 1))
    counts = count_days(np.asarray([0]), [day], [day], Catalogue(("a", "b"), 24, True)).total()
    sides = {"behavegpt_days": 1, "sand": 2, "d2a": 3, "last_day": 3}
    for method, number in sides.items():
        found = report._own_metrics(counts, tuple(sides_of(method)))
        assert list(found) == list(day_metrics(counts))[: number * len(MEASURES)]
    published = {row: PUBLISHED["Table 2", row] for row in ("BehaveGPT", "SAND", "D2A")}
    there = {name: [c for c in DAY_COLUMNS if one.value(c)] for name, one in published.items()}
    assert {name: len(columns) // 3 for name, columns in there.items()} == {
        "BehaveGPT": 1,
        "SAND": 2,
        "D2A": 3,
    }


def test_rows_may_be_asked_for_days(tmp_path: Path) -> None:
    """Scores are those of the result file, differences are of its people; both names are the same days."""
    scale = dataclasses.replace(
        SMALL, seeds=(1, 2), fields={**SMALL.fields, "windows.generation_test": 12}
    )
    rows = (
        Row("last day", method="last_day", published=("Table 2", "BUA")),
        Row("same", method="last_day"),
    )
    claims = (Claim("last day", "same"), Claim("same", "last day", "location_tvd"))
    asked = Experiment("days", "Days", scale, rows, "last day", claims, asks="generate")
    every = cells(asked)
    assert {step for cell in every for step in cell.steps} == {"generate/last_day/days"}
    assert run.build_cells(asked, every, tmp_path) == {}
    said = report.collect(asked, every, tmp_path, "command")
    one = run.run_of(every[0], tmp_path)
    store = load_store(one)
    frozen = load_set(one, "days", store)
    file = results.read(one.folder("generate/last_day/days") / results.FILE)
    expected = generation_metrics(file.days, days_of(store, frozen), store.catalogue)
    assert said["n"] == len(frozen) == 12
    for side, values in expected.items():
        for measure, value in values.items():
            shown = said["rows"]["last day"]["metrics"][f"{side}_{measure}"]
            assert shown["by_seed"][0] == pytest.approx(value, abs=1e-12), (side, measure)
            assert said["rows"]["same"]["against"][f"{side}_{measure}"]["value"] == 0
    assert said["claims"][0]["metric"] == "event_bleu"
    page = pages.page(said)
    assert "12 generated days of" in page
    assert "| 0.354 |" in page  # the paper's
    assert render(report_page.of_table(said)).count("event_bleu") > 2


def test_rows_may_be_asked_for_texts(tmp_path: Path) -> None:
    """Scores are those of the texts in the result file; both names are the same texts."""
    scale = dataclasses.replace(
        SMALL, seeds=(1, 2), fields={**SMALL.fields, "windows.texts": 30, "data.num_users": 80}
    )
    rows = (Row("rules", method="reference"), Row("same", method="reference"))
    columns = ("recall", "precision", "persona_recall", "work_persona_precision", "flips", "stays")
    claims = (Claim("rules", "same"), Claim("rules", "same", "work_persona_precision"))
    asked = Experiment(
        "texts", "Texts", scale, rows, "rules", claims, columns=columns, asks="describe"
    )
    every = cells(asked)
    assert run.build_cells(asked, every, tmp_path) == {}
    said = report.collect(asked, every, tmp_path, "command")
    one = run.run_of(every[0], tmp_path)
    store = load_store(one)
    frozen = load_set(one, "texts", store)
    file = results.read(one.folder("describe/reference/texts") / results.FILE)
    texts = [score.whole(text, UNDERSTANDING) for text in file.texts]
    about = score.subjects(store, frozen, training_shares(store), load_personas(one))
    found = score.count_texts(np.zeros(30), about, texts)  # as if of one person
    expected = score.text_metrics(found.total())
    shown = said["rows"]["rules"]["metrics"]
    for name in columns[:3]:
        assert shown[name]["by_seed"][0] == pytest.approx(expected[name][0], abs=1e-12), name
    assert shown["precision"]["value"] == shown["flips"]["value"] == 1.0
    assert 0.5 < shown["stays"]["value"] < 1.0
    assert shown["work_persona_precision"]["value"] is None  # the rounds name no work place
    assert said["rows"]["same"]["against"]["recall"]["value"] == 0
    assert said["n"] == 30
    assert "30 described windows of" in pages.page(said)
