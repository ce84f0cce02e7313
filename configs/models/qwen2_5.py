"""Qwen2.5 0.5b to 72b from a local Hugging Face directory.

    python -m bua_jax.train --config=configs/stage2.py:model=qwen2.5-7b,scale=paper,mesh=8 \\
        --config.model.path=checkpoints/Qwen2.5-7B
"""

from ml_collections import ConfigDict


def get_config(arg: str = "qwen2.5-7b") -> ConfigDict:
    return ConfigDict(
        {
            "model": {"dtype": "bfloat16"},
            "decoding": {"cache_dtype": "bfloat16"},
        }
    )
