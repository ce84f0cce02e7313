"""What is said before anything is built, and the page of validation losses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.evaluation.report import render
from bua_jax.experiments import curves, publish, report_page
from bua_jax.experiments.experiment import SCALES
from tests.experiments.files import experiment


def test_what_could_not_be_written_is_said_before_anything_is_built(tmp_path: Path) -> None:
    small, there = experiment(), tmp_path / "small.json"
    publish.check_asked(small, "", str(tmp_path), [], [])
    there.write_text(json.dumps({"title": small.title}))
    publish.check_asked(small, "", str(tmp_path), [], [])
    there.write_text('{"title": "Large"}')
    tiny = dataclasses.replace(small, scale=SCALES["tiny"])
    for asked, archive, folder, rows, said in (
        (
            small,
            "",
            str(tmp_path),
            [],
            r"small\.json is of another experiment \('Large', not 'Small'\)",
        ),
        (tiny, "", str(tmp_path), [], "scale tiny learns nothing"),
        (small, "", str(there), [], "is a file. Choose another path"),
        (small, "cells.zip", "", [], r"--keep=cells.zip: expected .* \.tar\.xz"),
        (small, "cells.tar.xz", str(tmp_path), [], "give it alone"),
        (small, "cells.tar.xz", "", ["majority"], "give it alone"),
        (small, f"{there}/cells.tar.xz", "", [], "is a file. Choose another path"),
    ):
        with pytest.raises(ConfigError, match=said):
            publish.check_asked(asked, archive, folder, rows, [])


def test_curves_are_held_against_each_other_by_seed(tmp_path: Path) -> None:
    """By hand: lowest losses 1.0 and 1.5 (seed 1), 1.2 and 1.4 (seed 2)."""
    said = {
        "experiment": "x",
        "scale": "laptop",
        "title": "X",
        "reference": "staged",
        "claims": [{"above": "staged", "below": "joint", "metric": "lowest prediction"}],
        "command": "c",
        "config": "f",
        "fields": {},
        "cells": {},
        "losses": {
            "staged": {
                "1": {"prediction": [[0.5, 2.0], [1.0, 1.0]]},
                "2": {"prediction": [[0.5, 1.2], [1.0, 1.3]]},
            },
            "joint": {
                "1": {"prediction": [[0.5, 1.5], [1.0, 1.9]]},
                "2": {"prediction": [[0.5, 3.0], [1.0, 1.4]]},
            },
        },
    }
    found = curves.compared(said, "staged", "joint", "prediction", "lowest")
    assert found == {"one": 1.1, "other": 1.45, "difference": pytest.approx(-0.35), "seeds": 2}
    assert curves.compared(said, "staged", "joint", "refinement", "lowest") is None
    assert curves.claims(said)[0][2:] == ["-0.350", "undecided", "-"]
    five = {str(s): {"prediction": [[1.0, float(s)]]} for s in range(5)}
    said["losses"] = {"staged": five, "joint": {s: {"prediction": [[1.0, 1.0]]} for s in five}}
    found = curves.compared(said, "staged", "joint", "prediction", "first")
    assert found is not None
    y = np.arange(5) - 1.0
    reach = 2.7764 * y.std(ddof=1) / 5**0.5  # t of 4 degrees of freedom
    assert found["low"] == pytest.approx(y.mean() - reach, abs=1e-3)
    for of_joint, verdict in (
        (lambda s: s + 5 + 0.1 * s, "held"),
        (lambda s: s - 5 + 0.1 * s, "not held"),
        (lambda s: 2.0, "undecided"),
    ):
        said["losses"]["joint"] = {s: {"prediction": [[1.0, of_joint(int(s))]]} for s in five}
        assert curves.claims(said)[0][3] == verdict
    assert "| prediction | lowest | joint |" in curves.page(said)
    written = {path.suffix: path.read_bytes() for path in curves.write(said, tmp_path)}
    assert {*written} == {".json", ".md", ".tex", ".csv", ".png"}
    assert written[".csv"].decode().splitlines()[1] == "staged,0,prediction,1.0,0.000000"
    assert b"prediction & lowest & joint & " in written[".tex"]
    assert curves.picture(said)[:4] == b"\x89PNG"
    page = report_page.of_curves(said)
    assert page.verdict == [
        "Of the paper's 1 claims 0 hold here, 0 do not, and 1 cannot be told at this size."
    ]
    assert page.claims == [("staged below joint, lowest prediction", "undecided", "0.50")]
    assert "joint: validation loss from 2.00 to 2.00" in page.pictures[0].finding
    assert render(page).count("<figure>") == 1
