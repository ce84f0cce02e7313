"""The whole chain: encoder -> dialogues -> stage 1 -> stage 2 -> reflection -> stage 3 -> evaluation.

python -m bua_jax.curriculum --config=configs/curriculum.py:data=foursquare_nyc
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import based_on


def get_config(arg: str = "") -> ConfigDict:
    return based_on("configs/base.py", arg)
