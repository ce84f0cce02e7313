"""The report is one self-contained page and escapes what comes from data and models."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.evaluation import plots, tables
from bua_jax.evaluation.report import Conversation, Report, Section, render
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day
from bua_jax.pipeline.report import print_results
from bua_jax.pipeline.steps import Run

EVIL = "<script>alert('x')</script>"


def test_texts_are_escaped_and_nothing_is_fetched():
    picture = plots.confusion(np.array([0, 1]), np.array([0, -1]), ["a", "b"])
    page = render(
        Report(
            EVIL,
            [EVIL],
            [Section(EVIL, (EVIL,), [[EVIL]])],
            [(EVIL, picture)],
            [Conversation(EVIL, [(EVIL, EVIL)])],
            EVIL,
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 12
    assert "http" not in page
    assert "data:image/png;base64,iVBOR" in page


def test_plots_are_png():
    catalogue = Catalogue(("a", "b"), 24, True)
    day = Day(0, (1, 2), (1, 1), (0, 1))
    for picture in (
        plots.timeline({"real": day, "generated": Day(0, (), (), ())}, catalogue),
        plots.curves({"stage2": {"validation x": [(1, 2.0), (2, 1.0)]}, "joint": {}}, "nats"),
        plots.curves({"stage1": {"training $x": [(1, 2.0)]}}, "nats"),
        plots.curves({}, "empty"),
        plots.cosines({("a", "$b"): -0.5, ("a", "c"): 1.0}, "t"),
    ):
        assert picture.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", ["$a_$", "a\\$b$_$", "\x1b[31m", "\ud800"])
def test_names_of_any_kind_are_drawn(label: str) -> None:
    """Also with a control character or half a surrogate pair, which no catalogue takes."""
    picture = plots.confusion(np.array([0, 1]), np.array([0, -1]), (label, "b"))
    assert picture.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", ["$a_$", "a\\$b$_$"])
def test_plots_take_any_label(label: str) -> None:
    """Also with an odd dollar in it."""
    catalogue = Catalogue((label, "b"), 24, True)
    day = Day(0, (1, 2), (1, 1), (0, 1))
    plots.timeline({"real": day}, catalogue)
    plots.hours_by_behaviour({"real": [day]}, catalogue)


def test_results_without_baselines_print(tmp_path, capsys) -> None:
    bua = {"n": 3, "rec_w": 0.5}
    metrics = {"prediction": {"bua": bua}, "generation": {}, "signature": "its signature"}
    files.write_json(tmp_path / "evaluation" / "metrics.json", metrics)
    print_results(Run(ConfigDict(), tmp_path))
    printed = capsys.readouterr().out
    assert "3 test windows" in printed
    assert "its signature" in printed
    assert "bua - " not in printed


def test_results_say_of_how_many_people_they_are(tmp_path, capsys) -> None:
    """And that intervals over few of them mean little."""
    for people, warned in ((3, True), (20, False)):
        bua = {"n": 4321, "rec_w": 0.5, "people": people}
        metrics = {"prediction": {"bua": bua}, "generation": {}, "signature": "s"}
        files.write_json(tmp_path / "evaluation" / "metrics.json", metrics)
        print_results(Run(ConfigDict(), tmp_path))
        printed = capsys.readouterr()
        assert f"4,321 test windows of {people} people" in printed.out
        assert ("resample only 3 test people" in printed.err) == warned


def test_a_base_that_cannot_read_is_said(tmp_path, capsys) -> None:
    rows = {
        "behavegpt": {"log_loss": 0.72},
        "bua": {"log_loss": 11.76},
        "markov": {"log_loss": 99.0},
    }
    (guessing,) = tables.unread(rows, 12, "behavegpt")
    assert "log-loss of bua is 11.76 nats, above the 2.48 of guessing among 12 labels" in guessing
    (behind,) = tables.unread({**rows, "bua": {"log_loss": 1.23}}, 12, "behavegpt")
    assert "above the 0.72 of its own encoder (behavegpt) by more than 0.5" in behind
    assert tables.unread({**rows, "bua": {"log_loss": 1.21}}, 12, "behavegpt") == []
    assert tables.unread({"bua": {"rec_w": 0.1}}, 12, "behavegpt") == []  # no distribution
    bua = {"n": 3, "rec_w": 0.5}
    metrics = {
        "prediction": {"bua": bua},
        "generation": {},
        "signature": "s",
        "warnings": [guessing],
    }
    files.write_json(tmp_path / "evaluation" / "metrics.json", metrics)
    print_results(Run(ConfigDict(), tmp_path))
    assert guessing in capsys.readouterr().err
