"""The report is one self-contained page and escapes what comes from data and models."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.evaluation import findings, plots, tables
from bua_jax.evaluation.prediction import calibration
from bua_jax.evaluation.report import (
    Conversation,
    Entry,
    Forest,
    Interval,
    Picture,
    Report,
    Section,
    Timeline,
    forest,
    papers,
    render,
    sections,
)
from bua_jax.events.schema import Catalogue
from bua_jax.events.windows import Day
from bua_jax.pipeline.report import print_results
from bua_jax.pipeline.steps import Run

PNG = plots.cosines({("a", "b"): 0.5}, "t")
EVIL = "<script>alert('x')</script>"


def test_texts_are_escaped_and_nothing_is_fetched():
    page = render(
        Report(
            EVIL,
            verdict=[EVIL],
            forests=[Forest(EVIL, EVIL, [Interval(EVIL, 1.0, 0.5, 2.0)])],
            claims=[(EVIL, EVIL, EVIL)],
            notes=[EVIL],
            warnings=[EVIL],
            tables=[Section(EVIL, (EVIL,), [[EVIL]], frozenset({EVIL}), EVIL)],
            pictures=[Picture(EVIL, PNG, EVIL)],
            days=[Timeline(EVIL, {EVIL: [Entry(0.5, EVIL, EVIL, "head")]})],
            dialogues=[Conversation(EVIL, [(EVIL, EVIL, EVIL)], EVIL)],
            elsewhere=[Section(EVIL, (EVIL,), [[EVIL]])],
            facts={EVIL: EVIL},
            config={EVIL: EVIL},
            signature=EVIL,
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 40
    assert "http" not in page
    assert "data:image/png;base64,iVBOR" in page


def test_a_page_of_nothing_has_nothing_in_it():
    page = render(Report("empty"))
    assert page.count("<h1>empty</h1>") == 1
    for part in ("<table", "<figure", "<details", "<aside", "<h2", "<pre"):
        assert part not in page


def test_tables_are_sorted_marked_and_explained():
    rows = {"a": {"rec_w": 0.1}, "bua": {"rec_w": 0.3, "log_loss": 2.0}, "b": {"rec_w": 0.2}}
    (table,) = sections({"prediction": rows, "generation": {}})
    assert [row[0] for row in table.rows] == ["bua", "b", "a"]
    page = render(Report("t", tables=[table], elsewhere=[papers()]))
    assert page.count('<tr class="ours">') == 1
    assert f'<abbr title="{tables.MEANING["log_loss"].text}">log_loss</abbr> ↓' in page
    assert f"<dt>rec_w ↑</dt><dd>{tables.MEANING['rec_w'].text}</dd>" in page
    assert page.index("<aside") > page.index("Prediction (test users)")
    assert tables.metric_of("rec_w 95 %") == "rec_w 95 %"
    assert tables.metric_of("rec_w minus Ours") == "rec_w"
    assert tables.metric_of("training windows") == ""


def test_the_verdict_is_by_intervals() -> None:
    pairs = {"a": (0.1, 0.2), "b": (-0.1, 0.2), "c": (-0.2, -0.1), "d": (0.0, 0.3)}
    against = {
        name: {"difference": (low + high) / 2, "low": low, "high": high}
        for name, (low, high) in pairs.items()
    }
    assert tables.verdict(against) == (
        "By these intervals BUA is above `a`; not told apart from `b`, `d`; below `c`."
    )
    assert tables.verdict({}) == ""
    assert [line.name for line in forest(against)[0].lines] == ["a", "d", "b", "c"]
    page = render(Report("t", forests=forest(against)))
    assert page.count('class="above"') == page.count('class="below"') == 2
    assert page.count('class="level"') == 4
    assert forest({}) == []


def test_findings_say_what_there_is_to_see() -> None:
    curves = {
        "stage2": {"validation a": [(1, 2.0), (2, 1.0)], "validation b": [(1, 4.0), (2, 5.0)]},
        "encoder": {"training x": [(1, 3.0), (2, 2.5)]},
        "joint": {},
    }
    assert findings.of_curves(curves) == (
        "stage2: validation loss from 3.00 to 2.50 at its lowest, mean of 2; encoder: loss from 3.00 to "
        "2.50 at its lowest."
    )
    assert findings.of_curves({}) == "Nothing was logged."
    assert findings.of_cosines({("a", "b"): -0.25, ("a", "c"): 0.5}) == (
        "1 of 2 pairs pull against each other; a and b agree least (-0.25)."
    )
    true, guessed = np.array([0, 0, 1, 1]), np.array([1, 1, 1, -1])
    assert "a for b (2)" in findings.of_confusion(true, guessed, ("a", "b"))
    assert findings.of_confusion(true, true, ("a", "b")) == "No behaviour is taken for another."
    sure = {"sure": calibration([0.9, 0.9], [True, False]), "none": calibration([0.0], [False])}
    assert findings.of_reliability(sure) == (
        "Expected calibration error: none 0.0% (underconfident), sure 40.0% (overconfident)."
    )
    days = {"generated": [Day(0, (0, 1), (0, 0), (0, 1))], "real": [Day(0, (0, 5), (0, 0), (0, 1))]}
    assert findings.of_hours(days, 24).startswith("50% of generated and real events")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "methods"), [(300, 40), (2, 1), (1, 0)])
def test_pictures_of_many_and_of_few(labels: int, methods: int) -> None:
    """Also of labels with quotes, of which most never occur; a page stays below 3 MB."""
    names = [f"label \"{i}\" of 'many' <kinds>" for i in range(labels)]
    rng = np.random.default_rng(0)
    true, guessed = rng.integers(labels, size=(2, 2000))
    third = np.array_split(np.arange(labels), 3)
    groups = {
        name: part.tolist() for name, part in zip(("head", "medium", "tail"), third, strict=True)
    }
    drawn = {f"method {i}": calibration(rng.random(2000), true == guessed) for i in range(methods)}
    shares = {"encoder": {f"logged {name}": [(1, 0.5), (2, 0.1)] for name in names}}
    pictures = [
        Picture("c", plots.confusion(true, guessed, names, groups), "c"),
        Picture("r", plots.reliability(drawn, 2000), findings.of_reliability(drawn)),
        Picture("s", plots.curves(shares, "share"), findings.of_shares(shares)),
    ]
    assert len(render(Report("t", pictures=pictures))) < 3_000_000


def test_plots_are_png():
    catalogue = Catalogue(("a", "b"), 24, True)
    day = Day(0, (1, 2), (1, 1), (0, 1))
    for picture in (
        plots.hours_by_behaviour({"real": [day], "generated": [Day(0, (), (), ())]}, catalogue),
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
    picture = plots.confusion(np.array([0, 1]), np.array([0, -1]), (label, "b"), {"tail": [0, 1]})
    assert picture.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", ["$a_$", "a\\$b$_$"])
def test_plots_take_any_label(label: str) -> None:
    """Also with an odd dollar in it."""
    catalogue = Catalogue((label, "b"), 24, True)
    day = Day(0, (1, 2), (1, 1), (0, 1))
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
