"""A sample of `launch/attack.sh`: no corruption is silent, a traceback, or without a remedy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.helpers import ROOT


def test_a_sample_of_the_attack(quickstart: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(quickstart, tmp_path / "run"))
    command = [sys.executable, "-m", "tests.programs.attack", str(run), "1", "6", "1", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found.get(kind, 0) for kind in ("refused", "mended", "unread")) >= 1
    assert found["kills"] == 1
