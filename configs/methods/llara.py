"""LLaRA (Liao et al., 2024, SIGIR): behind each behaviour in words SASRec's vector of it, by a curriculum.

    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('llara','bua')" --config.methods.llara.epochs=5

As published: Llama-2-7B, LoRA of rank 8 and alpha 32 on all projections (dropout 0.1), a two-layer projector
of 64 numbers, Adam at 8e-4 to 8e-6, 5 % warm-up, batches of 8 x 16, 5 epochs. A batch has soft tokens with
probability step/steps, and else an inert token for each while the projector rests.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.source = "item"  # of soft tokens: none, item, last, states, item+user
    config.mapping = "mlp"  # of vectors to soft tokens: linear, mlp, two_stage
    config.schedule = "ramp"  # joint, adapter_then_projector, ramp or projector
    config.target = "label"  # the answer: label, or yes_no about each candidate
    config.negatives = 1  # other candidates beside each true one, where the target is yes_no
    config.epochs = 1.0  # passes over the training windows (windows.fit_train); published 5
    config.peak_lr = 1.5e-3  # AdamW, cosine; published 8e-4, which is high for a 7B model
    return config
