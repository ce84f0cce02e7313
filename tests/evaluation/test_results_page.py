"""Pages of results: from a run's records and metrics alone, and back to its config."""

import os
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.evaluation import results_page

QUICKSTART = "configs/quickstart.py"


def row(rec_w: float, **more: Any) -> dict[str, Any]:
    rest = {
        "tail": None,
        "log_loss": 1.23456,
        "hr@3": 0.5,
        "classes": {"0": {"n": 1, "recall": 1.0}},
    }
    return {
        "rec_w": rec_w,
        "rec_w_interval": [rec_w / 2, rec_w],
        "n": 40,
        "people": 3,
        **rest,
        **more,
    }


METRICS = {
    "prediction": {
        "majority": row(0.125),
        "zero_shot": row(0.0625),
        "bua": row(0.25, against={"majority": {"difference": 0.125, "low": -0.01, "high": 0.2}}),
    },
    "generation": {},
    "signature": "bua|seed:7",
    "warnings": ["The log-loss of bua is large."],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the records of two steps, as `pipeline.steps` writes them."""
    folder, config = tmp_path / "quickstart", configs.load(QUICKSTART)
    with config.unlocked():
        config.seed, config.stages = 7, (2, 3)
    (folder / "evaluation").mkdir(parents=True)
    (folder / "data").mkdir()
    files.write_json(folder / "evaluation" / "metrics.json", METRICS)
    shared = {"config": configs.plain(config), "seconds": 90.0}
    data = {**shared, "folders": {}, "hardware": {"device": "cpu", "cores": 2}}
    data["versions"] = {"git": "before", "bua_jax": "0.1.0"}
    files.write_sealed(folder / "data" / "record.json", data)
    scored = {**shared, "folders": {"data": "../data"}, "versions": {"git": "now", "jax": "1"}}
    scored["files"] = {"metrics.json": files.sha256_of(folder / "evaluation" / "metrics.json")}
    files.write_sealed(folder / "evaluation" / "record.json", scored)
    os.utime(folder / "evaluation" / "record.json", (1_700_000_000, 1_700_000_000))
    return folder


def test_what_is_collected(run: Path) -> None:
    said = results_page.collect(run, QUICKSTART, "quickstart")
    assert said["commits"] == ["before", "now"]
    assert said["date"] == "2023-11-14"
    assert said["machines"] == [{"device": "cpu", "cores": 2}]
    assert said["minutes"] == 3.0
    assert said["seeds"] == {"seed": 7, "windows.seed": 42, "data.seed": 1}
    assert "classes" not in said["metrics"]["prediction"]["bua"]


def test_the_command_gives_the_config_of_the_run(run: Path) -> None:
    words = shlex.split(results_page.collect(run, QUICKSTART, "quickstart")["command"])
    assert [word for word in words if word.startswith("--config.")] == [
        "--config.seed=7",
        "--config.stages=(2, 3)",
    ]
    assert words[:4] == ["python", "-m", "bua_jax.curriculum", f"--config={QUICKSTART}"]
    with pytest.raises(MismatchError, match=r"differ in the field train\."):
        results_page.collect(run, "configs/stage2.py", "quickstart")


def test_what_is_not_the_runs_is_refused(run: Path) -> None:
    files.write_json(run / "evaluation" / "metrics.json", {**METRICS, "signature": "another"})
    with pytest.raises(DataError, match=r"python -m bua_jax\.evaluate"):
        results_page.collect(run, QUICKSTART, "quickstart")
    (run / "data" / "record.json").unlink()
    with pytest.raises(DataError, match=r"There is no .*data/record\.json"):
        results_page.collect(run, QUICKSTART, "quickstart")


def test_page_picture_and_readme(run: Path, tmp_path: Path) -> None:
    said = results_page.collect(run, QUICKSTART, "quickstart")
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- results:quickstart -->\nold\n<!-- /results:quickstart -->\nb\n")
    for _ in range(2):  # again changes nothing
        results_page.write("quickstart", said, tmp_path / "results", readme)
        lines = readme.read_text().splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("a", "b", 10)
        assert (
            lines[4]
            == "| majority | 12.5 (6.2 to 12.5) | - | 1.235 | 50.0 | +12.5 (-1.0 to +20.0) |"
        )
        assert lines[5] == "| bua | 25.0 (12.5 to 25.0) | - | 1.235 | 50.0 |  |"
        assert lines[7] == "By these intervals BUA is not told apart from `majority`."
    page = (tmp_path / "results" / "quickstart.md").read_text()
    assert files.read_json(tmp_path / "results" / "quickstart.json") == said
    assert said["command"] in page
    assert "**The log-loss of bua is large.**" in page
    assert "only 3 test people" in page
    assert re.search(r"^\| zero_shot \| 6\.2 ", page, re.MULTILINE)
    picture = ElementTree.parse(tmp_path / "results" / "quickstart.svg").getroot()
    dots = picture.findall("{*}circle")
    places = [float(dot.attrib["cx"]) for dot in dots]
    assert places[2] > places[0] > places[1]
    assert [dot.attrib["class"] for dot in dots] == ["dot", "dot", "dot main"]
