"""Table 11: weights of tasks that follow how fast each learns (Appendix K.1), for prediction.

python -m bua_jax.experiment --experiment=configs/experiments/table11.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

NONE = "no optimization"


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 11"

    def balanced(alpha: float) -> dict[str, str]:
        return {
            f"{stage}.balancer": f"appendix_k:alpha={alpha:g}" for stage in ("stage1", "stage2")
        }

    rows = (
        Row(NONE, published=(table, "No optimization")),
        Row("as printed", balanced(1), published=(table, "Adaptive learning rate")),
        Row("as described", balanced(-1), note="The formula's sign as its text says it."),
    )
    claims = (Claim("as printed", NONE), Claim("as printed", NONE, "tail"))
    return Experiment("table11", "Table 11: Appendix K, prediction", scale, rows, NONE, claims)
