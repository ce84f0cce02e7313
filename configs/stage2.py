"""Stage 2, user-level understanding and prediction: projector and adapter (section 3.4.2).

    python -m bua_jax.train --config=configs/stage2.py
    python -m bua_jax.train --config=configs/stage2.py:data=foursquare_nyc \\
        --config.train.peak_lr=1e-3

What the stage needs (encoder, dialogues, earlier stages) is built first where it is missing.
`config.train` is another name for `config.stage2`.
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import of_stage


def get_config(arg: str = "") -> ConfigDict:
    return of_stage("stage2", arg)
