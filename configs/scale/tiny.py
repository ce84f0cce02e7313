"""Seconds to minutes: every step of the chain with next to nothing in it, which learns nothing.

python -m bua_jax.curriculum --config=configs/curriculum.py:scale=tiny
"""

from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics.config import nested, part

FIELDS: dict[str, Any] = {  # that differ from laptop's
    "data.num_users": 30,
    "data.num_days": 21,
    "windows.train": 120,
    "windows.validation": 16,
    "windows.cross": 40,
    "windows.fit_train": 1000,
    "windows.fit_validation": 200,
    "windows.match": 16,
    "windows.days_hybrid": 6,
    "windows.test": 40,
    "windows.texts": 12,
    "windows.edited": 10,
    "windows.generation_test": 3,
    "encoder.epochs": 1,
    "dialogues.reflect_train": 16,
    "dialogues.reflect_validation": 4,
    "stage1.max_steps": 2,
    "stage2.max_steps": 2,
    "stage3.max_steps": 2,
    "joint.max_steps": 2,
    "decoding.max_new_tokens": 16,
    "execution.decode_batch": 16,
    "methods.lightgbm.rounds": 5,
    "methods.bua.warm_steps": 20,
    "methods.pituning.layers": 1,
    "methods.hybrid_data.epochs": 1,
    "methods.hybrid_data.length": 4,
    "methods.d2a.step_minutes": 720,
    "methods.d2a_api.step_minutes": 720,
    "methods.sand.days": 64,
    "methods.sand.epochs": 1,
    "methods.sand.rounds": 1,
    "methods.sand.steps": 48,
    **{f"methods.{name}.epochs": 0.001 for name in ("tallrec", "collm", "llara", "a_llmrec")},
    "evaluation.bootstrap": 200,
}


def get_config(arg: str = "") -> ConfigDict:
    config = part("scale", "laptop")
    config.update(nested(FIELDS))
    return config
