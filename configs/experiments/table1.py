"""Table 1: the next behaviour, by every system that is here and needs no API.

python -m bua_jax.experiment --experiment=configs/experiments/table1.py:scale=laptop --workdir=runs/paper
python -m bua_jax.experiment --experiment=configs/experiments/table1.py --rows='BUA,SASRec,LightGBM' --seeds=1
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

BUA = "BUA"
PAPERS = {  # row of the paper -> row of methods/table.py
    "SASRec": "sasrec",
    "BehaveGPT": "behavegpt",
    "PITuning": "pituning",
    "AlphaFuse": "alphafuse",
    "TALLRec": "tallrec",
    "A-LLMRec": "a_llmrec",
    "CoLLM": "collm",
    "LLaRA": "llara",
}
FLOORS = {
    "majority": "majority",
    "window majority": "window_majority",
    "Markov + counts": "markov_counts",
    "LightGBM": "lightgbm",
    "fused (BUA and its encoder)": "fused",
}


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 1"
    rows = (
        Row(BUA, published=(table, BUA)),
        *(Row(name, method=method, published=(table, name)) for name, method in PAPERS.items()),
        *(Row(name, method=method) for name, method in FLOORS.items()),
    )
    metrics = ("rec_w", "prec_w", "overall", "head", "medium", "tail")  # "across all metrics"
    claims = tuple(Claim(BUA, name, metric) for name in PAPERS for metric in metrics)
    return Experiment("table1", "Table 1: next behaviour", scale, rows, BUA, claims)
