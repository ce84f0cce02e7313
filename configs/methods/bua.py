"""BUA: how a fresh projector is fitted to the words of events (model.warm_start).

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.bua.warm_windows=3000
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.warm_windows = 1_500  # training windows whose events are fitted
    config.warm_steps = 5_000  # of Adam; more explain little more of the words' variance
    config.warm_batch = 512  # events of a step, drawn alike whatever the seed
    config.warm_lr = 3e-3  # at the first step; cosine to 0
    return config
