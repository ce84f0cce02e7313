"""Table 2: the next day, by all systems that generate one; dashes where one writes no times or no places.

python -m bua_jax.experiment --experiment=configs/experiments/table2.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale
from bua_jax.experiments.paper import PUBLISHED

BUA = "BUA"


def get_experiment(scale: Scale) -> Experiment:
    rows = (
        Row("BehaveGPT", method="behavegpt_days", published=("Table 2", "BehaveGPT")),
        Row("BehaveGPT, times and places", method="behavegpt_timed_days"),
        Row("SAND", method="sand", published=("Table 2", "SAND")),
        Row("D2A", method="d2a", published=("Table 2", "D2A")),
        Row(BUA, published=("Table 2", BUA)),
        Row("last day", method="last_day"),
    )
    claims = tuple(
        Claim(BUA, name, metric)
        for metric in ("event_bleu", "timestamp_bleu", "location_bleu")
        for name in ("BehaveGPT", "SAND", "D2A")
        if PUBLISHED["Table 2", name].value(metric) is not None
    )
    return Experiment("table2", "Table 2: the next day", scale, rows, BUA, claims, asks="generate")
