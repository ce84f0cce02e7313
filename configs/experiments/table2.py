"""Table 2: the next day, by the systems that are here; SAND and D2A are not built yet.

python -m bua_jax.experiment --experiment=configs/experiments/table2.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Experiment, Row, Scale

BUA = "BUA"


def get_experiment(scale: Scale) -> Experiment:
    rows = (
        Row("BehaveGPT", method="behavegpt_days", published=("Table 2", "BehaveGPT")),
        Row("BehaveGPT, times and places", method="behavegpt_timed_days"),
        Row("SAND", method="sand", published=("Table 2", "SAND")),
        Row(BUA, published=("Table 2", BUA)),
        Row("last day", method="last_day"),
    )
    return Experiment("table2", "Table 2: the next day", scale, rows, BUA, asks="generate")
