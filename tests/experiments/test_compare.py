"""`runs` and `compare`: what lies in a folder, and what differs between finished runs."""

import json
import shutil
from pathlib import Path

import pytest

from bua_jax.basics import files
from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.evaluation.counts import resamples
from bua_jax.experiments.compare import (
    _asked,
    _differences,
    compare,
    finished,
    runs_in,
    sections,
)
from tests.support.runs import verb


@pytest.fixture(scope="module")
def folder(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal runs, a third with other windows' length in its config, and what is no run."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        shutil.copytree(quickstart, folder / name)
    said = files.read_sealed(folder / "b" / "run.json")
    said["config"]["stage2"]["peak_lr"] = 0.25
    files.write_sealed(folder / "b" / "run.json", {k: v for k, v in said.items() if k != "sha256"})
    (folder / "notes").mkdir()
    return folder


def test_runs_are_listed_with_what_they_reached(folder: Path, tmp_path: Path) -> None:
    found = runs_in(folder)
    assert [one["name"] for one in found] == ["a", "b"]
    metrics = json.loads((folder / "a" / "metrics.json").read_text())
    assert found[0]["rec_w"] == metrics["prediction"]["bua"]["rec_w"]
    assert found[0]["evaluated"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    done = verb("runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stdout
    assert "run.json" in done.stdout
    assert verb("runs", str(folder / "none")).returncode == 2


def test_a_run_beside_its_equal(folder: Path, tmp_path: Path) -> None:
    pages = [f"--{kind}={tmp_path / kind}" for kind in ("json", "html", "latex")]
    done = verb("compare", str(folder / "a"), str(folder / "b"), *pages)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "json").read_text())
    assert found["paired"]
    assert found["differing"] == {"stage2.peak_lr": [pytest.approx(0.0015), 0.25]}
    for one in found["differences"]["b"].values():
        assert one == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert "stage2.peak_lr" in done.stdout
    assert "Losses of a" in (tmp_path / "html").read_text()
    assert r"rec\_w" in (tmp_path / "latex").read_text()
    assert "test people: with fewer than 20 they are too narrow" in done.stderr


def test_a_difference_is_that_of_the_runs_own_table(folder: Path) -> None:
    """Between two rows of one run, of which the evaluation has said the difference another way."""
    one = finished(folder / "a")
    bua, markov = (_asked(one, name) for name in ("bua", "markov"))
    found = _differences(bua, markov, resamples(len(bua.counts), 500, 0))
    against = one.metrics["prediction"]["bua"]["against"]["markov"]
    assert found["rec_w"]["difference"] == pytest.approx(-against["difference"])
    assert found["rec_w"]["low"] <= found["rec_w"]["difference"] <= found["rec_w"]["high"]


def test_what_cannot_be_compared_is_said(folder: Path) -> None:
    with pytest.raises(DataError, match="two or more runs of different names, not a"):
        compare([folder / "a", folder / "a"])
    with pytest.raises(MismatchError, match="no row 'nobody'; it has"):
        compare([folder / "a", folder / "b"], "nobody")
    with pytest.raises(MismatchError, match="is no run"):
        compare([folder / "a", folder / "notes"])


@pytest.mark.parametrize(
    ("commits", "shown"),
    [(["c", "c"], [["nothing", "", ""]]), (["c", "d"], [["commit", "c", "d"]])],
)
def test_what_is_the_same_does_not_differ(commits: list[str], shown: list[list[str]]) -> None:
    found = {"runs": ["a", "b"], "method": "bua", "metrics": {"a": {}, "b": {}}, "people": 3}
    *_, last = sections({**found, "differences": {"b": None}, "differing": {}, "commits": commits})
    assert [list(row) for row in last.rows] == shown
