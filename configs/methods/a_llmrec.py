"""A-LLMRec (Kim et al., 2024, KDD): SASRec's items aligned with their words, then read by a frozen base.

    python -m bua_jax.curriculum --config=configs/curriculum.py \\
        --config.evaluation.methods="('a_llmrec','bua')" --config.methods.a_llmrec.schedule=joint

As published: SASRec of 50 numbers, autoencoders of 128, losses weighed 1, 1, 0.5 and 0.2, OPT-6.7B in 8 bits
and never tuned, Adam at 1e-4, 10 epochs and batches of 32 (first stage) and 2. The first stage takes the
encoder's settings (config.encoder). `schedule=joint` trains an adapter too, which the paper's table may have.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.source = "item+user"  # of soft tokens: none, item, last, states, item+user
    config.mapping = "two_stage"  # of vectors to soft tokens: linear, mlp, two_stage
    config.schedule = "projector"  # joint, adapter_then_projector, ramp or projector
    config.target = "label"  # the answer: label, or yes_no about each candidate
    config.negatives = 1  # other candidates beside each true one, where the target is yes_no
    config.epochs = 1.0  # passes over the training windows (windows.fit_train); published 10
    config.peak_lr = 1e-3  # AdamW, cosine: of the projectors alone; published 1e-4
    return config
