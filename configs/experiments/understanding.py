"""What texts say of people, held against their logs and, of simulated ones, who they are; stage after stage.

python -m bua_jax.experiment --experiment=configs/experiments/understanding.py --workdir=runs/paper

That texts grow better stage by stage, and are above the untuned base's, is what the paper says of its own,
which people judged (section 4.7). What is measured is told in docs/understanding.md.
"""

import itertools

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

BUA, RULES, BASE = "stage 3", "rules", "untuned base"
STAGES = {"stage 1": "bua_stage1", "stage 2": "bua_stage2", BUA: "bua"}
ASPECTS = ("behaviours", "counts", "times", "places", "order", "traits")


def get_experiment(scale: Scale) -> Experiment:
    rows = (
        Row(RULES, method="reference", note="What the model is taught to write: the ceiling."),
        *(Row(name, method=method) for name, method in STAGES.items()),
        Row(BASE, method="untuned", note="The same base before any stage, the history in words."),
    )
    grows = [*((after, before) for before, after in itertools.pairwise(STAGES)), (BUA, BASE)]
    metrics = ("recall", "precision", "persona_recall", "follows")
    claims = tuple(Claim(after, before, metric) for after, before in grows for metric in metrics)
    columns = (*metrics, "persona_precision", "abstention", "flips", "stays")
    columns += tuple(f"{name}_{kind}" for kind in ("precision", "recall") for name in ASPECTS)
    title = "Understanding, stage after stage"
    return Experiment(
        "understanding", title, scale, rows, BUA, claims, columns=columns, asks="describe"
    )
