"""An experiment as data: what cannot be is said before anything is built."""

import dataclasses
from pathlib import Path

import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.evaluation.tables import LOWER_IS_BETTER
from bua_jax.experiments.experiment import (
    SCALES,
    Claim,
    Experiment,
    Row,
    cells,
    check,
    chosen,
    load,
    named,
)
from bua_jax.experiments.paper import COLUMNS, FOOTNOTES, PUBLISHED
from bua_jax.experiments.plan import check_cells
from tests.experiments.files import SMALL, experiment

SHIPPED = sorted(p.stem for p in (configs.folder() / "experiments").glob("[a-z]*.py"))


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_experiments_expand(name: str, scale: str) -> None:
    found = load(f"configs/experiments/{name}.py:scale={scale}")
    made = cells(found)
    assert len(made) == len(found.rows) * len(SCALES[scale].seeds)
    assert len({cell.name for cell in made}) == len(made)
    for cell in made:
        assert cell.config.seed == cell.seed
        for field, value in cell.row.fields.items():
            assert configs.settings(cell.config, [field])[field] == (
                list(value) if isinstance(value, tuple) else value
            )


def test_rows_that_predict_nothing_are_checked_as_what_they_are(tmp_path: Path) -> None:
    """A method that generates or describes alone is a row of such a table."""
    for name in ("table2", "understanding"):
        found = load(f"configs/experiments/{name}.py:scale=tiny")
        check_cells(found, cells(found)[:1] + cells(found)[-1:], tmp_path)


def with_rows(*rows: Row, **changes) -> Experiment:
    return dataclasses.replace(experiment(), rows=(*experiment().rows, *rows), **changes)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (with_rows(Row("majority")), "several rows called 'majority'"),
        (with_rows(reference="nobody"), "'nobody', which is no row"),
        (with_rows(claims=(Claim("majority", "nobody"),)), "'nobody', which is no row"),
        (
            with_rows(claims=(Claim("majority", "the same", "beauty"),)),
            "'beauty', which is no column",
        ),
        (with_rows(columns=("rec_w", "beauty")), "the column 'beauty'"),
        (with_rows(Row("x", method="nobody")), "'nobody' is no method that predicts"),
        (with_rows(Row("x", method="last_day")), "'last_day' is no method that predicts"),
        (with_rows(Row("x", published=("Table 9", "x"))), "not in experiments/paper.py"),
        (with_rows(scale=dataclasses.replace(SMALL, seeds=(1, 1))), r"the seeds \(1, 1\)"),
        (with_rows(scale=dataclasses.replace(SMALL, seeds=())), r"the seeds \(\)"),
        (
            with_rows(curves={"majority": ("stage9",)}, claims=()),
            "of the row 'last event' no stages to draw",
        ),
        (
            with_rows(curves={r.name: ("stage9",) for r in experiment().rows}, claims=()),
            "no stage 'stage9' to draw",
        ),
        (with_rows(columns=("overall",), claims=()), "lacks the column rec_w"),
        (
            with_rows(columns=("rec_w",), drawn=("tail",), claims=()),
            "draws 'tail', which is no col",
        ),
        (with_rows(name="../up"), r"name '../up' is to be of letters"),
        (with_rows(Row("two\nlines")), "is no name of a row"),
        (with_rows(Row("majority ")), "is no name of a row"),
        (with_rows(Row("x", {"seed": 7})), "without seed"),
        (with_rows(Row("x", ["seed"])), r"fields=\['seed'\]: expected config fields"),  # type: ignore[arg-type]
        (dataclasses.replace(experiment(), rows=Row("x")), "is a comma missing"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_said(found: Experiment, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(found)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"stage2.los": "token_mean"},
            r"row 'x': the config has no field 'stage2.los'.*stage2.loss",
        ),
        ({"stages": 7}, "row 'x': stages=7"),
    ],
)
def test_fields_of_rows_are_fields(fields, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cells(with_rows(Row("x", fields)))


def test_files_and_scales(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'huge' is none of tiny, laptop, paper"):
        load("configs/experiments/table4.py:scale=huge")
    with pytest.raises(ConfigError, match="no get_experiment"):
        load("configs/quickstart.py")
    with pytest.raises(ConfigError, match="no config file"):
        load("configs/experiments/table99.py")
    for text, said in {
        "def get_experiment(scale:\n": r"line 1: SyntaxError",
        "import nosuchmodule\n": r"line 1: ModuleNotFoundError: No module named 'nosuchmodule'",
        "def get_experiment():\n    pass\n": r"TypeError: get_experiment\(\) takes 0",
        "def get_experiment(scale):\n    pass\n": "that returns an Experiment",
        "\ndef get_experiment(scale):\n    return 1 / 0\n": "line 3: ZeroDivisionError",
    }.items():
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(ConfigError, match=said):
            load(str(tmp_path / "mine.py"))


def test_rows_and_seeds_are_chosen() -> None:
    every = cells(experiment())
    assert [c.name for c in chosen(every, ["majority"], ["2", "1"])] == ["majority/1", "majority/2"]
    assert len(chosen(every, [], [])) == len(every) == 20
    for rows, seeds in ((["x"], []), ([], ["9"])):
        with pytest.raises(ConfigError, match="There are: "):
            chosen(every, rows, seeds)
    assert named(every, "majority/3").seed == 3
    with pytest.raises(ConfigError, match="no such cell"):
        named(every, "majority/9")


def test_published_numbers_are_those_of_the_paper() -> None:
    """Spot checks by hand, and: a row that contradicts the paper has its footnote."""
    assert PUBLISHED["Table 4", "w/o loss balance"].value("tail") == 0.197
    assert PUBLISHED["Table 14", "SASRec"].value("rec_w") == 0.589
    assert PUBLISHED["Table 1", "BUA"].value("log_loss") is None
    assert PUBLISHED["Table 8", "w/o stage2"].value("timestamp_tvd") == 0.095
    assert all(len(row.values) == len(row.columns) for row in PUBLISHED.values())
    predicted = {key: row for key, row in PUBLISHED.items() if row.columns == COLUMNS}
    for key, row in predicted.items():
        overall, *groups = row.values[2:]
        if overall > max(groups) or (
            row.row == "BehaveGPT" and row.values[0] != 0.567 and row.table != "Table 13"
        ):
            assert key in FOOTNOTES
    assert FOOTNOTES.keys() <= PUBLISHED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_claims_about_published_rows_are_the_papers(name: str) -> None:
    """Where the paper has both numbers, they stand in the claimed order."""
    asked = load(f"configs/experiments/{name}.py:scale=tiny")
    for claim in () if asked.curves else asked.claims:
        rows = [asked.row(row).published for row in (claim.above, claim.below)]
        if None in rows:
            continue
        metric = claim.metric or asked.kind.main
        above, below = (PUBLISHED[row].value(metric) for row in rows)
        assert above is not None, claim
        assert below is not None, claim
        assert (above < below) if metric in LOWER_IS_BETTER else (above > below), claim
