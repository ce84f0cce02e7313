"""A stranger's first day by the README's text: a wheel in an environment of its own, a folder with spaces,
and three logs that nothing of ours has written."""

import csv
import datetime
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.support.helpers import ROOT
from tests.support.readme import blocks_of, commands
from tests.support.runs import REDUCED

TWO_SCRIPTS = [f"task {a}{b}" for a in "abcd" for b in "efghi"] + [
    f"дело {a}{b}" for a in "абвг" for b in "ежзик"
]

FEW = (
    *REDUCED,
    "--config.stages=(2,)",
    "--config.evaluation.methods=('majority','bua')",
    "--config.windows.test=16",
    "--config.windows.generation_test=1",
)


class Stranger(NamedTuple):
    """folder: where it works; python: of its environment."""

    folder: Path
    python: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a command prints; `python` and `bua` are those of its environment. It must succeed."""
        scripts = self.python.parent
        own = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(scripts / words[0]), *words[1:]],
            cwd=self.folder,
            env={**own, "PATH": f"{scripts}:{own['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """The wheel alone is its own; what it depends on is read where it is installed already."""
    base = tmp_path_factory.mktemp("a stranger's folder")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    quick = ["--no-deps", "--no-build-isolation"]
    source = base / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([*pip, "wheel", *quick, f"--wheel-dir={base}", str(source)], check=True)
    (wheel,) = base.glob("*.whl")
    venv.create(base / "env", symlinks=True)
    python = base / "env" / "bin" / "python"
    paths = {"base": str(base / "env"), "platbase": str(base / "env")}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, f"--python={python}", "install", "--no-deps", str(wheel)], check=True)
    (base / "work").mkdir()
    return Stranger(base / "work", python)


def write(
    path: Path,
    header: Sequence[str],
    labels: Sequence[str],
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> None:
    """A log of 16 people over 14 days; a label is less frequent than the one before it."""
    rng = Random(path.name)
    weights = [0.8**i for i in range(len(labels))]
    with path.open("w", encoding=encoding, newline="") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(header)
        for number in range(16 * 14 * 6):
            person, day, turn = number // 84, number // 6 % 14, number % 6
            time = datetime.datetime(2024, 3, 4 + day, 7 + 3 * turn, rng.choice((0, 15, 30)))
            place = ("home", "work", "café")[(turn + person) % 3]
            label = rng.choices(labels, weights)[0]
            out.writerow([f"person {person}", time.isoformat(), label, place][: len(header)])


def test_it_is_the_wheel_that_runs(stranger: Stranger) -> None:
    said = stranger.run("python", "-c", "import bua_jax; print(bua_jax.__file__)").stdout
    assert Path(said.strip()).is_relative_to(stranger.python.parents[1])
    assert "first" in stranger.run("bua", "--help").stdout.lower()


@pytest.mark.parametrize(
    ("header", "labels", "dialect", "told"),
    [
        pytest.param(
            ("Wer", "Zeitpunkt", "Tätigkeit", "Ort"),
            ("schlafen", "Büro", "einkaufen", "Straße fegen"),
            {"delimiter": ";", "encoding": "cp1252"},
            {"user": "Wer", "time": "Zeitpunkt", "behaviour": "Tätigkeit", "location": "Ort"},
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("member", "started", "what"),
            ("sleep", "work", "shop", "read", "walk"),
            {},
            {"user": "member", "time": "started", "behaviour": "what"},
            marks=pytest.mark.long,
        ),
        (
            ("user_id", "time", "behavior", "location"),
            TWO_SCRIPTS,
            {},
            {"user": "user_id", "time": "time", "behaviour": "behavior", "location": "location"},
        ),
    ],
    ids=["German dialect", "no places", "two scripts"],
)
def test_check_and_a_dry_fit(
    stranger: Stranger, header: tuple[str, ...], labels: tuple, dialect: dict, told: dict
) -> None:
    name = f"log of {len(labels)}.csv"
    write(stranger.folder / name, header, labels, **dialect)
    said = ["--columns=user=Wer,behaviour=Tätigkeit,location=Ort"] * (
        "Wer" in header
    )  # as its error asks for
    stranger.run("bua", "check", name, *said, "--json=found.json", "--html=found.html")
    found = json.loads((stranger.folder / "found.json").read_text())
    assert {one["role"]: one["column"] for one in found["columns"]} == told
    assert found["card"]["events"] == 16 * 14 * 6
    assert found["problems"] == []
    done = stranger.run("bua", "fit", name, *said, "--dry-run", f"--workdir=runs/{len(labels)} l")
    assert "to build" in done.stdout


def test_readmes_commands_from_ones_own_log_to_an_answer(stranger: Stranger) -> None:
    """As printed, at reduced size, on 40 labels in two scripts; then Python's lines of docs/your-data.md."""
    write(
        stranger.folder / "events.csv",
        ("user_id", "time", "behavior", "location"),
        TWO_SCRIPTS,
    )
    (block,) = [b.body for b in blocks_of(ROOT / "README.md") if "check events.csv" in b.body]
    ran = []
    activate, *verbs = commands(block)
    assert activate == [".", ".venv/bin/activate"]  # here that of `stranger`
    for words in verbs:
        reduced = [flag for flag in FEW if words[2] == "bua_jax.fit" and ".data." not in flag]
        stranger.run(*words, *reduced)
        ran.append(words[2].removeprefix("bua_jax."))
    assert ran == ["check", "anonymise", "fit", "predict"]
    with (stranger.folder / "next.csv").open(encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 16
    for answer in answers:
        shares = json.loads(answer["probabilities"])
        assert set(shares) <= set(TWO_SCRIPTS)
        assert answer["prediction"] == max(shares, key=shares.__getitem__)
    (lines,) = [
        b.body
        for b in blocks_of(ROOT / "docs/your-data.md")
        if b.words[0] == "python" and "read_people" in b.body
    ]
    asked = f'only="{answers[0]["id"]}"'
    (stranger.folder / "ask.py").write_text(
        lines.replace("events.csv", "shared/events.parquet").replace('only="anna"', asked)
    )
    assert repr(answers[0]["prediction"]) in stranger.run("python", "ask.py").stdout
