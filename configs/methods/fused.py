"""A product of experts: BUA, its encoder and the history's counts, weighted on validation people.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.fused.penalty=0.1
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.prior_events = 1.0  # weight of the training shares in the history's own, in events
    config.penalty = 0.01  # nats per squared weight, in the mean over windows: keeps few ones calm
    return config
