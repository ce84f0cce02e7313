"""What tests share: the real data sets and optional dependencies, which must be there in CI."""

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require(module: str) -> ModuleType:
    """Imports `module`; a test without it skips on a laptop and fails with CI=true."""
    try:
        return importlib.import_module(module)
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail(f"{module} is not installed; CI needs the extras test and parity")
        pytest.skip(f"{module} is not installed (pip install 'bua-jax[test,parity]')")


def shared_data(name: str) -> Path:
    """Path of a real data set beside the checkout; if missing, skips (fails with CI=true)."""
    path = ROOT.parent / "shared" / "data" / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing; CI checks out the data beside the project")
        pytest.skip(f"{path} is missing")
    return path
