"""Table 8: what each stage is worth for a generated day (Appendix I).

python -m bua_jax.experiment --experiment=configs/experiments/table8.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

OURS = "Ours"
REMOVED = ("w/o stage1", "w/o stage2", "w/o stage3")


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 8"
    fields = (
        {"stages": (2, 3)},
        {"dialogues.rounds": False, "stages": (1, 2)},  # as in Table 4
        {"stages": (1, 2)},
    )
    rows = (
        Row(OURS, published=(table, OURS)),
        *(
            Row(name, changed, published=(table, name))
            for name, changed in zip(REMOVED, fields, strict=True)
        ),
    )
    claims = tuple(
        Claim(OURS, name, f"event_{m}") for name in REMOVED for m in ("bleu", "tvd", "jsd")
    )
    return Experiment(
        "table8", "Table 8: stages, the next day", scale, rows, OURS, claims, asks="generate"
    )
