"""What may go of a run, what stays, and that nothing of use went."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bua_jax.basics import claims, files
from bua_jax.basics.errors import ClaimedError, DataError, MismatchError
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.schema import EventStore
from bua_jax.experiments.clean import compiled, removable, remove, remove_compiled
from bua_jax.pipeline.finished import load
from tests.support.runs import curriculum, verb

LEFT = {
    "checkpoints/2/state": "moments",
    "best/2/state": "weights",
    "tokens_train.arrow": "tokens",
    "result.arrow.partial": "slices",
    "metrics.jsonl": "{}",
    "trained.safetensors": "weights",
}


def step(folder: Path, *, finished: bool) -> Path:
    """A step's folder as a build leaves it, with or without its record."""
    for name, text in LEFT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if finished:
        hashes = {"trained.safetensors": files.sha256_file(folder / "trained.safetensors")}
        files.write_sealed(folder / "record.json", {"step": folder.name, "files": hashes})
    return folder


def test_finished_steps_lose_what_they_are_not_read_by(tmp_path: Path) -> None:
    """Those in a run, in an experiment's folder, and in several runs."""
    done = step(tmp_path / "run" / "stage2", finished=True)
    half = step(tmp_path / "run" / "steps" / "stage3" / "a1", finished=False)
    (half / "checkpoints" / "3.orbax-checkpoint-tmp-7").mkdir()
    for name in ("checkpoints", "best"):  # of a part that was trained by itself
        shutil.copytree(done / name, done / "population" / name)
    (tmp_path / "run" / ".run.json.0123abcd.tmp").touch()
    found = removable(tmp_path)
    gone = {piece.path.relative_to(tmp_path / "run").as_posix() for piece in found}
    assert gone == {
        *("stage2/checkpoints", "stage2/best", "stage2/tokens_train.arrow"),
        *("stage2/population/checkpoints", "stage2/population/best"),
        *("stage2/result.arrow.partial", ".run.json.0123abcd.tmp"),
        "steps/stage3/a1/checkpoints/3.orbax-checkpoint-tmp-7",
    }
    sizes = len("moments" + "weights" + "tokens" + "slices"), len("moments" + "weights")
    assert sum(piece.size for piece in found) == sum(sizes)
    remove(found)
    left = {path.name for path in done.iterdir() if path.is_file()}
    assert left == {"metrics.jsonl", "trained.safetensors", "record.json"}
    assert all((half / name).read_text() == text for name, text in LEFT.items())
    assert removable(tmp_path) == []
    assert not list(tmp_path.rglob(".*"))


def test_the_verb_removes_nothing_unasked(tmp_path: Path) -> None:
    done = step(tmp_path / "stage2", finished=True)
    listed = verb("clean", str(tmp_path))
    assert "--yes removes it" in listed.stdout, listed.stderr
    assert (done / "checkpoints").is_dir()
    assert "no/such" in verb("clean", "no/such").stderr


def test_a_run_that_is_worked_on_is_left_alone(tmp_path: Path) -> None:
    done = step(tmp_path / "stage2", finished=True)
    found = removable(tmp_path)
    said = f"stage3 is being written by process {os.getpid()}"
    with claims.claimed(tmp_path / "stage3"), pytest.raises(ClaimedError, match=said):
        removable(tmp_path)
    with claims.claimed(done), pytest.raises(ClaimedError):  # who came in between
        remove(found)
    claim = claims.claim_of(done)
    gone = {"host": "elsewhere", "pid": 1, "start": None, "since": "yesterday"}
    claim.write_text(json.dumps(gone))
    with pytest.raises(ClaimedError, match="--take_over"):
        removable(tmp_path)
    assert claim in {piece.path for piece in removable(tmp_path, take_over=True)}
    (done / "record.json").unlink()
    with pytest.raises(MismatchError, match="no longer finished"):
        remove(found, take_over=True)
    assert (done / "checkpoints").is_dir()


def test_a_damaged_step_and_what_is_no_run(tmp_path: Path) -> None:
    (step(tmp_path / "a", finished=True) / "trained.safetensors").write_text("other")
    with pytest.raises(DataError, match=r"trained\.safetensors is not the file"):
        removable(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(MismatchError, match="is no run and holds none"):
        removable(tmp_path / "b")


def test_compiled_programs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    for name in ("jit_f-12-cache", "jit_f-12-atime", "cpu-1.so"):
        (tmp_path / name).write_text("x")
    assert [piece.size for piece in compiled()] == [2]
    remove_compiled()
    assert [path.name for path in tmp_path.iterdir()] == ["cpu-1.so"]
    assert compiled() == []


def test_a_cleaned_run_is_finished_and_answers_as_before(quickstart: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(quickstart, tmp_path / "run"))
    store = EventStore.load(run / "data" / "events.parquet")
    (tmp_path / "h.jsonl").write_text("".join(example_lines(store, 1)))

    def answers() -> str:
        bua = load(run)
        _, histories = read_histories(
            tmp_path / "h.jsonl", bua.catalogue, bua.windows.prediction_history
        )
        return json.dumps([one.record for one in bua.predict(histories)])

    before, done = answers(), verb("clean", str(run), "--yes")
    assert done.returncode == 0, done.stderr
    assert not list(run.rglob("checkpoints"))
    again = curriculum(run, "--dry_run")
    assert again.returncode == 0, again.stderr
    assert "to build" not in again.stdout
    assert again.stdout.count("\ndone") > 20
    assert answers() == before
