"""A stage refuses before it loads a model what the devices cannot train."""

from pathlib import Path

import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.pipeline import stages
from bua_jax.pipeline.steps import Run


def test_splash_without_a_tpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_store", lambda run: None)
    config = configs.load("configs/stage2.py")
    config.execution.attention = "splash"
    with pytest.raises(ConfigError, match=r"on cpu: set --config.execution.attention=xla"):
        stages.build_stage(Run(config, tmp_path), "stage2")
