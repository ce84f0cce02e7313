"""Joint training on all stages' dialogues at once: projector and adapter (Appendix S).

    python -m bua_jax.train --config=configs/joint.py
    python -m bua_jax.train --config=configs/joint.py:data=foursquare_nyc \\
        --config.train.peak_lr=1e-3

What the stage needs (encoder, dialogues, earlier stages) is built first where it is missing.
`config.train` is another name for `config.joint`.
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import of_stage


def get_config(arg: str = "") -> ConfigDict:
    return of_stage("joint", arg)
