"""An hour on two CPU cores with nano: fewer windows, one epoch, a smaller encoder. The default.

python -m bua_jax.curriculum --config=configs/curriculum.py:scale=laptop
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.encoder = ConfigDict({"dim": 32, "num_layers": 2, "num_heads": 4})
    config.encoder.update({"dropout": 0.2, "epochs": 20, "peak_lr": 2e-3})
    small = {"batch_dialogues": 16, "row_length": 1024, "evaluations": 5, "checkpoints": 5}
    for stage in ("stage1", "stage2", "stage3", "joint"):
        config[stage] = ConfigDict({**small, "epochs": 1.0})
    # 40 events for a day too: with 100 its dialogues are half as long again
    config.windows = ConfigDict({"train": 20_000, "validation": 400, "test": 2_000})
    config.windows.generation_history = 40
    # nano does not learn the final answer from dialogues with all rounds alone, at this length
    config.dialogues = ConfigDict({"reflect_train": 400, "reflect_validation": 40})
    config.dialogues.shortened_share = 0.75
    config.decoding = ConfigDict({"max_new_tokens": 96})
    return config
