"""The curriculum on foursquare_nyc with nano, scored on every test window.

python -m bua_jax.curriculum --config=configs/foursquare_nyc.py --workdir=runs/foursquare_nyc
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import based_on


def get_config(arg: str = "") -> ConfigDict:
    arg = f"data=foursquare_nyc,{arg}"  # what the caller says comes later and wins
    config = based_on("configs/curriculum.py", arg)
    config.windows.train = 24_000
    config.windows.validation = 200
    config.windows.test = 0
    config.windows.generation_test = 100
    return config
