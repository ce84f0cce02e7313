"""Stage 1, sequence-level understanding: trains the projector (section 3.4.1).

    python -m bua_jax.train --config=configs/stage1.py
    python -m bua_jax.train --config=configs/stage1.py:data=foursquare_nyc \\
        --config.train.peak_lr=1e-3

What the stage needs (encoder, dialogues, earlier stages) is built first where it is missing.
`config.train` is another name for `config.stage1`.
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import load


def get_config(arg: str = "") -> ConfigDict:
    config = load("configs/curriculum.py", arg).copy_and_resolve_references()
    config.unlock()
    config.step = "stage1"
    config.train = config.stage1
    return config
