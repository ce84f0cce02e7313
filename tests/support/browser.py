"""Pages in a real browser, without a window."""

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


def find() -> str:
    """The browser's program. Without one a test skips on a laptop and fails with CI=true."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no chromium; CI installs Debian's (launch/test.sh)")
    pytest.skip("there is no chromium (apt-get install chromium)")


def written_by(chromium: str, page: Path | str, profile: Path, *flags: str) -> str:
    """What a page (a file or an address) writes into its `#out`; no line may reach the console."""
    command = [
        *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", *flags),
        *(
            "--virtual-time-budget=10000",
            "--dump-dom",
            page.as_uri() if isinstance(page, Path) else page,
        ),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    (out,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, done.stderr[-2000:]
    return html.unescape(out)


def measured(chromium: str, folder: Path, page: str, width: int, dark: bool = False) -> Any:
    """What `MEASURE` found of a page in a frame of that width; no line may reach the console."""
    inside = json.dumps(page).replace("</", "<\\/")
    text = MEASURE.replace("WIDTH", str(width)).replace("LEAST", str(LEAST_CONTRAST))
    (folder / "frame.html").write_text(text.replace("PAGE", inside), encoding="utf-8")
    colours = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    return json.loads(written_by(chromium, folder / "frame.html", folder / "profile", colours))
