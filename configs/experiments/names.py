"""Do names matter? The same simulated events under other words for their labels (docs/nano.md).

No word of the five other namings is in the lexicon that nano's corpus is made of.

python -m bua_jax.experiment --experiment=configs/experiments/names.py --workdir=runs/names --seeds=1,2,3
"""

import os
from pathlib import Path

from bua_jax import nano
from bua_jax.experiments.experiment import Experiment, Row, Scale

KNOWN = "known words"
TITLES = {
    "german": "German",
    "rare": "rare English",
    "russian": "Russian",
    "chinese": "Chinese",
    "codes": "codes and emoji",
}


def get_experiment(scale: Scale) -> Experiment:
    folder = Path(nano.__file__).parent / "namings"
    others = [  # relative, so that records and pages name no machine's folders
        Row(title, {"data.words": os.path.relpath(folder / f"{name}.json")})
        for name, title in TITLES.items()
    ]
    rows = (Row(KNOWN), *others, Row("the encoder", method="behavegpt"))
    columns = ("rec_w", "overall", "tail", "log_loss")
    return Experiment("names", "Other words for the labels", scale, rows, KNOWN, columns=columns)
