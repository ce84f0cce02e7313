"""Where bases come from."""

from pathlib import Path

import pytest

from bua_jax.alignment import bases
from bua_jax.basics import config as configs

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(("revision", "said"), [("main", True), (COMMIT, False)])
def test_a_branch_of_the_hub_is_told_with_its_commit(
    revision: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A key has only its name, which may come to be another base's; once is enough."""
    asked: list[str] = []

    def snapshot(name: str) -> Path:
        asked.append(name)
        return tmp_path / "snapshots" / COMMIT

    monkeypatch.setattr(bases.hub, "snapshot", snapshot)
    bases._of_hub.cache_clear()
    model = configs.load("configs/base.py").model
    model.path = f"org/model@{revision}"
    for _ in range(2):
        assert bases.base_folder(model) == tmp_path / "snapshots" / COMMIT
    assert asked == [model.path]
    told = "".join(capsys.readouterr().err.split())
    assert told.count(f"--config.model.path=org/model@{COMMIT}") == said
    bases._of_hub.cache_clear()
