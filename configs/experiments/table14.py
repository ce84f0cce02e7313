"""Table 14: another behaviour encoder, by itself and with BUA on it (Appendix N).

python -m bua_jax.experiment --experiment=configs/experiments/table14.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

BUA, OTHER = "BUA on BehaveGPT", "BUA on SASRec"


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 14"
    rows = (
        Row(BUA, published=(table, "BehaveGPT")),
        Row(OTHER, {"encoder.kind": "sasrec"}, published=(table, "SASRec")),
        Row("BehaveGPT", method="behavegpt", published=("Table 1", "BehaveGPT")),
        Row("SASRec", method="sasrec", published=("Table 1", "SASRec")),
    )
    claims = (Claim(BUA, OTHER), Claim(BUA, "BehaveGPT"), Claim(OTHER, "SASRec"))
    return Experiment("table14", "Table 14: encoders", scale, rows, BUA, claims)
