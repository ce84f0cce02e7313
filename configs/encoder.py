"""Pretraining of the behaviour encoder on the training users' events (section 3.3).

python -m bua_jax.pretrain --config=configs/encoder.py
python -m bua_jax.pretrain --config=configs/encoder.py:data=foursquare_nyc \\
        --config.encoder.kind=sasrec
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import based_on


def get_config(arg: str = "") -> ConfigDict:
    config = based_on("configs/curriculum.py", arg)
    config.step = "encoder"
    return config
