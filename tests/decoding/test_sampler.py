"""The greedy choice of a token."""

import numpy as np

from bua_jax.decoding.sampler import highest


def test_highest_is_numpys_argmax_also_of_ties() -> None:
    logits = np.random.default_rng(0).integers(0, 4, (64, 33)).astype(np.float32)  # many ties
    logits[0], logits[1, 5:] = -np.inf, -np.inf
    np.testing.assert_array_equal(highest(logits), logits.argmax(-1))
