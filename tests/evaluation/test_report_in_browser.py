"""report.html in a real browser: nothing overflows a phone, and all can be read in light and in dark."""

from pathlib import Path

import pytest

from tests.support.browser import measured


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_the_page_of_a_run(
    chromium: str, quickstart: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    path = quickstart / "report.html"
    assert path.stat().st_size < 3_000_000
    found = measured(chromium, tmp_path, path.read_text(encoding="utf-8"), width, dark)
    assert found["background"] == ("rgb(22, 22, 26)" if dark else "rgb(255, 255, 255)")
    assert found["overflow"] == 0
    assert found["pale"] == []
    assert found["texts"] > 100
    assert found["dead"] == []
    assert found["silent"] == found["untitled"] == found["stuck"] == 0
    assert found["images"] >= 4
    assert found["tables"] >= 4


def test_what_is_wrong_is_found(chromium: str, tmp_path: Path) -> None:
    bad = (
        "<!doctype html><body style='background:#fff'><p style='color:#aaa'>pale</p><a href='#no'>x</a>"
        "<div style='width:900px'>wide</div><img alt='short' src='data:image/png;base64,'>"
        "<table><tr><td>cell</td></tr></table>"
        "<div class='scroll' style='overflow:auto;width:50px'><b>unbreakableunbreakable</b></div>"
    )
    found = measured(chromium, tmp_path, bad, 390)
    assert found["overflow"] > 100
    assert [text for text, _ in found["pale"]] == ["pale"]
    assert found["dead"] == ["#no"]
    assert found["silent"] == found["untitled"] == found["stuck"] == 1
    with pytest.raises(AssertionError, match="CONSOLE"):
        measured(chromium, tmp_path, "<body><script>console.error('bad')</script>", 390)
