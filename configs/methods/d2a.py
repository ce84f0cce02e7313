"""D2A (Wang et al., 2024) by the base as it comes: a day of what eases desires most; no training.

Six questions per step and person: with steps of an hour a day takes 145, so ask about few days.

    python -m bua_jax.curriculum --config=configs/curriculum.py --config.evaluation.methods="('d2a','bua')" \\
        --config.windows.generation_test=16
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.step_minutes = 60  # of a plan, whole hours; the original: 20
    config.temperature = 1.0  # of all that is written; 0 = greedy
    return config
