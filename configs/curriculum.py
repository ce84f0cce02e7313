"""The whole chain: encoder -> dialogues -> stage 1 -> stage 2 -> reflection -> stage 3 -> evaluation.

python -m bua_jax.curriculum --config=configs/curriculum.py:data=foursquare_nyc
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import load


def get_config(arg: str = "") -> ConfigDict:
    config = load("configs/base.py", arg).copy_and_resolve_references()
    config.unlock()
    return config
