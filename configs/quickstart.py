"""The curriculum at a size for 2 CPU cores, on simulated data with nano (its minutes: docs/results).

launch/quickstart.sh
python -m bua_jax.curriculum --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import based_on


def get_config(arg: str = "") -> ConfigDict:
    config = based_on("configs/curriculum.py", arg)
    config.encoder.epochs = 4
    # four epochs: a high rate and little dropout do best on validation users (2.01 -> 1.86 nats)
    config.encoder.dropout = 0.05
    config.encoder.peak_lr = 3e-3
    config.windows.train = 8_000
    config.windows.validation = 80
    config.windows.fit_train = 8_000
    config.windows.match = 200
    config.windows.test = 500
    config.windows.generation_test = 32
    config.dialogues.stage1_share = 0.25
    config.dialogues.shortened_share = 0.65
    config.dialogues.generation_share = 0.15
    config.dialogues.reflect_train = 200
    config.dialogues.reflect_validation = 24
    return config
