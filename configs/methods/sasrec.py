"""SASRec (Kang & McAuley, 2018), trained as the encoder is, but for its width.

It is the run's encoder where that is a SASRec (`encoder.kind`) as wide as this row (`encoder.dim`).

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.sasrec.dim=50
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.dim = 64  # width; near the 50 of the paper
    return config
