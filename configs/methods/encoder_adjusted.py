"""The encoder, logit-adjusted (Menon et al., 2021) to BUA's accuracy on validation users.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.encoder_adjusted.taus=81
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.largest_tau = 2.0  # strength of the adjustment, at most
    config.taus = 41  # strengths that are tried, evenly from 0
    return config
