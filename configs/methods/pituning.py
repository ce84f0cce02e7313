"""PITuning (Gong et al., 2024), each stage trained at most as often as the encoder is.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.pituning.layers=2
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.layers = 4  # blocks of the base, from its first, at most; 0 = all
    config.hidden = 64  # width of the network that scores a step for an intent
    config.reconstruction = 0.5  # weight of hidden events beside the next behaviour
    config.masked = 0.15  # share of the events that are hidden
    config.overlearnt = 1.2  # said so many times as often as it comes, a behaviour is forgotten
    config.forget = 0.1  # weight of what is forgotten beside what is kept
    config.forget_cap = 1.5  # of that loss, times the logarithm of the number of behaviours
    config.peak_lr = 1e-3  # AdamW, cosine: of embeddings, intents and heads
    config.block_lr = 1e-4  # of the base's blocks
    config.weight_decay = 0.01  # AdamW, on matrices
    return config
