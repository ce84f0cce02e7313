"""CoLLM (Zhang et al., 2025): a tuned adapter first, then SASRec's items and last state mapped into words."""

from bua_jax.methods import hybrid

METHOD = hybrid.method(
    "collm", "CoLLM", "Zhang et al. (2025), TKDE: words with SASRec's items and state, yes or no"
)
