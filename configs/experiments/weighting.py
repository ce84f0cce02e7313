"""Which rounds should weigh what: weights that follow losses or gradients, and static ones, in stage 2.

python -m bua_jax.experiment --experiment=configs/experiments/weighting.py --workdir=runs/paper

Units are the round kinds, and all methods sum to as much (balancer_scale=sum). Beside them, for some, the
same by direction alone: every step has a gradient of one length. `w = 1` is the row that others are held
against, and random weights (RLW) the control that a method should beat (docs/loss-weighting.md).
"""

from typing import Any

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

EQUAL, CONTROL = "w = 1", "RLW (control)"
METHODS = {
    "Appendix K, as printed": "appendix_k:alpha=1",
    "Appendix K, as described": "appendix_k:alpha=-1",
    "uncertainty": "uncertainty",
    "DWA": "dwa",
    "GradNorm": "gradnorm",
    "PCGrad": "pcgrad",
    "CAGrad": "cagrad:c=0.5",
    "Nash-MTL": "nash",
    CONTROL: "rlw",
}
BY_DIRECTION = ("PCGrad", "Nash-MTL")


def _fields(balancer: str, scale: str) -> dict[str, Any]:
    return {
        "stage2.balancer": balancer,
        "stage2.balancer_unit": "round",
        "stage2.balancer_scale": scale,
    }


def get_experiment(scale: Scale) -> Experiment:
    rows = [Row(EQUAL, note="Eq. 5, beta = 1.")]
    rows += [Row(name, _fields(text, "sum")) for name, text in METHODS.items()]
    rows += [Row(f"{EQUAL}, direction", _fields("equal", "direction"))]
    rows += [
        Row(f"{name}, direction", _fields(METHODS[name], "direction")) for name in BY_DIRECTION
    ]
    rows += [
        Row(f"beta = {beta:g}", {"stage2.loss": "dialogue_family", "stage2.length_beta": beta})
        for beta in (0.0, 0.5)
    ]
    claims = tuple(Claim(name, CONTROL) for name in METHODS if name != CONTROL)
    columns = ("rec_w", "prec_w", "overall", "head", "medium", "tail", "log_loss")
    return Experiment("weighting", "Weights of rounds", scale, tuple(rows), EQUAL, claims, columns)
