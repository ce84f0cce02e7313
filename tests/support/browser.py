"""Pages in a real browser, without a window."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from queue import Queue
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


def _command(chromium: str, profile: Path, *flags: str) -> list[str]:
    return [
        *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", *flags),
    ]


def _check_console(said: str) -> None:
    lines = [line for line in said.splitlines() if "CONSOLE" in line]
    assert not lines, lines


def written_by(chromium: str, page: Path, profile: Path, *flags: str) -> str:
    """What a page writes into its `#out`; no line may reach the console."""
    command = _command(chromium, profile, *flags)
    command += ["--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    _check_console(done.stderr)
    (out,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, done.stderr[-2000:]
    return html.unescape(out)


def sent_by(chromium: str, address: str, profile: Path, sent: Queue[str]) -> str:
    """What a page of a server sends back to it, which puts it into `sent`; as `written_by`, in real time."""
    with (profile.parent / f"{profile.name}.log").open("w+") as log:
        process = subprocess.Popen(
            [*_command(chromium, profile), "--remote-debugging-port=0", address], stderr=log
        )
        try:
            return sent.get(timeout=120)
        finally:
            process.terminate()
            process.wait()
            log.seek(0)
            _check_console(log.read())


def measured(chromium: str, folder: Path, page: str, width: int, dark: bool = False) -> Any:
    """What `MEASURE` found of a page in a frame of that width; no line may reach the console."""
    inside = json.dumps(page).replace("</", "<\\/")
    text = MEASURE.replace("WIDTH", str(width)).replace("LEAST", str(LEAST_CONTRAST))
    (folder / "frame.html").write_text(text.replace("PAGE", inside), encoding="utf-8")
    colours = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    return json.loads(written_by(chromium, folder / "frame.html", folder / "profile", colours))
