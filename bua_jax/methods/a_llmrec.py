"""A-LLMRec (Kim et al., 2024): SASRec's items are aligned with their words, then read by a frozen base.

Its first stage is the mapping `two_stage`: `alignment.two_stage`, `models.two_stage`.
"""

from bua_jax.methods import hybrid

METHOD = hybrid.method(
    "a_llmrec", "A-LLMRec", "Kim et al. (2024), KDD: items aligned with words, the base as it comes"
)
