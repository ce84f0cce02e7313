"""The verb from end to end on systems that count; tables that are what the result files give."""

import copy
import csv
import dataclasses
import functools
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bua_jax.basics.errors import DataError
from bua_jax.evaluation import results
from bua_jax.evaluation.counts import metrics
from bua_jax.evaluation.prediction import prediction_metrics
from bua_jax.evaluation.report import render
from bua_jax.events.groups import behaviour_groups
from bua_jax.experiments import all_claims, curves, pages, publish, report, report_page, run
from bua_jax.experiments.experiment import Cell, Claim, cells
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.windows import load_set
from tests.experiments.files import PLAIN, SMOOTH, experiment, write
from tests.support.helpers import ROOT
from tests.support.runs import verb


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workdir in which the verb has built the small experiment, and the experiment's file."""
    folder = tmp_path_factory.mktemp("experiment")
    argument = write(folder / "small.py")
    done = verb("experiment", f"--experiment={argument}", f"--workdir={folder / 'w'}")
    assert done.returncode == 0, done.stderr
    assert "20 cells: " in done.stdout
    assert "## What the paper claims" in done.stdout
    return folder / "w", argument


@pytest.fixture(scope="module")
def said(built: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((built[0] / "experiments" / "small-small" / "small.json").read_text())


def test_numbers_are_those_of_the_result_files(built, said) -> None:
    """Scored again, each cell by itself, with what scores a single run."""
    for cell in cells(experiment()):
        made = run.run_of(cell, built[0])
        store = load_store(made)
        frozen = load_set(made, "test", store)
        found = results.read(made.folder(cell.steps[0]) / results.FILE)
        targets = store.behaviour[frozen.windows.end]
        expected = prediction_metrics(
            targets, found.label, behaviour_groups(store), found.probability
        )
        row = said["rows"][cell.row.name]
        at = row["seeds"].index(cell.seed)
        for metric, one in row["metrics"].items():
            assert one["by_seed"][at] == pytest.approx(expected[metric], abs=1e-9), metric


def test_one_config_under_two_names_differs_by_nothing(said) -> None:
    against = said["rows"]["the same"]["against"]["rec_w"]
    assert (against["value"], against["p"], against["p_holm"]) == (0, 1, 1)
    verdicts = {(c["above"], c["below"]): c["verdict"] for c in said["claims"]}
    assert verdicts[PLAIN, "the same"] == "undecided"


def test_claims_have_the_side_that_the_numbers_have(said) -> None:
    rows = said["rows"]
    for claim in said["claims"]:
        above, below = (
            rows[claim[n]]["metrics"][claim["metric"]]["value"] for n in ("above", "below")
        )
        better = above < below if claim["metric"] == "log_loss" else above > below
        if claim["verdict"] != "undecided":
            assert (claim["verdict"] == "held") == better
        assert above == below or (claim["probability"] > 0.5) == better
    assert any(claim["verdict"] == "held" for claim in said["claims"])  # else nothing was seen here
    assert any(claim["verdict"] == "not held" for claim in said["claims"])


def test_equal_cells_were_built_once(built) -> None:
    """Twenty cells of two fits by seed, and of one data set."""
    kinds = {
        p.parent.name: len(list(p.parent.iterdir())) for p in (built[0] / "steps").glob("data/*")
    }
    assert kinds == {"data": 1}
    assert (
        len(list((built[0] / "steps" / "predict" / "markov" / "test").glob("*/record.json"))) == 10
    )


def test_again_it_builds_nothing(built) -> None:
    records = {p: p.stat().st_mtime_ns for p in built[0].rglob("record.json")}
    flags = (f"--experiment={built[1]}", f"--workdir={built[0]}")
    done = verb("experiment", *flags, "--rows=majority")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"5 cells: (\d+) steps, (\d+) distinct, \2 done, about 0 min \(none left\)", done.stdout
    )
    assert {p: p.stat().st_mtime_ns for p in built[0].rglob("record.json")} == records
    written = json.loads((built[0] / "experiments" / "small-small" / "small.json").read_text())
    assert len(written["cells"]) == 20  # all that are there, whichever were asked for


def test_a_cell_says_what_it_comes_from(built) -> None:
    flags = (f"--experiment={built[1]}", f"--workdir={built[0]}")
    done = verb("experiment", *flags, "--show=majority/2")
    found = json.loads(done.stdout)
    assert set(found["ids"]) == {"data", "windows/test", "fit/majority", "predict/majority/test"}
    for folder in found["folders"].values():
        assert (built[0] / folder / "record.json").is_file()
    assert (found["fields"]["seed"], found["config"]) == (2, "configs/quickstart.py")
    assert "--rows=majority --seeds=2" in found["command"]
    kept = verb("experiment", *flags, f"--keep={built[0]}/kept.tar.xz")
    assert kept.stdout.split("kept.tar.xz: ")[1] == "20 of 20 cells\n"
    wrong = verb("experiment", *flags, "--show=majority/9")
    assert wrong.returncode == 2
    assert "there is no such cell" in wrong.stderr


def test_without_an_experiment_it_says_so() -> None:
    done = verb("experiment")
    assert done.returncode == 2
    assert "--experiment=configs/experiments/table4.py" in done.stderr


def test_a_failed_seed_leaves_a_row_with_fewer(built, said) -> None:
    some = [cell for cell in cells(experiment()) if cell.name != f"{SMOOTH}/4"]
    found = report.collect(experiment(), some, built[0], "command")
    assert found["rows"][SMOOTH]["seeds"] == [1, 2, 3, 5]
    assert found["rows"][SMOOTH]["against"]["rec_w"]["over"] == "people"
    page = pages.page(found)
    assert f"Fewer seeds than others have: {SMOOTH}." in page
    assert "Marked *: over people alone" in page
    assert re.search(rf"^\| {SMOOTH} .* to [+-][\d.]+\)\* \|", page, re.MULTILINE)
    assert "Marked *" not in pages.page(said)
    assert ("test people are few" in page) == (said["people"] < 20)
    assert found["rows"][PLAIN] == said["rows"][PLAIN]


def test_few_seeds_decide_nothing(built) -> None:
    """Two seeds of one method would be called different in half of all tables."""
    some = [cell for cell in cells(experiment()) if cell.seed <= 4]
    found = report.collect(experiment(), some, built[0], "command")
    assert {claim["verdict"] for claim in found["claims"]} == {"undecided"}
    assert {claim["probability"] for claim in found["claims"]} == {None}


def test_a_metric_of_nothing_decides_nothing(built, tmp_path: Path, monkeypatch) -> None:
    """No window of the group, or a method without probabilities."""
    claims = (Claim(PLAIN, "majority", "tail"), Claim(PLAIN, "majority", "log_loss"))
    asked = dataclasses.replace(experiment(), claims=claims)
    asked_of = report.asked_of

    def of_nothing(cell: Cell, workdir: Path):
        found = asked_of(cell, workdir)
        counts = dataclasses.replace(found.counts, has_distribution=False)
        measure = functools.partial(metrics, groups={"head": [0], "medium": [1], "tail": []})
        return found._replace(counts=counts, measure=measure)

    monkeypatch.setattr(report, "asked_of", of_nothing)
    found = report.collect(asked, cells(asked), built[0], "command")
    assert [(c["verdict"], c["probability"]) for c in found["claims"]] == [("undecided", None)] * 2
    assert found["rows"][PLAIN]["metrics"]["tail"]["value"] is None
    pages.write(found, tmp_path)  # valid JSON


def test_one_person_is_too_few(built, monkeypatch) -> None:
    asked_of = report.asked_of

    def of_one(cell: Cell, workdir: Path):
        found = asked_of(cell, workdir)
        return found._replace(counts=found.counts.total())

    monkeypatch.setattr(report, "asked_of", of_one)
    with pytest.raises(DataError, match="one test person"):
        report.collect(experiment(), cells(experiment()), built[0], "command")


def test_a_table_is_published_whole_and_from_a_known_commit(said, tmp_path: Path) -> None:
    names = [cell.name for cell in cells(experiment())]
    known = copy.deepcopy(said)
    for cell in known["cells"].values():
        cell["commits"] = ["0123456789ab"]
    publish.check_whole(known, names)
    with pytest.raises(DataError, match=r"1 of 21 cells are not built, for example other/1"):
        publish.check_whole(known, [*names, "other/1"])
    mixed = copy.deepcopy(known)
    mixed["cells"]["majority/1"]["code"] = ["other"]
    with pytest.raises(DataError, match="several versions of the code"):
        publish.check_whole(mixed, names)
    unread = copy.deepcopy(known)
    unread["cells"]["majority/1"]["code"] = ["None"]
    with pytest.raises(DataError, match="majority/1 was built at the commit 'None'"):
        publish.check_whole(unread, names)
    for unknown in ("None", "0123456789ab+"):
        known["cells"]["majority/1"]["commits"] = [unknown]
        with pytest.raises(DataError, match="majority/1 was built at the commit"):
            publish.check_whole(known, names)


def test_every_form_has_every_row(said, tmp_path: Path) -> None:
    paths = {path.suffix: path for path in pages.write(said, tmp_path)}
    assert json.loads(paths[".json"].read_text()) == said
    for name in said["rows"]:
        assert f"| {name} |" in paths[".md"].read_text()
        assert f"\n{name.replace('_', chr(92) + '_')} & " in paths[".tex"].read_text()
    lines = list(csv.DictReader(io.StringIO(paths[".csv"].read_text())))
    assert len(lines) == sum(len(r["metrics"]) * len(r["seeds"]) for r in said["rows"].values())
    assert (
        "Prec_w .644 and Rec_w .642" in paths[".md"].read_text()
    )  # the footnote of a published row
    assert "rec\\_w" in paths[".tex"].read_text()
    for text in (paths[".tex"].read_text(), render(report_page.of_table(said))):
        assert "Prec_w .644 and Rec_w .642" in text
        assert "Always the same." in text  # the note of a row
        assert said["command"] in text


def test_signs_of_names_stay_what_they_are(said) -> None:
    """A bracket or a star after the end of a line would be that line's argument in LaTeX."""
    row = said["rows"]["majority"]
    odd = {**said, "rows": {"[no | stage]": row, "* twice": row}, "claims": []}
    tex, page = pages.latex(odd), pages.page(odd)
    assert "\n{}[no | stage] & " in tex
    assert "\n{}* twice & " in tex
    assert "| [no \\| stage] | " in page


def test_fewer_seeds_are_said_in_every_form(built) -> None:
    some = [cell for cell in cells(experiment()) if cell.seed < 3]
    found = report.collect(experiment(), some, built[0], "command")
    shown = (pages.page(found), pages.latex(found), render(report_page.of_table(found)))
    assert ["over people alone" in text for text in shown] == [True] * 3


def test_what_is_drawn_is_what_the_json_holds(said, tmp_path: Path) -> None:
    """A bar per row and column with its interval, in the page too; and none where none is asked for."""
    assert not [path for path in pages.write(said, tmp_path) if path.suffix == ".png"]
    drawn = {**said, "drawn": ["rec_w", "tail"]}
    *_, picture = pages.write(drawn, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"]({picture.name})" in (tmp_path / "small.md").read_text()
    found = pages.bars(drawn)
    assert [*found] == ["rec_w", "tail"]
    for name, value, low, high in found["rec_w"]:
        one = said["rows"][name]["metrics"]["rec_w"]
        assert (value, low, high) == (one["value"], one["low"], one["high"])
        assert low < value < high
    (shown,) = report_page.of_table(drawn).pictures
    assert shown.data.startswith(b"\x89PNG")
    best = max(found["rec_w"], key=lambda bar: bar[1])
    assert f"rec_w: {best[0]} is highest ({best[1]:.1%})" in shown.finding


def test_claims_show_their_paired_difference(said) -> None:
    """It is that of the table where the row is held against the reference; who claims it is said."""
    against = said["rows"]["majority"]["against"]["rec_w"]
    (claim,) = (c for c in said["claims"] if (c["below"], c["metric"]) == ("majority", "rec_w"))
    assert claim["difference"]["value"] == pytest.approx(-against["value"])
    assert claim["difference"]["low"] == pytest.approx(-against["high"])
    shown = {tuple(line[:2]): line[2] for line in pages.claims(said)}
    points = [100 * claim["difference"][name] for name in ("value", "low", "high")]
    expected = "{:+.1f} ({:+.1f} to {:+.1f})".format(*points)
    assert shown[f"{PLAIN} above majority", "rec_w"] == expected
    (nats,) = (text for (_, metric), text in shown.items() if metric == "log_loss")
    assert abs(float(nats.split()[0])) < 5  # no points
    assert "## What the paper claims" in pages.page(said)
    own = copy.deepcopy(said)
    for row in own["rows"].values():
        row.pop("published", None)
    assert "## Row against row" in pages.page(own)
    assert report_page.of_table(own).verdict[1].startswith("Of the 3 claims ")


def test_names_may_hold_any_signs(said, tmp_path: Path) -> None:
    name = r"a|b_c%d{e}~^\f & <g>"
    odd = copy.deepcopy(said)
    odd["rows"] = {name if n == "majority" else n: row for n, row in said["rows"].items()}
    paths = {path.suffix: path.read_text() for path in pages.write(odd, tmp_path)}
    assert r"| a\|b_c%d{e}~^\\f & &lt;g> |" in paths[".md"]
    tex = r"a|b\_c\%d\{e\}\textasciitilde{}\textasciicircum{}\textbackslash{}f \& "
    assert tex + r"\textless{}g\textgreater{} &" in paths[".tex"]
    assert name in {line["row"] for line in csv.DictReader(io.StringIO(paths[".csv"]))}
    command = publish.command_of("/home/me/x.py:scale=tiny", Path("/data/w"), ["a, b", "c"], ["1"])
    assert command == (
        "python -m bua_jax.experiment --experiment=x.py:scale=tiny --workdir=w "
        "'--rows=\"a, b\",c' --seeds=1"
    )


def test_the_page_of_an_experiment(said) -> None:
    """The reference against each row: what it is above lies right of the line, as the table says."""
    page = report_page.of_table(said)
    (picture,) = page.forests
    assert {line.name for line in picture.lines} == {*said["rows"]} - {PLAIN}
    pair = said["rows"]["majority"]["against"]["rec_w"]
    (line,) = (line for line in picture.lines if line.name == "majority")
    assert line[1:] == pytest.approx([-100 * pair[k] for k in ("value", "high", "low")])
    assert line.low > 0
    assert f"{PLAIN} is above majority" in page.verdict[0]
    assert page.verdict[1].startswith("Of the paper's 3 claims ")
    assert [table.title for table in page.elsewhere] == ["The paper's numbers"]
    shown = render(page)
    assert shown.count('class="ours"') == 2  # the reference in both tables
    assert shown.index("<aside") > shown.index("By seed")
    assert said["command"] in page.facts["command"]


def stale(folder: Path) -> list[str]:
    """Pages of experiments that are not what their JSON gives."""
    found = []
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text())
        shown = curves if "losses" in said else pages
        if "experiment" in said and path.with_suffix(".md").read_text() != shown.page(said):
            found.append(path.stem)
    return found


def test_published_pages_are_what_their_json_gives(said, tmp_path: Path) -> None:
    """No number in them is typed."""
    assert stale(ROOT / "docs" / "results") == []
    pages.write(said, tmp_path)
    assert stale(tmp_path) == []
    page = tmp_path / "small.md"
    page.write_text(page.read_text().replace(f"{said['n']:,} test windows", "9,999 test windows"))
    assert stale(tmp_path) == ["small"]


def test_the_page_of_all_claims_is_what_the_tables_hold(said, tmp_path: Path) -> None:
    results = ROOT / "docs" / "results"
    assert (results / all_claims.PAGE).read_text() == all_claims.page(all_claims.tables_in(results))
    pages.write(said, tmp_path)
    for number, text in enumerate(("{}", "[]", '{"claims": [1]}')):  # what is no table
        (tmp_path / f"{number}.json").write_text(text)
    page = all_claims.write(tmp_path).read_text()
    for claim, metric, difference, verdict, _ in pages.claims(said):
        assert f"| {claim} | {metric} | {difference} | {verdict} |" in page
    assert f"Of {len(said['claims'])} claims: " in page
    said["claims"][0]["verdict"] = "upside down"
    pages.write(said, tmp_path)
    assert all_claims.page(all_claims.tables_in(tmp_path)) != page
