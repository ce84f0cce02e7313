"""Table 13: another population; foursquare_usa in the place of Carat, whose licence forbids to pass it on.

python -m bua_jax.experiment --experiment=configs/experiments/table13.py:scale=laptop --workdir=runs/paper

Its file is ../shared/data/foursquare_usa.parquet from the project's root (configs/data/foursquare_usa.py).
"""

import dataclasses

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

BUA = "Ours (BUA)"
PAPERS = {"BehaveGPT": "behavegpt", "PITuning": "pituning", "CoLLM": "collm"}
SIMULATED = ("data.num_users", "data.num_days")  # what that data set is not made of


def on_usa(scale: Scale) -> Scale:
    """The scale with that data set."""
    path, colon, arguments = scale.config.partition(":")
    fields = {name: value for name, value in scale.fields.items() if name not in SIMULATED}
    config = f"{path}:data=foursquare_usa" + (f",{arguments}" if colon else "")
    return dataclasses.replace(scale, config=config, fields=fields)


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 13"
    rows = (
        Row(BUA, published=(table, BUA)),
        *(Row(name, method=method, published=(table, name)) for name, method in PAPERS.items()),
        Row("LightGBM", method="lightgbm"),
    )
    claims = tuple(Claim(BUA, name) for name in PAPERS)
    return Experiment("table13", "Table 13: another population", on_usa(scale), rows, BUA, claims)
