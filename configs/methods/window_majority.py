"""The behaviour that the history holds most.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.window_majority.prior_events=1.0
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.prior_events = 0.5  # weight of unseen behaviours' training shares, in events
    return config
