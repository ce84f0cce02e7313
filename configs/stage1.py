"""Stage 1, sequence-level understanding: trains the projector (section 3.4.1).

    python -m bua_jax.train --config=configs/stage1.py
    python -m bua_jax.train --config=configs/stage1.py:data=foursquare_nyc \\
        --config.train.peak_lr=1e-3

What the stage needs (encoder, dialogues, earlier stages) is built first where it is missing.
`config.train` is another name for `config.stage1`.
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import of_stage


def get_config(arg: str = "") -> ConfigDict:
    return of_stage("stage1", arg)
