"""TALLRec (Bao et al., 2023): the history in words, and an adapter that is tuned to answer; no encoder."""

from bua_jax.methods import hybrid

METHOD = hybrid.method("tallrec", "TALLRec", "Bao et al. (2023), RecSys: history in words, LoRA")
