"""What is compared of a training step, in the order in which it is computed, and what may differ, and why.

Tolerances are of a side in float32, or with its base in bfloat16, against float64. eps is the spacing of
numbers at 1: 2^-23 in float32, 2^-7 in bfloat16. What a quantity is: `plain.measure`; an entry ten times
the root mean square is rounded by ten times half of eps: bfloat16's tolerances of states begin with that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Quantity(NamedTuple):
    """How far a quantity may be from float64's, by the type of the base, and the reason."""

    float32: float
    bfloat16: float
    reason: str


QUANTITIES: dict[str, Quantity] = {
    "supervised": Quantity(0, 0, "a token counts or it does not"),
    "embedding": Quantity(
        1e-5, 5e-2, "a table's row, or two products of the projector: some ten eps"
    ),
    "norm": Quantity(1e-5, 1e-1, "a mean of squares in float32; input and output are rounded"),
    "projection": Quantity(
        5e-5, 1e-1, "sums of H products, whose roundings add up like a random walk"
    ),
    "rotation": Quantity(
        5e-4, 2e-1, "angles are float32: position x eps, so 4096 positions lose 5e-4"
    ),
    "attention": Quantity(5e-4, 2e-1, "a mean of values whose weights the rotations' error moves"),
    "layer": Quantity(1e-3, 4e-1, "what layers lose adds up along the residual stream"),
    "logits": Quantity(1e-3, 1e0, "nats; sums of H products of the last layer, some units wide"),
    "kl": Quantity(1e-6, 5e-2, "half of the square of what logits differ by, as a token sees it"),
    "top10": Quantity(2e-3, 2e0, "two logits, each off by its tolerance, change places"),
    "nll": Quantity(2e-3, 1e0, "a logit less the mean of logits: two tolerances of logits"),
    "loss": Quantity(1e-4, 5e-2, "a mean of nll: roundings of single tokens average out"),
    "kinds": Quantity(2e-3, 2e-1, "products of two gradients: twice what a gradient loses"),
    "gradient": Quantity(1e-3, 2e-1, "a forward and a backward pass, relative to its norm"),
    "clipped": Quantity(1e-5, 1e-5, "one factor for all leaves; its norm is a sum in float32"),
    "update": Quantity(
        1e-4, 1e-4, "1 - 0.999 in float32 is off by 1e-5 of itself, and the root of it by half"
    ),
}
"""By the first word of a name, in the order of computation."""


def tolerances(dtype: str) -> dict[str, dict[str, Any]]:
    """name -> value and reason for a base of that type: of `models.qwen2_config.DTYPES`."""
    return {
        name: {"value": float(getattr(one, dtype)), "reason": one.reason}
        for name, one in QUANTITIES.items()
    }


def above(found: Mapping[str, float], of: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the differences above their tolerances, in the order of computation.

    The first of them names the place: all that is computed after it has its fault too.
    """
    order = list(QUANTITIES)
    wrong: Sequence[str] = [n for n, v in found.items() if not v <= of[n.split()[0]]["value"]]
    return sorted(wrong, key=lambda name: order.index(name.split()[0]))
