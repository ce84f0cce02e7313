"""What a workdir holds: half-built steps, files that were altered, claims, and what was asked last."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bua_jax.basics import begun, files
from bua_jax.basics.claims import claimed
from bua_jax.basics.errors import ClaimedError, DataError, MismatchError
from bua_jax.pipeline import finished, steps
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import Run, Step, ensure, keyed, outline, read_record
from tests.support.steps import Built, ask, config_of, faked


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking git and all packages takes longer than everything else here."""
    monkeypatch.setattr(steps, "versions", lambda: {"bua_jax": "0.0", "git": "abc"})


# ------------------------------------------------------------------------------- half-built steps


def cut_at(workdir: Path, step: int, table: dict[str, Step], **fields: Any) -> dict[str, Any]:
    """The note of stage 1 after it was cut at a step; 0: before its first checkpoint."""

    def cut(run: Run) -> dict[str, Any]:
        if step:
            (workdir / "stage1" / "checkpoints" / str(step)).mkdir(parents=True)
        raise KeyboardInterrupt

    table["stage1"] = dataclasses.replace(table["stage1"], build=cut)
    with pytest.raises(KeyboardInterrupt):
        ensure(Run(config_of(**fields), workdir), "stage1", table)
    return files.read_sealed(workdir / "stage1" / "started.json")


def test_a_cut_step_says_what_it_was_started_with(tmp_path: Path) -> None:
    """What has nothing yet to go on from begins anew."""
    table = faked([])
    (first,) = cut_at(tmp_path, 0, table, execution__remat="none")["goes"]
    assert (first["execution"]["remat"], first["from_step"]) == ("none", 0)
    (other,) = cut_at(tmp_path, 0, table, execution__remat="full")["goes"]
    assert other["execution"]["remat"] == "full"
    start = cut_at(tmp_path, 0, table, stage1__peak_lr=0.5)
    assert start["settings"]["stage1.peak_lr"] == 0.5
    ask(tmp_path, "stage1")
    assert [p.name for p in (tmp_path / "stage1").iterdir()] == ["record.json"]


def test_a_note_of_another_version_is_named(tmp_path: Path) -> None:
    cut_at(tmp_path, 4, faked([]))
    path = tmp_path / "stage1" / "started.json"
    note = files.read_sealed(path)
    del note["sources"]
    files.write_sealed(path, note)
    with pytest.raises(MismatchError, match="another version: its note does not say sources"):
        ask(tmp_path, "stage1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("execution.attention", "xla"),
        ("execution.remat", "none"),
        ("execution.merge_adapter", False),
        ("model.warm_start", False),
        ("model.dtype", "bfloat16"),
        ("stage1.peak_lr", 0.5),
    ],
)
def test_a_half_built_step_goes_on_as_it_was_begun(tmp_path: Path, field: str, value: Any) -> None:
    cut_at(tmp_path, 4, faked([]))
    part, _, name = field.partition(".")
    before = config_of()[part][name]
    other = {field.replace(".", "__"): value}
    with pytest.raises(MismatchError) as caught:
        ask(tmp_path, "stage1", **other)
    said = f"is half built (step 4) with {field}={before!r}, but now it is {value!r}"
    assert said in str(caught.value)
    with pytest.raises(MismatchError, match="is half built"):  # as a dry run says
        outline(Run(config_of(**other), tmp_path), "stage1", STEPS)
    if not field.startswith("execution"):  # of what it is nothing can be mixed
        with pytest.raises(MismatchError, match="is half built"):
            ask(tmp_path, "stage1", **other, execution__mix=True)
    assert ask(tmp_path, "stage1", execution__decode_batch=9, execution__mesh="2") == ["stage1"]


def test_what_auto_is_here_is_compared_too(tmp_path: Path, capsys) -> None:
    """A machine without a compiler attends otherwise, whatever the config says."""
    folder = tmp_path / "stage1"
    cut_at(tmp_path, 0, faked([]))
    begun.found_out(folder, "attention", "cpu", mix=False)
    begun.found_out(folder, "attention", "xla", mix=False)  # there was nothing to go on from
    cut_at(tmp_path, 4, faked([]))
    begun.found_out(folder, "attention", "cpu", mix=False)
    cut_at(tmp_path, 8, faked([]))
    with pytest.raises(MismatchError, match=r"step 8\) with attention='cpu', but now it is 'xla'"):
        begun.found_out(folder, "attention", "xla", mix=False)
    capsys.readouterr()
    begun.found_out(folder, "attention", "xla", mix=True)
    assert "with other attention (xla, was cpu)" in capsys.readouterr().err
    assert ask(tmp_path, "stage1") == ["stage1"]
    goes = files.read_sealed(folder / "record.json")["goes"]
    said = [(go["from_step"], go["compared"]["attention"]) for go in goes]
    assert said == [(0, "cpu"), (8, "xla")]


def test_a_mixed_step_says_what_was_done_with_which(tmp_path: Path, monkeypatch, capsys) -> None:
    """As does one that goes on with other code; more or fewer cores are refused like another remat."""
    on = {"device": "cpu", "cores": 2}
    monkeypatch.setattr(steps, "hardware", lambda: on.copy())
    table = faked([])
    cut_at(tmp_path, 4, table, execution__remat="full")
    on["cores"] = 4
    with pytest.raises(MismatchError, match=r"step 4\) with cores=2, but now it is 4, which gives"):
        ask(tmp_path, "stage1", execution__remat="full")
    cut_at(tmp_path, 8, table, execution__mix=True, execution__remat="none")
    said = capsys.readouterr().err
    assert "goes on at step 4 with other" in said
    assert "remat (none, was full)" in said
    assert "cores (4, was 2)" in said
    monkeypatch.setattr(steps, "versions", lambda: {"bua_jax": "0.0", "git": "abc", "code": "1"})
    how = {"execution__mix": True, "execution__remat": "none"}
    assert ask(tmp_path, "stage1", **how) == ["stage1"]
    assert "code (1, was None)" in capsys.readouterr().err
    record = read_record(Run(config_of(), tmp_path), "stage1")
    assert record is not None
    goes = record["goes"]
    assert [go["from_step"] for go in goes] == [0, 4, 8]
    assert [go["execution"]["remat"] for go in goes] == ["full", "none", "none"]
    assert [go["hardware"]["cores"] for go in goes] == [2, 4, 4]
    assert [go["versions"].get("code") for go in goes] == [None, None, "1"]
    assert ask(tmp_path, "stage1", execution__remat="dots") == []  # it is finished


@pytest.mark.parametrize("name", ["result.arrow.partial", "result.arrow"])
def test_a_half_written_result_file_goes_on_as_it_was_begun(
    tmp_path: Path, monkeypatch, name: str
) -> None:
    """Its rows are numbers of one machine, or the record says of which; also one without a record."""
    on, step = {"device": "cpu", "cores": 2}, "predict/bua/test"
    monkeypatch.setattr(steps, "hardware", lambda: on.copy())

    def cut(run: Run) -> dict[str, Any]:
        (run.folder(step) / name).write_text("some slices")
        raise KeyboardInterrupt

    table = faked([])
    table[step] = dataclasses.replace(table[step], build=cut)
    with pytest.raises(KeyboardInterrupt):
        ensure(Run(config_of(), tmp_path), step, table)
    on["cores"] = 4
    said = f"is half built ({name}) with cores=2, but now it is 4"
    with pytest.raises(MismatchError, match=re.escape(said)):
        ask(tmp_path, step)
    assert ask(tmp_path, step, execution__mix=True) == [step]
    goes = files.read_sealed(tmp_path / step / "record.json")["goes"]
    assert [go["hardware"]["cores"] for go in goes] == [2, 4]


def test_a_step_with_a_trained_part_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    """PITuning trains three networks in turn: the second is not to go on from another first."""
    step = "fit/pituning"

    def cut(run: Run) -> dict[str, Any]:
        (run.folder(step) / "population" / "checkpoints" / "3").mkdir(parents=True)
        raise KeyboardInterrupt

    table = faked([])
    table[step] = dataclasses.replace(table[step], build=cut)
    with pytest.raises(KeyboardInterrupt):
        ensure(Run(config_of(), tmp_path), step, table)
    field = "methods.pituning.reconstruction"
    said = rf"half built \(step 3 of population\) with {field}=\S+, but now it is 0\.9"
    with pytest.raises(MismatchError, match=said):
        ask(tmp_path, step, methods__pituning__reconstruction=0.9)
    assert ask(tmp_path, step) == [step]


# ---------------------------------------------------------------------------------- what was written


def writing(built: Built, text: str = "one") -> dict[str, Step]:
    """Fakes that write the files that their steps are said to write."""

    def write(step: Step) -> Callable[[Run], dict[str, Any]]:
        def build(run: Run) -> dict[str, Any]:
            built.append(step.name)
            for name in step.files:
                (run.folder(step.name) / name).write_text(text)
            return {}

        return build

    return {n: dataclasses.replace(step, build=write(step)) for n, step in STEPS.items()}


ONE_OF_A_KIND = (
    "windows/test",
    "windows/cross",
    "fit/markov",
    "predict/bua/test",
    "generate/bua/days",
)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (step.name, name)
        for step in STEPS.values()
        for name in step.files
        if "/" not in step.name or step.name in ONE_OF_A_KIND
        if not step.renew
    ],
)
def test_a_file_that_the_step_did_not_write_is_refused(
    tmp_path: Path, step: str, name: str
) -> None:
    config = config_of(windows__cross=5)
    run = Run(config, tmp_path)
    ensure(run, step, writing([]))
    path = tmp_path / step / name
    assert run.file(step, name) == path
    path.write_text("another")
    with pytest.raises(DataError, match="is not the file that the step") as caught:
        run.file(step, name)
    assert str(path) in str(caught.value)
    assert f"rm -r {tmp_path / step}" in str(caught.value)
    with pytest.raises(MismatchError, match="is not the file that the step"):
        ensure(run, step, writing([]))
    path.unlink()
    with pytest.raises(MismatchError, match="it is not there"):
        ensure(run, step, writing([]))
    path.write_text("one")
    built: Built = []
    ensure(run, step, writing(built))
    assert built == []


def test_altered_metrics_are_scored_again(tmp_path: Path) -> None:
    ensure(Run(config_of(), tmp_path), "evaluation", writing([]))
    (tmp_path / "evaluation" / "metrics.json").write_text("another")
    built: Built = []
    ensure(Run(config_of(), tmp_path), "evaluation", writing(built))
    assert built == ["evaluation"]
    (tmp_path / "evaluation" / "metrics.json").unlink()
    ensure(Run(config_of(), tmp_path), "evaluation", writing(built))
    assert built == ["evaluation"] * 2


def test_evaluations_of_two_configs_in_one_workdir(tmp_path: Path) -> None:
    """Where steps lie by their keys, neither overwrites what the other found."""
    runs = [
        keyed(Run(config_of(evaluation__bootstrap=count), tmp_path), STEPS) for count in (10, 20)
    ]
    for run in runs:
        ensure(run, "evaluation", writing([]))
    first, second = (run.file("evaluation", "metrics.json") for run in runs)
    assert first != second
    assert not (tmp_path / "metrics.json").exists()


def test_no_bit_of_a_record_is_believed_unseen(tmp_path: Path) -> None:
    ask(tmp_path, "data")
    path, run = tmp_path / "data" / "record.json", Run(config_of(), tmp_path)
    whole, good = path.read_bytes(), read_record(run, "data")
    refused = 0
    for place in range(0, 8 * len(whole), 101):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            found = read_record(run, "data")
        except DataError as error:
            found, refused = good, refused + (f"rm -r {tmp_path / 'data'}" in str(error))
        assert found == good
    assert refused > 0.8 * len(range(0, 8 * len(whole), 101))


@pytest.mark.parametrize("lacking", [*steps._PARTS, "encoder.kind"])
def test_a_record_of_an_older_version_names_the_way_out(tmp_path: Path, lacking: str) -> None:
    ask(tmp_path, "encoder")
    path = tmp_path / "encoder" / "record.json"
    record = files.read_sealed(path)
    (record["settings"] if "." in lacking else record).pop(lacking)
    files.write_sealed(path, record)
    with pytest.raises(
        MismatchError, match=r"was built by version 0\.0 .*, whose records"
    ) as caught:
        ask(tmp_path, "encoder")
    assert "--workdir=runs/NAME" in str(caught.value)
    assert ("config.encoder.kind" in str(caught.value)) == (lacking == "encoder.kind")


@pytest.mark.parametrize("lacking", ["folders", "files", "config"])
def test_a_model_of_an_older_version_is_refused_by_name(tmp_path: Path, lacking: str) -> None:
    ask(tmp_path, "stage2")
    path = tmp_path / "stage2" / "record.json"
    record = files.read_sealed(path)
    del record[lacking]
    files.write_sealed(path, record)
    with pytest.raises(MismatchError, match=r"was built by version 0\.0 .*, whose records"):
        finished.load(tmp_path)


# -------------------------------------------------------------------------------- one process at a time


def test_a_refused_command_leaves_what_the_last_one_said(tmp_path: Path) -> None:
    ask(tmp_path, "encoder")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(MismatchError):
        ask(tmp_path, "encoder", seed=43)
    with claimed(tmp_path / "stage1"), pytest.raises(ClaimedError):
        ask(tmp_path, "stage1", report__examples=9)
    files_ = {p.name for p in tmp_path.iterdir()}
    assert not files_ & {"stage1", ".stage1.claim"}
    said = files.read_sealed(tmp_path / "run.json")
    assert said["config"]["report"]["examples"] == 9  # the steps before it were built
    assert before != (tmp_path / "run.json").read_bytes()
    with claimed(tmp_path / "stage1"), pytest.raises(ClaimedError):
        ask(tmp_path, "stage1", report__examples=10)
    assert files.read_sealed(tmp_path / "run.json") == said


def test_a_step_that_another_process_has_finished_meanwhile_is_not_built(
    tmp_path: Path, monkeypatch
) -> None:
    claim = steps.claimed

    def late(path: Path, **options: Any) -> Any:
        if path.name == "encoder":
            monkeypatch.setattr(steps, "claimed", claim)
            ask(tmp_path, "encoder")
        return claim(path, **options)

    monkeypatch.setattr(steps, "claimed", late)
    assert ask(tmp_path, "encoder") == ["data"]
