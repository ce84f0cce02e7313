"""A CPU-only JAX with a persistent compilation cache: a second run of the tests is short."""

import fcntl
import os
import shutil
import signal
from pathlib import Path

# Before jax is imported, and for all that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("MPLBACKEND", "agg")
# Two workers on two cores: threads that wait for each other at every tree would take seconds a tree.
os.environ.setdefault("OMP_NUM_THREADS", "1")
from tests.support.compiler import quick_flags

if "XLA_FLAGS" not in os.environ:  # asked once: workers, and what tests start, inherit it
    os.environ["XLA_FLAGS"] = quick_flags()

import pytest

from tests.support import browser
from tests.support.runs import curriculum

# A job in the background begins with Ctrl-C ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_stranger.py",
    "methods/test_contract.py",
    "test_quickstart.py",
    "training/test_invariance.py",
)
"""Files that are begun first, lest a worker be left alone with one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return LONGEST.index(path) if path in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser."""
    return browser.find()


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a finished quickstart at reduced size: made once, of which each worker has a copy."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made, own = shared / "quickstart", tmp_path_factory.mktemp("runs") / "quickstart"
    with (shared / "quickstart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "report.html").exists():  # the last thing that the verb writes
            done = curriculum(made)
            assert done.returncode == 0, done.stderr
    return Path(shutil.copytree(made, own))
