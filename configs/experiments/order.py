"""Does a method use the order of a history, all of it, and whose it is? The same methods, histories altered.

python -m bua_jax.experiment --experiment=configs/experiments/order.py:scale=laptop --workdir=runs/paper
python -m bua_jax.experiment --experiment=configs/experiments/order.py --rows='SASRec,SASRec (shuffled)'

Every method is fitted once, on histories as they were (as in table1, whose steps it shares), and asked about
test windows whose histories are altered. What comes next stays. Each row is held against its own, unaltered.
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

METHODS = {  # title -> row of methods/table.py
    "BUA": "bua",
    "SASRec": "sasrec",
    "BehaveGPT": "behavegpt",
    "PITuning": "pituning",
    "AlphaFuse": "alphafuse",
    "TALLRec": "tallrec",
    "A-LLMRec": "a_llmrec",
    "CoLLM": "collm",
    "LLaRA": "llara",
    "LightGBM": "lightgbm",
    "Markov + counts": "markov_counts",
    "window majority": "window_majority",
}
ALTERED = {  # in a row's name -> windows.test_history
    "shuffled": "shuffled",
    "reversed": "reversed",
    "last 10": "last10",
    "another's": "another",
}


def _rows(title: str, method: str) -> tuple[Row, ...]:
    altered = (
        Row(f"{title} ({name})", {"windows.test_history": how}, method=method)
        for name, how in ALTERED.items()
    )
    return (Row(title, method=method), *altered)


def get_experiment(scale: Scale) -> Experiment:
    rows = tuple(row for title, method in METHODS.items() for row in _rows(title, method))
    claims = tuple(Claim(title, f"{title} ({name})") for title in METHODS for name in ALTERED)
    return Experiment("order", "Whose history, in which order", scale, rows, "BUA", claims)
