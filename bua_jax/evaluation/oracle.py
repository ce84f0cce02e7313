"""Oracle substitution (Appendix J): does a prediction follow from what was understood before it?"""

from typing import Any

import numpy as np


def flips(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """What another way of asking changes, from bool[n] and bool[n]: is each prediction right?

    `r2w` are right before and wrong after, `w2r` the reverse; (w2r - r2w) / n is the change of accuracy.
    `p` is McNemar's exact test: given that a prediction flips, both ways are equally likely.
    Raises `ValueError` if the two differ in length.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} predictions before, but {len(after)} after.")
    from scipy.stats import binomtest  # a second, which verbs that score nothing need not wait for

    r2w, w2r = int((before & ~after).sum()), int((~before & after).sum())
    p = float(binomtest(w2r, r2w + w2r).pvalue) if r2w + w2r else 1.0
    return {"accuracy": float(after.mean()), "r2w": r2w, "w2r": w2r, "p": p}
