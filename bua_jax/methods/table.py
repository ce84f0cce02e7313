"""All systems by name: the rows that a config's `evaluation.methods` may name.

Adding one is a file here, a page in configs/methods where it has settings, and a line below.
"""

from bua_jax.methods import (
    a_llmrec,
    alphafuse,
    behavegpt,
    behavegpt_days,
    bua,
    collm,
    cross,
    d2a,
    encoder_adjusted,
    fused,
    hybrid_data,
    last_day,
    lightgbm,
    llara,
    majority,
    markov,
    markov_counts,
    pituning,
    reference,
    sand,
    sasrec,
    summary_alone,
    tallrec,
    untuned,
    window_majority,
    zero_shot,
    zero_shot_api,
)
from bua_jax.methods.protocol import Method

_OTHERS = (
    majority.METHOD,
    window_majority.METHOD,
    markov.METHOD,
    markov_counts.METHOD,
    lightgbm.METHOD,
    sasrec.METHOD,
    behavegpt.METHOD,
    pituning.METHOD,
    alphafuse.METHOD,
    tallrec.METHOD,
    collm.METHOD,
    llara.METHOD,
    a_llmrec.METHOD,
    *cross.METHODS,
    encoder_adjusted.METHOD,
    zero_shot.METHOD,
    zero_shot_api.METHOD,
    last_day.METHOD,
    *behavegpt_days.METHODS,
    sand.METHOD,
    *d2a.METHODS,
    *bua.METHODS,
    fused.METHOD,
    reference.METHOD,
    untuned.METHOD,
    *summary_alone.METHODS,
)
_GENERATORS = [method.name for method in _OTHERS if "generate" in method.says]
METHODS: dict[str, Method] = {
    method.name: method for method in (*_OTHERS, hybrid_data.method(_GENERATORS))
}
