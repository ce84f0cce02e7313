"""Table 12: weights of tasks that follow how fast each learns (Appendix K.1), for a generated day.

python -m bua_jax.experiment --experiment=configs/experiments/table12.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

NONE = "none"


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 12"

    def balanced(alpha: float) -> dict[str, str]:
        return {
            f"{stage}.balancer": f"appendix_k:alpha={alpha:g}" for stage in ("stage1", "stage2")
        }

    rows = (
        Row(NONE, published=(table, "None")),
        Row("as printed", balanced(1), published=(table, "Adaptive learning rate")),
        Row("as described", balanced(-1), note="The formula's sign as its text says it."),
    )
    claims = (Claim("as printed", NONE), Claim("as printed", NONE, "timestamp_bleu"))
    return Experiment(
        "table12", "Table 12: Appendix K, the next day", scale, rows, NONE, claims, asks="generate"
    )
