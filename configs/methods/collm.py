"""CoLLM (Zhang et al., 2025, TKDE): an adapter on words, then SASRec's items and last state beside them.

    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('collm','bua')" --config.methods.collm.negatives=4

As published: Vicuna-7B, LoRA of rank 8 and alpha 16 on q and v (dropout 0.05), SASRec of 64 numbers, a
mapping of 64 -> 640 -> H, binary cross-entropy of the one logit of yes, 1e-3 to 8e-5, weight decay 1e-3,
batches of 16 a device. Each candidate is a question of its own: a prediction takes as many as there are
labels, though the history before them is read once.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.source = "item+user"  # of soft tokens: none, item, last, states, item+user
    config.mapping = "mlp"  # of vectors to soft tokens: linear, mlp, two_stage
    config.schedule = "adapter_then_projector"  # joint, adapter_then_projector, ramp or projector
    config.target = "yes_no"  # the answer: label, or yes_no about each candidate
    config.negatives = 1  # other candidates beside each true one, where the target is yes_no
    config.epochs = 1.0  # passes over the training windows (windows.fit_train), in each phase
    config.peak_lr = 1.5e-3  # AdamW, cosine; published 1e-3
    return config
