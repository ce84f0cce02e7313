"""Data at scale, at a toy size: what docs/results/speeds.md shows is measured by hand."""

import json
from pathlib import Path

import pytest

from tests.support.runs import verb


def bench(tmp_path: Path, sizes: str, *flags: str):
    folders = (f"--scratch={tmp_path / 'scratch'}", f"--output={tmp_path / 'found.json'}")
    return verb("bench", "events", f"--events={sizes}", "--windows=300", *folders, *flags)


@pytest.mark.long
def test_sizes_are_measured_once_and_plotted(tmp_path: Path) -> None:
    done = bench(tmp_path, "20000")
    assert done.returncode == 0, done.stderr
    done = bench(tmp_path, "20000,40000")
    assert done.returncode == 0, done.stderr
    assert "20,000 events: measured before" in done.stderr
    assert "40,000 events: measuring" in done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["sizes"]
    assert [size["rows"] for size in found] == [20_000, 40_000]
    for size in found:
        # 300 training and up to 80 validation windows, and a fifth as many of stage 1
        assert 300 <= size["dialogues"] <= 460
        assert set(size["seconds"]) == set(size["peak_gib"]) == {"anonymise", "data", "dialogues"}
        assert min(size["seconds"].values()) > 0
        assert min(size["cpu_seconds"].values()) > 0
        assert all(0.05 < peak < 4 for peak in size["peak_gib"].values())
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("sizes", ["many", "-5", "0"])
def test_sizes_that_are_no_numbers(tmp_path: Path, sizes: str) -> None:
    done = bench(tmp_path, sizes)
    assert done.returncode == 2
    assert f"--events holds '{sizes}'" in done.stderr
