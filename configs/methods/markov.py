"""First-order Markov chain over behaviours.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.markov.smoothing=1.0
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.smoothing = 0.1  # added to every count of a transition
    return config
