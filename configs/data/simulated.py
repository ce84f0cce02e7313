"""The built-in simulated population (bua_jax/events/simulate.py).

python -m bua_jax.curriculum --config=configs/curriculum.py:data=simulated --config.data.seed=1
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "simulated"
    config.num_users = 500  # people
    config.num_days = 60  # days per person
    config.seed = 1  # of the population
    config.on_bad_row = "error"  # simulated rows are never bad; the field is shared by all sets
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
