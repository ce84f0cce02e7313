"""AlphaFuse (Hu et al., 2025), trained as often and in the batches that the encoder is.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.alphafuse.id_dims=32
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.language_dims = 64  # frozen directions of the label vectors, at most; of C labels C - 1
    config.variance_share = 0.99  # of the label vectors, that these directions hold
    config.id_dims = 64  # trained numbers of each behaviour, beside the frozen ones
    config.temperature = 0.07  # that cosines are divided by
    config.dropout = 0.1  # share of activations dropped in training
    config.peak_lr = 1e-3  # AdamW, cosine
    config.weight_decay = 1e-6  # AdamW, on matrices
    return config
