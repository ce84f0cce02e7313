"""Step `dialogues`: several processes write the files that one writes, and say where one of them failed."""

import json
from pathlib import Path

import pytest

from bua_jax.basics.config import load as load_config
from bua_jax.basics.errors import ConfigError
from bua_jax.parallel import local_shards
from bua_jax.pipeline import dialogues
from bua_jax.pipeline.data import build_data
from bua_jax.pipeline.dialogues import FIELDS, build_dialogues
from bua_jax.pipeline.steps import Run, settings
from bua_jax.pipeline.windows import build_set

SIZES = {
    "data.num_users": 12,
    "data.num_days": 10,
    "windows.train": 60,
    "windows.validation": 10,
}
OF_STAGES = ("stage1.parquet", "stage2.parquet")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = load_config("configs/quickstart.py")
    config.update_from_flattened_dict(SIZES)
    run = Run(config, tmp_path, places={"data": "steps/data/0"})
    build_data(run)
    for name in dialogues.SETS:
        build_set(run, name)
    return run


def contents(run: Run) -> list[bytes]:
    return [(run.folder("dialogues") / name).read_bytes() for name in OF_STAGES]


def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of windows is enough for two processes."""
    monkeypatch.setattr(dialogues, "ALONE", 0)
    monkeypatch.setattr(local_shards, "cores", lambda: 2)


def test_several_processes_write_what_one_writes(run: Run, monkeypatch) -> None:
    said = build_dialogues(run)
    alone = contents(run)
    for name in OF_STAGES:
        (run.folder("dialogues") / name).unlink()
    many(monkeypatch)
    started = []
    make = local_shards.subprocess.Popen
    monkeypatch.setattr(
        local_shards.subprocess,
        "Popen",
        lambda command, **options: started.append(command) or make(command, **options),
    )
    assert build_dialogues(run) == said
    assert contents(run) == alone
    assert len(started) == 2
    assert not (run.folder("dialogues") / "shards").exists()


def test_a_failed_process_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nowhere = json.dumps([settings(load_config("configs/quickstart.py"), FIELDS), "nowhere", {}, 2])
    with pytest.raises(ConfigError, match=r"ended with 2 \(2: see above"):
        local_shards.run_shards(dialogues.__name__, nowhere, 2, tmp_path, ".parquet", 2)
    assert "nowhere" in capfd.readouterr().err


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    local_shards.write(lambda number, path: path.write_text(f"old {number}"), tmp_path, "0", ".txt")
    local_shards.write(
        lambda number, path: path.write_text(f"new {number}"), tmp_path, "0,1", ".txt"
    )
    assert (tmp_path / "00000.txt").read_text() == "old 0"
    assert (tmp_path / "00001.txt").read_text() == "new 1"
    # all are whole: no process is started, not even one that could not be
    paths = local_shards.run_shards("no.such.module", "", 2, tmp_path, ".txt", 2)
    assert [path.name for path in paths] == ["00000.txt", "00001.txt"]
