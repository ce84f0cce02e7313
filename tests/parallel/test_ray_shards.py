"""`annotate` and `predict` on a local Ray cluster with two workers: as the local run, lost shards too."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bua_jax.basics.config import load as load_config
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.parallel import ray_shards
from bua_jax.pipeline import dialogues
from bua_jax.pipeline.answers import part_lines, write_answers, write_answers_on_ray
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import build_data, load_store
from bua_jax.pipeline.dialogues import build_dialogues, build_dialogues_on_ray
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import build_set
from tests.support.helpers import ROOT, require
from tests.support.runs import verb

SIZES = {
    "data.num_users": 20,
    "data.num_days": 10,
    "windows.train": 150,
    "windows.validation": 20,
}
FILES = ("stage1.parquet", "stage2.parquet")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    ray = require("ray")
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


def run_of(workdir: Path) -> Run:
    config = load_config("configs/quickstart.py")
    config.update_from_flattened_dict(SIZES)
    run = Run(config, workdir)
    build_data(run)
    for name in dialogues.SETS:
        build_set(run, name)
    return run


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, bytes]]:
    """A run whose dialogues were written without Ray, and their files."""
    run = run_of(tmp_path_factory.mktemp("local"))
    build_dialogues(run)
    return run, contents(run)


def contents(run: Run) -> dict[str, bytes]:
    return {name: (run.folder("dialogues") / name).read_bytes() for name in FILES}


def interrupted(work: ray_shards.Work, notes: Path, always: bool, number: int, path: Path) -> None:
    """`work` that notes each try; in the first try of shard 3 (or each) it waits to be killed."""
    with (notes / str(number)).open("a") as file:
        file.write("tried\n")
    if number == 3 and (always or (notes / "3").read_text().count("tried") == 1):
        (notes / "pid.tmp").write_text(str(os.getpid()))
        (notes / "pid.tmp").rename(notes / "pid")
        time.sleep(60)
    work(number, path)


def kill_when_noted(notes: Path) -> None:
    for _ in range(6000):  # workers of a busy machine start late
        if (notes / "pid").is_file():
            os.kill(int((notes / "pid").read_text()), signal.SIGKILL)
            return
        time.sleep(0.05)


def with_a_killed_worker(monkeypatch, notes: Path, always: bool) -> None:
    """Lets `build_dialogues_on_ray` work by `interrupted`, and kills the worker that waits for it."""
    write = dialogues.write_shard

    def wrapped(*fixed: Any) -> ray_shards.Work:
        return functools.partial(interrupted, functools.partial(write, *fixed), notes, always)

    monkeypatch.setattr(dialogues, "shard_work", wrapped)
    threading.Thread(target=kill_when_noted, args=(notes,), daemon=True).start()


@pytest.mark.long  # which shards are done when it dies depends on the machine's load
def test_a_killed_workers_shard_is_redone(cluster, local, tmp_path: Path, monkeypatch) -> None:
    run = run_of(tmp_path / "run")
    notes = tmp_path / "notes"
    notes.mkdir()
    with_a_killed_worker(monkeypatch, notes, always=False)
    build_dialogues_on_ray(run)
    tries = {p.name: p.read_text().count("tried") for p in notes.iterdir() if p.name != "pid"}
    assert tries.pop("3") == 2
    assert len(tries) == 19
    assert contents(run) == local[1]
    assert not (run.folder("dialogues") / "shards").exists()


@pytest.mark.long
def test_without_retries_it_is_an_error_and_a_rerun_goes_on(
    cluster, local, tmp_path: Path, monkeypatch
) -> None:
    run = run_of(tmp_path / "run")
    notes = tmp_path / "notes"
    notes.mkdir()
    with monkeypatch.context() as patch:
        with_a_killed_worker(patch, notes, always=True)
        with pytest.raises(ConfigError, match=r"Shard 3 of 20 was lost .* 1 times .*--ray_retries"):
            build_dialogues_on_ray(run, retries=0)
    kept = sorted((run.folder("dialogues") / "shards").rglob("*.parquet"))
    assert kept
    before = {path: path.stat().st_mtime_ns for path in kept}
    seen = []
    finish = dialogues._finish

    def look(*arguments):
        seen.append({path: path.stat().st_mtime_ns for path in kept})
        return finish(*arguments)

    monkeypatch.setattr(dialogues, "_finish", look)
    build_dialogues_on_ray(run)
    assert seen == [before]
    assert contents(run) == local[1]


def answer(begin: int, some: list[str]) -> list[dict[str, Any]]:
    return [{"prediction": f"é {begin + i}"} for i in range(len(some))]


def write_part(ids: list[str], part: int, number: int, path: Path) -> None:
    some = ids[number * part : (number + 1) * part]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(x + "\n" for x in part_lines(some, answer(number * part, some))))


def fails(number: int, path: Path) -> None:
    raise DataError("line 4: time is '25:00'")


def test_answers_are_those_of_the_local_run(cluster, tmp_path: Path) -> None:
    ids: Any = [f"person {i}" for i in range(10)]
    write_answers(
        tmp_path / "a.jsonl", ids, ids, lambda some, i: answer(i, some), identity="x", part=3
    )
    work = functools.partial(write_part, ids, 3)
    write_answers_on_ray(tmp_path / "b.jsonl", work, 4, identity="x")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def numbered(number: int, path: Path) -> None:
    path.write_text(f"shard {number}")


def test_an_altered_shard_is_made_anew(cluster: str, tmp_path: Path, capsys) -> None:
    paths = ray_shards.run_shards(numbered, 2, tmp_path, ".txt", address=cluster)
    assert [path.read_text() for path in paths] == ["shard 0", "shard 1"]
    paths[1].write_text("shard 0")
    assert ray_shards.run_shards(numbered, 2, tmp_path, ".txt", address=cluster) == paths
    assert paths[1].read_text() == "shard 1"
    assert "cut or altered, and made anew: 00001.txt" in capsys.readouterr().err


def test_an_error_in_a_worker_is_the_projects_own(cluster, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^line 4: time is '25:00'$"):
        ray_shards.run_shards(fails, 2, tmp_path, ".jsonl")


@pytest.mark.long
def test_annotate_on_an_existing_cluster(cluster: str, local, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    flags = [f"--config.{name}={value}" for name, value in SIZES.items()]
    ray = ("--engine=ray", f"--ray_address={cluster}")
    config = "--config=configs/quickstart.py"
    done = verb("annotate", config, f"--workdir={workdir}", *flags, *ray)
    assert done.returncode == 0, done.stderr
    assert contents(Run(local[0].config, workdir)) == local[1]


def test_without_ray_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install ray"):
        ray_shards.start_ray()


def test_the_folder_of_shards_depends_on_the_config(local) -> None:
    run, _ = local
    other = Run(run.config.copy_and_resolve_references(), run.workdir)
    other.config.seed = 1
    store = load_store(run)
    sets = dialogues.load_sets(run, store)
    folder = dialogues.shard_folder(run, store, sets, 20)
    assert folder != dialogues.shard_folder(other, store, sets, 20)
    assert folder != dialogues.shard_folder(run, store, {**sets, "train": sets["validation"]}, 20)
    assert folder != dialogues.shard_folder(run, store, sets, 4)
    assert folder == dialogues.shard_folder(STEPS["dialogues"].run(run), store, sets, 20)
