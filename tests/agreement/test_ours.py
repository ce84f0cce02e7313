"""A training step of ours against plain numpy in float64: each quantity within its tolerance."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bua_jax.agreement import ours, plain
from bua_jax.agreement.quantities import QUANTITIES, above, tolerances
from bua_jax.models.qwen2_config import DTYPES
from bua_jax.training.losses import LOSSES
from tests.support.helpers import ROOT


def compared(made: Any, dtype: str) -> dict[str, float]:
    found = ours.ours(made.stage, made.batch, made.reference)
    assert found.keys() == made.reference.keys()
    differences = plain.differences(found, made.reference, made.batch)
    assert {name.split()[0] for name in differences} == QUANTITIES.keys()
    assert above(differences, tolerances(dtype)) == []
    return differences


def test_every_quantity_of_a_step_is_float64s(made: Any) -> None:
    found = compared(made, "float32")
    assert {f"loss {name}" for name in LOSSES} <= found.keys()
    assert sum(name.startswith("gradient") for name in found) == 6 + 14  # projector, adapter
    of_kinds = np.diag(made.reference["kinds"]) > 0
    assert np.array_equal(of_kinds, np.isin(np.arange(1, 12), made.batch["kinds"]))
    assert all(np.abs(value).max() > 0 for value in made.reference.values())


@pytest.mark.long
def test_and_with_a_base_in_bfloat16(make: Callable[[str], Any]) -> None:
    """Within eps of that type, and, in what float32 would do, far outside float32's tolerances."""
    found = compared(make("bfloat16"), "bfloat16")
    assert {name.split()[0] for name in above(found, tolerances("float32"))} >= {"norm", "layer"}
    assert set(DTYPES) == {*QUANTITIES["norm"]._fields} - {"reason"}


def test_the_distances_by_hand() -> None:
    batch = {"segments": np.array([[1, 1, 0]])}
    y = np.array([[[3.0], [-4.0], [9.0]]])
    x = y + np.array([[[0.5], [0.0], [99.0]]])  # padding does not count
    assert plain.measure("layer 1", x, y, batch) == pytest.approx(0.5 / np.sqrt(12.5))
    assert plain.measure("gradient g", [3.0, 4.0], [3.0, 5.0], {}) == pytest.approx(1 / np.sqrt(34))
    assert plain.measure("supervised", [[1, 0, 1]], [[1, 1, 0]], {}) == 2
    assert plain.measure("loss x", 1.0, 1.25, {}) == 0.25
    assert plain.measure("nll", [np.nan], [1.0], {}) == np.inf
    assert plain.measure("logits", np.zeros((1, 2)), np.zeros((1, 3)), {}) == np.inf
    products = np.array([[4.0, 0.0], [0.0, 0.0]])
    assert plain.measure("kinds", products + [[1, 0], [0, 0]], products, {}) == 0.25


def test_the_page_lists_them_in_their_order() -> None:
    page = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(QUANTITIES)


def test_order_of_the_best_ten_and_divergence() -> None:
    """An exchange costs what the reference's first leads by; equal orders cost nothing."""
    theirs = np.array([[4.0, 3.0, 2.0, *([-9.0] * 20)], [4.0, 3.0, 2.0, *([-9.0] * 20)]])
    mine = theirs.copy()
    mine[1, :3] = 4.0, 1.0, 2.5
    mine[:, 12] = 1.0  # is none of the reference's ten best
    found = plain.of_logits(mine, theirs)
    assert found["top10"] == 1.0
    p, q = (np.exp(z[1]) / np.exp(z[1]).sum() for z in (theirs, mine))
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum())
    assert plain.of_logits(theirs + 1.0, theirs) == pytest.approx({"kl": 0, "top10": 0})
