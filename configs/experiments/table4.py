"""Table 4: what each part of the method is worth for prediction.

python -m bua_jax.experiment --experiment=configs/experiments/table4.py:scale=laptop --workdir=runs/paper
"""

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

OURS = "Ours"
REMOVED = ("w/o stage1", "w/o stage2", "w/o stage3", "w/o loss balance", "item-emb")


def get_experiment(scale: Scale) -> Experiment:
    table = "Table 4"
    rows = (
        Row(OURS, published=(table, OURS)),
        Row("w/o stage1", {"stages": (2, 3)}, published=(table, "w/o stage1")),
        Row(
            "w/o stage2",
            {"dialogues.rounds": False, "stages": (1, 2)},
            published=(table, "w/o stage2"),
            note="Without understanding rounds there are no summaries to reflect on, so no stage 3.",
        ),
        Row("w/o stage3", {"stages": (1, 2)}, published=(table, "w/o stage3")),
        Row(
            "w/o loss balance",
            {f"{stage}.loss": "dialogue_token_mean" for stage in ("stage1", "stage2", "stage3")},
            published=(table, "w/o loss balance"),
            note="Eq. 4 of each dialogue, in all stages.",
        ),
        Row("item-emb", {"model.soft_tokens": "item"}, published=(table, "item-emb")),
        Row(
            "pooled", {"model.soft_tokens": "pooled"}, note="One soft token for the whole history."
        ),
        Row("no soft tokens", {"model.soft_tokens": "none"}, note="It sees no history."),
        Row("in words", {"model.soft_tokens": "text"}, note="The history spelled out, no encoder."),
    )
    others = (name for name in REMOVED if name != "w/o loss balance")
    claims = (
        *(Claim(OURS, name) for name in REMOVED),
        *(Claim(name, "w/o loss balance") for name in others),  # "the most significant impact"
    )
    return Experiment("table4", "Table 4: parts removed, prediction", scale, rows, OURS, claims)
