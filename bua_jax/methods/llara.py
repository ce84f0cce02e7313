"""LLaRA (Liao et al., 2024): words with SASRec's items behind them, which a curriculum brings in."""

from bua_jax.methods import hybrid

METHOD = hybrid.method(
    "llara", "LLaRA", "Liao et al. (2024), SIGIR: words, then SASRec's items beside them"
)
