"""Figure 2: a SASRec on real windows and generated days beside them (Appendix H).

python -m bua_jax.experiment --experiment=configs/experiments/figure2.py:scale=laptop --workdir=runs/paper

Overall accuracy is `rec_w`, average accuracy `overall`. The paper's figures are not in its text. There are as
many synthetic sequences as days asked for (`windows.days_hybrid`), whoever generates them. A simulated day
is of some twelve events, so that eight in place of the published forty come before the last one.
"""

import dataclasses
from typing import Any

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

GENERATORS = {"BUA": "bua", "the last day": "last_day"}  # title -> row of methods/table.py
OURS, REAL, AGAIN = "real + BUA", "real", "real + real again"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"windows.fit_train": 100},
    "laptop": {
        "methods.hybrid_data.length": 8,
        "windows.fit_train": 1_000,
        "windows.fit_validation": 2_000,
        "windows.days_hybrid": 1_000,
        "windows.test": 2_000,
    },
    "paper": {},
}


def _row(name: str, added: str, *, real: bool = True, note: str = "") -> Row:
    page = {"methods.hybrid_data.added": added, "methods.hybrid_data.real": real}
    return Row(name, page, method="hybrid_data", note=note)


def get_experiment(scale: Scale) -> Experiment:
    scale = dataclasses.replace(scale, fields={**scale.fields, **SIZES[scale.name]})
    rows = (
        _row(REAL, "none"),
        *(_row(f"real + {title}", name) for title, name in GENERATORS.items()),
        _row(AGAIN, "bootstrap", note="As many real windows, drawn with replacement."),
        *(_row(f"{title} alone", name, real=False) for title, name in GENERATORS.items()),
    )
    others = [row.name for row in rows if row.name != OURS]
    columns = ("rec_w", "overall", "head", "medium", "tail", "log_loss")
    claims = tuple(Claim(OURS, name, metric) for name in others for metric in columns[:2])
    return Experiment(
        "figure2",
        "Figure 2: hybrid data",
        scale,
        rows,
        OURS,
        claims,
        columns,
        drawn=("rec_w", "overall"),
    )
