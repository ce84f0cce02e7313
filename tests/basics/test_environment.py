"""What a record says of the environment."""

import subprocess
from pathlib import Path

import pytest

from bua_jax.basics import environment
from bua_jax.basics.environment import VARIABLES, versions


def test_variables_by_which_jax_computes_other_numbers_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert versions()["variables"] is None
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_a --xla_b")
    assert versions()["variables"] == "XLA_FLAGS=--xla_a --xla_b JAX_ENABLE_X64=1"


def test_what_is_committed(tmp_path: Path) -> None:
    """A file as it is in the last commit, and no other; also outside of any repository."""
    path = tmp_path / "table.py"
    path.write_text("1")
    assert not environment.is_committed(path)
    for words in (["init", "-q"], ["add", "table.py"], ["commit", "-qm", "one"]):
        name = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True)
    assert environment.is_committed(path)
    path.write_text("2")
    assert not environment.is_committed(path)
    assert not environment.is_committed(tmp_path / "other.py")
