"""Table 1: the next behaviour, by every system that is here and needs no API.

python -m bua_jax.experiment --experiment=configs/experiments/table1.py:scale=laptop --workdir=runs/paper
python -m bua_jax.experiment --experiment=configs/experiments/table1.py --rows='BUA,SASRec,LightGBM' --seeds=1
"""

from typing import Any

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale, around

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


RATES = {  # row of methods/table.py -> the learning rate that is tuned
    "bua": "stage2.peak_lr",
    "sasrec": "encoder.peak_lr",
    "behavegpt": "encoder.peak_lr",
    "lightgbm": "methods.lightgbm.learning_rate",
}
FACTORS = (1 / 3, 2 / 3, 3 / 2, 3)
MORE = {  # and one field besides
    "bua": ("stage2.epochs", 1.5),
    "sasrec": ("methods.sasrec.dim", 2),
    "behavegpt": ("encoder.epochs", 2),
    "lightgbm": ("methods.lightgbm.num_leaves", 2),
    "pituning": ("methods.pituning.reconstruction", 0.5),
    "alphafuse": ("methods.alphafuse.id_dims", 0.5),
}


def trials(scale: Scale, method: str) -> tuple[dict[str, Any], ...]:
    """Five beside the row as it is: four other learning rates, and another size or number of passes."""
    rate = RATES.get(method, f"methods.{method}.peak_lr")
    name, factor = MORE.get(method, (f"methods.{method}.epochs", 2))
    return (*around(scale, rate, FACTORS), *around(scale, name, (factor,)))


def get_experiment(scale: Scale) -> Experiment:
    table, trained = "Table 1", {"bua", *PAPERS.values(), "lightgbm"}

    def row(name: str, method: str, published: bool) -> Row:
        tuned = trials(scale, method) if method in trained else ()
        return Row(
            name, method=method, published=(table, name) if published else None, trials=tuned
        )

    rows = (
        row(BUA, "bua", True),
        *(row(name, method, True) for name, method in PAPERS.items()),
        *(row(name, method, False) for name, method in FLOORS.items()),
    )
    metrics = ("rec_w", "prec_w", "overall", "head", "medium", "tail")  # "across all metrics"
    claims = tuple(Claim(BUA, name, metric) for name in PAPERS for metric in metrics)
    return Experiment("table1", "Table 1: next behaviour", scale, rows, BUA, claims)
