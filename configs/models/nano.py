"""nano: the Qwen2.5 architecture at 2.1 million parameters, shipped with the package; for a laptop CPU.

python -m bua_jax.train --config=configs/stage2.py:model=nano
"""

from ml_collections import ConfigDict


def get_config(arg: str = "nano") -> ConfigDict:
    config = ConfigDict()
    # what the encoder expects next has a soft token of its own, which the history's need not say too;
    # the prediction instruction begins with a question that nano was pretrained to answer
    config.model = ConfigDict({"recall": 1, "drill": "What was last?"})
    config.execution = ConfigDict({"remat": "dots", "merge_adapter": True, "decode_batch": 64})
    config.encoder = ConfigDict({"dim": 32, "num_layers": 2, "num_heads": 4})
    config.encoder.update({"dropout": 0.2, "epochs": 20, "peak_lr": 2e-3})
    small = {"batch_dialogues": 16, "row_length": 1024, "evaluations": 5, "checkpoints": 5}
    config.stage1 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1e-3, "final_lr": 1e-4})
    config.stage2 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1.5e-3, "final_lr": 1e-4})
    config.stage3 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 5e-4, "final_lr": 1e-5})
    config.joint = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1.5e-3, "final_lr": 1e-4})
    # 40 events for a day too: with 100 its dialogues are half as long again
    config.windows = ConfigDict({"train": 20_000, "validation": 400, "test": 2_000})
    config.windows.generation_history = 40
    # nano does not learn the final answer from dialogues with all rounds alone, at this length
    config.dialogues = ConfigDict({"reflect_train": 400, "reflect_validation": 40})
    config.dialogues.shortened_share = 0.75
    config.decoding = ConfigDict({"max_new_tokens": 96})
    return config
