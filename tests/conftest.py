"""A CPU-only JAX with a persistent compilation cache: a second run of the tests is short."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

from pathlib import Path

import jax
import pytest

from tests.helpers import ROOT
from tests.runs import curriculum

jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a finished quickstart at reduced size."""
    workdir = tmp_path_factory.mktemp("runs") / "quickstart"
    done = curriculum(workdir)
    assert done.returncode == 0, done.stderr
    return workdir
