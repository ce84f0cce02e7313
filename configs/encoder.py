"""Pretraining of the behaviour encoder on the training users' events (section 3.3).

python -m bua_jax.pretrain --config=configs/encoder.py
python -m bua_jax.pretrain --config=configs/encoder.py:data=foursquare_nyc \\
        --config.encoder.kind=sasrec
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import load


def get_config(arg: str = "") -> ConfigDict:
    config = load("configs/curriculum.py", arg).copy_and_resolve_references()
    config.unlock()
    config.step = "encoder"
    return config
