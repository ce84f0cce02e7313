"""What a record says of the environment."""

import pytest

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
