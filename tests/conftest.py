"""A CPU-only JAX with a persistent compilation cache: a second run of the tests is short."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

from pathlib import Path

import jax
import pytest

from tests.support.helpers import ROOT
from tests.support.runs import curriculum

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# A job in the background begins with Ctrl-C ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where two workers share the tests (launch/test.sh), one is to run a whole file, and one all tests of
    the quickstart's workdir. Beside a pytest whose node ids take no suffix xdist 3.8 sees no groups: what
    tests share is then made by each worker."""
    for item in items:
        shared = "quickstart" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("quickstart" if shared else str(item.path)))


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a finished quickstart at reduced size."""
    workdir = tmp_path_factory.mktemp("runs") / "quickstart"
    done = curriculum(workdir)
    assert done.returncode == 0, done.stderr
    return workdir
