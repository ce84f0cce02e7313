"""TALLRec (Bao et al., 2023, RecSys): the history in words, an adapter on the label, no encoder.

    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('tallrec','bua')" --config.methods.tallrec.epochs=3

As published: LLaMA-7B in 8 bits, LoRA of rank 8 and alpha 16 on q and v (dropout 0.05), AdamW at 1e-4,
batches of 128, 20 steps of warm-up, 512 tokens, up to 200 epochs over 16 to 256 samples. The adapter's shape
is `model.lora_*`, batches and schedule are stage 2's, all as BUA's.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.source = "none"  # of soft tokens: none, item, last, states, item+user; none: words alone
    config.mapping = "mlp"  # of vectors to soft tokens: linear, mlp, two_stage; here there are none
    config.schedule = "joint"  # joint, adapter_then_projector, ramp or projector
    config.target = "label"  # the answer: label, or yes_no about each candidate
    config.negatives = 1  # other candidates beside each true one, where the target is yes_no
    config.epochs = 1.0  # passes over the training windows (windows.fit_train)
    config.peak_lr = 1.5e-3  # AdamW, cosine; published 1e-4 for 7B, nano takes a higher one
    return config
