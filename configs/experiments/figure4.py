"""Figure 4: stage after stage against all at once, validation losses by task (Appendix S).

python -m bua_jax.experiment --experiment=configs/experiments/figure4.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

STAGED, JOINT = "staged", "joint"


def get_experiment(scale: Scale) -> Experiment:
    curves = {STAGED: ("stage1", "stage2", "stage3"), JOINT: ("joint",)}
    rows = (Row(STAGED), Row(JOINT, method="bua_joint"))
    claims = (
        Claim(STAGED, JOINT, "lowest prediction"),  # "a consistently lower minimum validation loss"
        Claim(STAGED, JOINT, "lowest generation"),
        Claim(STAGED, JOINT, "first refinement"),  # joint "starts at an extremely high value"
        Claim(STAGED, JOINT, "lowest refinement"),  # and staged ends lower
    )
    return Experiment(
        "figure4", "Figure 4: staged and joint", scale, rows, STAGED, claims, curves=curves
    )
