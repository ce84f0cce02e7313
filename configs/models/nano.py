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
    # a base of two million parameters takes higher rates than one of billions
    config.stage1 = ConfigDict({"peak_lr": 1e-3, "final_lr": 1e-4})
    config.stage2 = ConfigDict({"peak_lr": 1.5e-3, "final_lr": 1e-4})
    config.stage3 = ConfigDict({"peak_lr": 5e-4, "final_lr": 1e-5})
    config.joint = ConfigDict({"peak_lr": 1.5e-3, "final_lr": 1e-4})
    return config
