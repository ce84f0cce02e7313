"""Table 3: TALLRec and LLaRA with BUA's summaries before their logs, and with summaries that should not help.

python -m bua_jax.experiment --experiment=configs/experiments/table3.py:scale=laptop --workdir=runs/paper

All rows of a system have one page, the same windows (`windows.cross`, of people on whom no stage of BUA is
trained), as many steps, and are chosen on the same windows: the note alone differs.
"""

import dataclasses

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

SYSTEMS = {"TALLRec": "tallrec", "LLaRA": "llara"}
WINDOWS = {"tiny": 40, "laptop": 4_000, "paper": 20_000}  # the paper's 20,000 samples
METRICS = ("rec_w", "prec_w", "overall", "head", "medium", "tail")
PLACEBOS = {
    "another person's summary": ("cross_another", "BUA's summary of the donor of the set."),
    "the untuned base's summary": ("cross_untuned", "Written by the base as it comes."),
}


def _rows(title: str, name: str) -> tuple[Row, ...]:
    plain = Row(title, method=f"{name}_apart", published=("Table 3", title))
    crossed = f"{title}-cross"
    return (
        plain,
        Row(crossed, method=f"{name}_cross", published=("Table 3", crossed)),
        *(
            Row(f"{title} with {what}", method=f"{name}_{ending}", note=note)
            for what, (ending, note) in PLACEBOS.items()
        ),
    )


def _claims(title: str) -> tuple[Claim, ...]:
    """The paper's, and that it is this person's summary by BUA that helps."""
    crossed = f"{title}-cross"
    return (
        *(Claim(crossed, title, metric) for metric in METRICS),
        *(
            Claim(crossed, f"{title} with {what}", metric)
            for what in PLACEBOS
            for metric in ("rec_w", "tail")
        ),
    )


def get_experiment(scale: Scale) -> Experiment:
    sizes = {**scale.fields, "windows.cross": WINDOWS[scale.name]}
    scale = dataclasses.replace(scale, fields=sizes)
    rows = tuple(row for title, name in SYSTEMS.items() for row in _rows(title, name))
    claims = tuple(claim for title in SYSTEMS for claim in _claims(title))
    return Experiment(
        "table3", "Table 3: summaries for others", scale, rows, "TALLRec-cross", claims, METRICS
    )
