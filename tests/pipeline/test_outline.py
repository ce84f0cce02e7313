"""What a dry run says."""

import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.pipeline.chain import show_outline


def test_a_dry_run_says_that_a_file_is_missing(tmp_path, capsys) -> None:
    for arg, said in (("data=tencent", True), ("", False)):
        show_outline(configs.load("configs/quickstart.py", arg), tmp_path, "data")
        assert ("config.data.path='' is no file here" in capsys.readouterr().err) == said


def test_a_dry_run_refuses_what_the_run_would_not_be_allowed(tmp_path) -> None:
    """A row that sends logs away without consent, before any step is listed as to be built and paid for."""
    config = configs.load("configs/quickstart.py")
    config.evaluation.methods = ("zero_shot_api", "bua")
    show_outline(config, tmp_path, "stage1")  # which asks nobody
    with pytest.raises(ConfigError, match="api_consent='' is not 'api"):
        show_outline(config, tmp_path, "evaluation")
