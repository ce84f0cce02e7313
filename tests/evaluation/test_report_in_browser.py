"""report.html in a real browser: nothing overflows a phone, and all can be read in light and in dark."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import ROOT

LEAST_CONTRAST = 4.5  # of text on its background: WCAG 2.2, level AA

MEASURE = (ROOT / "tests" / "programs" / "measure_page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium() -> str:
    """Without a browser a test skips on a laptop and fails with CI=true."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no chromium; CI installs Debian's (launch/test.sh)")
    pytest.skip("there is no chromium (apt-get install chromium)")


def measured(chromium: str, folder: Path, page: str, width: int, dark: bool = False) -> Any:
    """What `MEASURE` found of a page in a frame of that width; no line may reach the console."""
    inside = json.dumps(page).replace("</", "<\\/")
    text = MEASURE.replace("WIDTH", str(width)).replace("LEAST", str(LEAST_CONTRAST))
    (folder / "frame.html").write_text(text.replace("PAGE", inside), encoding="utf-8")
    command = [
        *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *("--virtual-time-budget=10000", "--dump-dom", (folder / "frame.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    (out,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, done.stderr[-2000:]
    return json.loads(html.unescape(out))


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
