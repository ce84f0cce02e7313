"""SASRec on real windows and generated days, as Appendix H trains it (Figure 2).

    python -m bua_jax.curriculum --config=configs/curriculum.py --config.methods.hybrid_data.length=8 \\
        --config.evaluation.methods="('hybrid_data','bua')"

Published: 41 events of a generated day, of which the first 40 predict the last. Days with fewer are left out
and counted; where days are short, a smaller `length` leaves more of them.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.real = True  # fitted on real windows (windows.fit_train)
    config.added = "bua"  # beside them: none, bootstrap (real ones again), or whose days are
    config.length = 40  # events before the last one, of days and of real windows
    config.dim = 50  # hidden units
    config.layers = 2  # blocks
    config.heads = 1  # of attention
    config.dropout = 0.1  # share of activations dropped in training
    config.batch = 16  # sequences
    config.peak_lr = 1e-3  # Adam, always the same
    config.l2_emb = 0.01  # of half the squares of both tables of vectors, in the loss
    config.epochs = 200  # at most
    config.patience = 5  # epochs without a better validation log-loss before it stops; 0 = none
    return config
