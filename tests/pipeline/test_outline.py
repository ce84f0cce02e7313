"""What a dry run says."""

from bua_jax.basics import config as configs
from bua_jax.pipeline.chain import show_outline


def test_a_dry_run_says_that_a_file_is_missing(tmp_path, capsys) -> None:
    for arg, said in (("data=tencent", True), ("", False)):
        show_outline(configs.load("configs/quickstart.py", arg), tmp_path, "data")
        assert ("config.data.path='' is no file here" in capsys.readouterr().err) == said
