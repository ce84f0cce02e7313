"""What every method of weighting must keep to, one of the table or of a file of one's own.

    BALANCER=mine.py:power=2 python -m pytest -q tests/training/test_balancers.py

walks the properties for that file too.
"""

import os
from typing import Any

import numpy as np

from bua_jax.training.balancers import host, table
from bua_jax.training.weighting import Balancer

UNITS = 5
NAMES = [name for name, entry in table.BALANCERS.items() if not entry.traced]
OWN = [name for name in [os.environ.get("BALANCER", "")] if name]


def method(text: str) -> Balancer:
    """The method that a text names, in numpy."""
    _, entry, settings = table.parse(text)
    return entry.build(**settings)


class Run:
    """A method asked step by step, with its state."""

    def __init__(self, text: str, units: int = UNITS, seed: int = 0) -> None:
        self.method, self.seed, self.steps = method(text), seed, 0
        self.state = self.method.init(units)

    def step(self, losses: Any, gram: Any = None, validation: Any = None) -> np.ndarray:
        """Weights float[K] after one step; the gram is given if the method asks for it."""
        given = np.asarray(gram, float) if self.method.gram else None
        measured = validation if self.method.validated else None
        rng, losses = np.random.default_rng([self.seed, self.steps]), np.asarray(losses, float)
        self.steps += 1
        weights, self.state = host.asked(self.method, losses, given, self.state, rng, measured)
        if self.method.after:
            fallen = 0.9 * losses**1.1  # unequally, lest an optimiser divide rounding by rounding
            self.state = host.afterwards(self.method, fallen, self.state)
        return weights


def gradients(seed: int, units: int = UNITS, size: int = 8, apart: float = 1.0) -> np.ndarray:
    """float[K, size], their norms up to 10^apart apart on both sides; about half of them conflict."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((units, size)) * 10 ** rng.uniform(-apart, apart, (units, 1))
