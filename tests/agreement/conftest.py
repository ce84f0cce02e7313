"""The tiny stage, its batch, and float64's reference of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from bua_jax.agreement import ours, plain
from bua_jax.agreement.ours import Stage
from tests.agreement import small
from tests.support.helpers import require


class Made(NamedTuple):
    """A stage, a batch, the base by Hugging Face's names, and what `plain` makes of them."""

    stage: Stage
    batch: dict[str, Any]
    base: dict[str, Any]
    reference: dict[str, Any]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """A stage whose base is of a type."""

    def of(dtype: str) -> Made:
        torch = require("torch")
        stage = small.stage(dtype)
        batch = small.batch_of(stage)
        base = small.base_of(stage, tmp_path_factory.mktemp("base"))
        found = plain.compute(ours.recipe(stage), base, stage.trained, batch, torch)
        return Made(stage, batch, base, found)

    return of


@pytest.fixture(scope="session")
def made(make: Callable[[str], Made]) -> Made:
    """In float32."""
    return make("float32")
