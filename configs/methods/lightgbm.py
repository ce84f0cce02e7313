"""LightGBM on features of the history; a small, strongly regularised booster.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.lightgbm.num_leaves=15
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.rounds = 600  # trees per class, at most
    config.patience = 30  # rounds without a better validation log-loss before it stops
    config.learning_rate = 0.03  # of each tree
    config.num_leaves = 7  # of a tree
    config.min_data_in_leaf = 60  # windows
    config.feature_fraction = 0.5  # of the features, drawn for each tree
    config.bagging_fraction = 0.7  # of the windows, drawn every bagging_freq trees
    config.bagging_freq = 1  # trees
    config.lambda_l2 = 5.0  # penalty on leaf values
    return config
