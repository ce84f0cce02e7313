"""One engine for the tests of this folder."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from bua_jax.pipeline.finished import load
from bua_jax.serving.app import Office
from bua_jax.serving.limits import Limits
from bua_jax.serving.server import Drawn, desk_of
from tests.support.serving import closing


@pytest.fixture(scope="package")
def office(quickstart: Path) -> Iterator[Office]:
    """What is written is short, or seconds would be spent on it."""
    bua = load(quickstart)
    short = ConfigDict({**bua.decoding.to_dict(), "max_new_tokens": 12})
    bua, limits = replace(bua, decoding=short), Limits()
    with closing(Office(bua, desk_of(bua, limits, Drawn()), limits)) as one:
        yield one
