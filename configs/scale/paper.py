"""The paper's sizes (Appendices B, C, G): 100,000 training windows, batches of 96, three epochs; 8 GPUs.

They are the values of configs/base.py, so nothing is changed here.

python -m bua_jax.plan --config=configs/stage2.py:model=qwen2.5-7b,scale=paper,mesh=8 --target=a100-40g:8
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict()
