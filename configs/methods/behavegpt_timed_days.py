"""BehaveGPT's rollouts with heads for time and place, trained on the encoder as it is; not the published row.

python -m bua_jax.curriculum --config=configs/curriculum.py \\
    --config.evaluation.methods="('behavegpt_days','behavegpt_timed_days','bua')"
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.hidden = 128  # width of the hidden layer of each head
    config.peak_lr = 3e-3  # AdamW, cosine; epochs and batches are the encoder's
    config.weight_decay = 0.01  # AdamW, on matrices
    return config
