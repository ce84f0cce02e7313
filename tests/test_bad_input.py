"""What goes wrong for users, through the verbs: one paragraph, exit code 2, earlier results untouched."""

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bua_jax.basics import files
from bua_jax.basics.errors import CheckpointError, DataError, MismatchError
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.interop.huggingface import load_tree, save_tree
from bua_jax.pipeline.finished import load
from tests.support.helpers import ROOT
from tests.support.runs import REDUCED, verb

TRAINED = Path("stage3") / "trained.safetensors"


@pytest.fixture
def copied(quickstart: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage."""
    return Path(shutil.copytree(quickstart, tmp_path / "run"))


def rewrite(path: Path, tree: Any, metadata: dict[str, str]) -> None:
    """Writes a tree as if its step had: with its hash in the record."""
    save_tree(path, tree, metadata)
    record = files.read_sealed(path.parent / "record.json")
    record["files"][path.name] = files.sha256_file(path)
    files.write_sealed(path.parent / "record.json", record)


def assert_one_paragraph(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "\n\n" not in done.stderr.strip()


@pytest.mark.parametrize(
    "name",
    [
        *("base", "base_config", "tokenizer", "encoder", "catalogue", "lora"),
        *("soft_tokens", "recall"),
    ],
)
def test_a_model_of_another_base_encoder_or_label_set(copied: Path, name: str) -> None:
    tree, metadata = load_tree(copied / TRAINED)
    had = metadata[name]
    rewrite(copied / TRAINED, tree, {**metadata, name: "something else"})
    with pytest.raises(MismatchError) as caught:
        load(copied)
    assert "'something else'" in str(caught.value)
    assert repr(had) in str(caught.value)
    assert name in str(caught.value)


def test_an_exchanged_encoder_is_noticed_by_every_verb(copied: Path, tmp_path: Path) -> None:
    path = copied / "encoder" / "encoder.safetensors"
    tree, metadata = load_tree(path)
    rewrite(path, tree, {**metadata, "hash": "0" * 12})
    store = EventStore.load(copied / "data" / "events.parquet")
    histories = tmp_path / "h.jsonl"
    histories.write_text("".join(example_lines(store, 1)))
    output = tmp_path / "out.jsonl"
    done = verb("predict", f"--model={copied}", f"--input={histories}", f"--output={output}")
    assert_one_paragraph(done)
    assert "encoder" in done.stderr
    assert "0" * 12 in done.stderr


@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.999])
def test_a_truncated_model(copied: Path, keep: float) -> None:
    data = (copied / TRAINED).read_bytes()
    (copied / TRAINED).write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(DataError, match=r"trained\.safetensors is not the file that the step"):
        load(copied)
    with pytest.raises(CheckpointError, match=r"trained\.safetensors"):
        load_tree(copied / TRAINED)


def test_a_run_of_an_older_version(copied: Path) -> None:
    path = copied / "stage3" / "record.json"
    record = files.read_sealed(path)
    del record["config"]["model"]["adapter"]
    files.write_sealed(path, record)
    with pytest.raises(MismatchError, match=r"had no config\.model\.adapter yet"):
        load(copied)


def test_another_valid_store_or_model_is_not_used(copied: Path, tmp_path: Path) -> None:
    """As valid as its own: of another population, or the model before it was refined."""
    simulated_store(5, 9, 3).save(copied / "data" / "events.parquet")
    done = verb("predict", f"--model={copied}", "--example=1")
    assert_one_paragraph(done)
    assert "events.parquet is not the file that the step data wrote" in done.stderr
    shutil.copyfile(copied / "stage2" / TRAINED.name, copied / TRAINED)
    with pytest.raises(DataError, match=f"rm -r {copied / 'stage3'}"):
        load(copied)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").touch()
    flags = (f"--input={tmp_path / 'h.jsonl'}", f"--output={tmp_path / 'out.jsonl'}")
    done = verb("predict", f"--model={tmp_path}", *flags)
    assert_one_paragraph(done)
    assert "python -m bua_jax.curriculum" in done.stderr


def test_names_of_places_mean_nothing(quickstart: Path, tmp_path: Path) -> None:
    """A place is a rank within the history, so an unknown one is as good as any."""
    store = EventStore.load(quickstart / "data" / "events.parquet")
    line = json.loads(example_lines(store, 1)[0])
    names = sorted({event["location"] for event in line["events"]})
    renamed = {name: f"never seen {i}" for i, name in enumerate(names)}
    other = [event | {"location": renamed[event["location"]]} for event in line["events"]]
    (tmp_path / "one.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "two.jsonl").write_text(json.dumps(line | {"events": other}) + "\n")
    one, two = (
        read_histories(tmp_path / f"{n}.jsonl", store.catalogue, 40)[1][0] for n in ("one", "two")
    )
    assert one.place.tolist() == two.place.tolist()
    assert one.encoder_fields().tolist() == two.encoder_fields().tolist()


def test_the_oldest_events_of_a_long_history_are_left_out(
    quickstart: Path, tmp_path: Path, capsys
) -> None:
    """Places are ranked within what is left, as in training."""
    store = EventStore.load(quickstart / "data" / "events.parquet")
    line = json.loads(example_lines(store, 1)[0])
    (tmp_path / "long.jsonl").write_text(json.dumps(line) + "\n")
    short = line | {"events": line["events"][-15:]}
    (tmp_path / "short.jsonl").write_text(json.dumps(short) + "\n")
    cut = read_histories(tmp_path / "long.jsonl", store.catalogue, 15)[1][0]
    assert "1 of 1 histories are longer than the 15 events" in capsys.readouterr().err
    whole = read_histories(tmp_path / "short.jsonl", store.catalogue, 15)[1][0]
    assert capsys.readouterr().err == ""
    assert cut.encoder_fields().tolist() == whole.encoder_fields().tolist()


def limited(name: str, *flags: str, size: int) -> subprocess.CompletedProcess[str]:
    """Runs a verb that may write no file beyond `size` bytes, as on a disk that fills up."""
    return subprocess.run(
        [sys.executable, "-m", f"bua_jax.{name}", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},  # it would keep half entries
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.parametrize(
    ("name", "step", "size"),
    [
        ("annotate", "dialogues", 4_000),
        ("train", "stage2", 100_000),
    ],
)
def test_a_full_disk_keeps_what_was_there(copied: Path, name: str, step: str, size: int) -> None:
    later = ("dialogues", "stage1", "stage2", "reflect", "stage3", "evaluation")
    for folder in later[later.index(step) :]:
        shutil.rmtree(copied / folder)
    last = ("run.json", "README.md")  # of the last command
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file() and p.name not in last}
    flags = ("--config=configs/quickstart.py", f"--workdir={copied}", *REDUCED)
    if name == "train":
        flags = (*flags, "--config.step=stage2")
    done = limited(name, *flags, size=size)
    assert_one_paragraph(done)
    assert "write" in done.stderr or "space" in done.stderr
    assert not (copied / step / "record.json").exists()
    assert all(p.read_bytes() == data for p, data in before.items())
    again = verb(name, *flags)
    assert again.returncode == 0, again.stderr
    assert (copied / step / "record.json").exists()


def without_privilege() -> None:
    """In the child: root too is held to the permissions of files."""
    drop_from_bounding_set, override = 24, 1  # prctl's PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(drop_from_bounding_set, override, 0, 0, 0):
        raise OSError("cannot give up CAP_DAC_OVERRIDE")


def test_storage_that_can_only_be_read(copied: Path) -> None:
    """A finished run prints its table; what has to be built is one paragraph."""
    report = (copied / "report.html").read_bytes()
    flags = ("--config=configs/quickstart.py", f"--workdir={copied}", *REDUCED)

    def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"bua_jax.{name}", *flags]
        return subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=without_privilege,
        )

    def writable(yes: bool) -> None:
        for path in (copied, *copied.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if yes else mode & ~0o222)

    writable(False)
    try:
        for done in (run("curriculum", *flags), run("evaluate", f"--workdir={copied}")):
            assert done.returncode == 0, done.stderr
            assert "bua - markov" in done.stdout
            assert "Could not write" in done.stderr
            assert "Traceback" not in done.stderr
        writable(True)
        shutil.rmtree(copied / "evaluation")
        writable(False)
        done = run("curriculum", *flags)
        assert_one_paragraph(done)
        assert f"Could not write {copied}/.evaluation.claim: Permission denied" in done.stderr
        assert f"Let user {os.geteuid()} write there or choose another" in done.stderr
    finally:
        writable(True)
    assert (copied / "report.html").read_bytes() == report


def test_a_refused_command_does_not_say_what_the_run_was_asked(copied: Path) -> None:
    before = (copied / "run.json").read_bytes()
    flags = ("--config=configs/quickstart.py", f"--workdir={copied}", *REDUCED)
    assert_one_paragraph(verb("curriculum", *flags, "--config.encoder.kind=sasrec"))
    assert (copied / "run.json").read_bytes() == before


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    """The second ends at once and names the first, which goes on."""
    command = [sys.executable, "-m", "bua_jax.pretrain", "--config=configs/quickstart.py"]
    command += [f"--workdir={tmp_path / 'run'}", *REDUCED]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if (tmp_path / "run" / ".encoder.claim").exists():
            break
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.1)
    second = subprocess.run(
        [*command, "--config.seed=43"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert_one_paragraph(second)
    assert f"encoder is being written by process {first.pid} on " in second.stderr
    said = first.communicate()[1]
    assert first.returncode == 0, said
    record = files.read_sealed(tmp_path / "run" / "encoder" / "record.json")
    assert record["settings"]["seed"] == 42
    asked = files.read_sealed(tmp_path / "run" / "run.json")["config"]["seed"]
    assert asked == 42
    assert not list((tmp_path / "run").glob(".*"))
