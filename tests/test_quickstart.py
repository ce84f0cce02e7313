"""The whole chain at reduced size, through the verbs, as a new user runs it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bua_jax.basics.errors import DataError
from bua_jax.evaluation import results
from bua_jax.events.histories import example_lines, read_histories
from bua_jax.events.schema import EventStore
from bua_jax.models.kernels import cpu
from tests.support.helpers import ROOT, require
from tests.support.readme import commands, tagged
from tests.support.runs import REDUCED, curriculum, verb

DIALOGUE = r"<summary>(\S+:\d+): .* predicted, .* true</summary>"  # of the report: the case
METHODS = {
    "majority",
    "window_majority",
    "markov",
    "markov_counts",
    "lightgbm",
    "sasrec",
    "behavegpt",
    "encoder_adjusted",
    "bua",
    "bua_stage2",
    "zero_shot",
}


JOINT = (
    "--config.evaluation.methods="
    "('bua', 'bua_joint', 'bua_given1', 'bua_given2', 'bua_given3', 'bua_no_rounds')"
)


def test_metrics_and_report(quickstart: Path) -> None:
    metrics = json.loads((quickstart / "metrics.json").read_text())
    assert set(metrics["prediction"]) >= METHODS
    for name in METHODS:
        row = metrics["prediction"][name]
        assert row["n"] == 40
        assert 1 <= row["people"] <= 3
        assert 0 <= row["rec_w_interval"][0] <= row["rec_w"] <= row["rec_w_interval"][1] <= 1
        assert row["log_loss"] > 0
        assert (row["training_windows"] > 0) == (name != "zero_shot")
    assert set(metrics["generation"]) == {"bua", "last_day"}
    assert set(metrics["texts"]) == {"bua", "bua_stage2"} & set(metrics["prediction"])
    for share in ("last", "top", "counts", "repeated"):
        assert 0 <= metrics["texts"]["bua"][share] <= 1
    told = metrics["understanding"]
    placebos = {"bua, another person's", "bua, words shuffled"}
    stages = {"bua_stage1", "bua_stage2", "bua"}
    assert set(told["rows"]) == {"reference", "untuned"} | stages | placebos
    assert {row["n"] for row in told["rows"].values()} == {12}
    assert told["rows"]["reference"]["metrics"]["precision"]["value"] == 1.0
    assert 0 <= told["rows"]["bua"]["metrics"]["recall"]["value"] < 1
    assert told["against"]["reference"]["recall"]["difference"] < 0
    assert told["ladder"]["of"] == "reference"
    for values in metrics["generation"]["bua"].values():
        assert set(values) == {"bleu", "tvd", "jsd", "js_distance"}
    assert metrics["signature"].startswith("bua|data:")
    page = (quickstart / "report.html").read_text()
    assert '<h2 id="confusion-of-bua">Confusion of bua</h2>' in page
    how = "attention auto, decode_batch 16, feed_workers 0, gradients_every 0, merge_adapter"
    assert f"Executed with {how}" in page
    assert "By these intervals BUA is " in page
    assert '<h2 id="what-texts-say-of-people">' in page
    assert "What is spoilt is seen in " in page
    assert len(re.findall(DIALOGUE, page)) == min(3, metrics["prediction"]["bua"]["people"])
    assert page.count(": generated beside real</summary>") >= 1


def test_every_step_records_what_it_was(quickstart: Path) -> None:
    for step in ("data", "encoder", "dialogues", "stage1", "stage2", "reflect", "stage3"):
        record = json.loads((quickstart / step / "record.json").read_text())
        assert {"settings", "inputs", "versions", "seconds", "config"} <= set(record)
        assert record["versions"]["jax"]
        if step.startswith("stage"):  # which "auto" it was
            assert record["result"]["attention"] == ("cpu" if cpu.available() else "xla")


def files_of(run: Path) -> dict[str, int]:
    """When each result file was written."""
    return {str(p.relative_to(run)): p.stat().st_mtime_ns for p in run.rglob("result.arrow")}


def test_running_again_repeats_nothing(quickstart: Path) -> None:
    before = files_of(quickstart)
    assert len(before) == 17
    done = curriculum(quickstart)
    assert done.returncode == 0, done.stderr
    assert "-- " not in done.stderr
    assert "bua - markov" in done.stdout
    assert files_of(quickstart) == before


def test_evaluate_takes_the_config_of_the_run(quickstart: Path) -> None:
    """And none of its dozen overrides again."""
    before = json.loads((quickstart / "run.json").read_text())["config"]
    done = verb("evaluate", f"--workdir={quickstart}")
    assert done.returncode == 0, done.stderr
    assert "bua - markov" in done.stdout
    assert json.loads((quickstart / "run.json").read_text())["config"] == before
    done = verb("evaluate", f"--workdir={quickstart}", "--config.encoder.kind=sasrec")
    assert done.returncode == 2
    assert "'sasrec'" in done.stderr


@pytest.mark.parametrize("name", ["annotate", "reflect"])
def test_dialogues_are_shown_by_the_config_of_the_run(quickstart: Path, name: str) -> None:
    """Its sizes are not those of the default config, which would be refused."""
    done = verb(name, f"--workdir={quickstart}", "--show=1")
    assert done.returncode == 0, done.stderr
    assert "-- " not in done.stderr  # nothing is built
    assert "=== stage" in done.stdout


def test_other_rows_predict_nothing_again(quickstart: Path, tmp_path: Path) -> None:
    """Nor does a restart of the scoring, which needs no jax: a stand-in that raises is found first."""
    run = Path(shutil.copytree(quickstart, tmp_path / "run"))
    before, kept = json.loads((run / "metrics.json").read_text()), files_of(run)
    (tmp_path / "without" / "jax").mkdir(parents=True)
    (tmp_path / "without" / "jax" / "__init__.py").write_text("raise RuntimeError('jax is used')\n")
    rows = "--config.evaluation.methods=('markov','bua_stage2','bua','last_day')"
    flags = (f"--workdir={run}", rows, "--config.execution.decode_batch=5", "--show=2")
    done = verb("evaluate", *flags, "--config.report.examples=1", before=tmp_path / "without")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"-- (\S+): done", done.stderr) == ["evaluation"]
    after = json.loads((run / "metrics.json").read_text())
    assert set(after["prediction"]) == {"markov", "bua", "bua_stage2"}
    against = before["prediction"]["bua"].pop("against")
    assert after["prediction"]["bua"].pop("against") == {
        name: against[name] for name in ("markov", "bua_stage2")
    }
    for name, row in after["prediction"].items():
        assert row == before["prediction"][name]
    assert after["generation"] == before["generation"]
    assert files_of(run) == kept
    assert len(re.findall(DIALOGUE, (run / "report.html").read_text())) == 1
    assert done.stdout.count("bua, case ") == 2
    assert done.stdout.count("  summary: ") == 2


def test_more_samples_are_asked_for_than_there_are(quickstart: Path) -> None:
    done = verb("evaluate", f"--workdir={quickstart}", f"--show={10**30}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bua, case ") == 40


def test_a_result_file_of_another_step_is_refused(quickstart: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(quickstart, tmp_path / "run"))
    shutil.copy(run / "predict/bua/match/result.arrow", run / "predict/bua/test/result.arrow")
    (run / "evaluation" / "record.json").unlink()
    done = verb("evaluate", f"--workdir={run}")
    assert done.returncode == 2
    assert "is not the file that the step predict/bua/test wrote" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_config_is_an_error_with_both_values(quickstart: Path) -> None:
    done = curriculum(quickstart, "--config.encoder.kind=sasrec")
    assert done.returncode == 2
    assert "encoder.kind='behavegpt'" in done.stderr
    assert "'sasrec'" in done.stderr
    assert "rm -r" in done.stderr
    assert "Traceback" not in done.stderr


def test_fresh_refuses_a_folder_that_is_not_empty(quickstart: Path) -> None:
    done = verb("train", f"--workdir={quickstart}", "--fresh")
    assert done.returncode == 2
    assert "not empty" in done.stderr


def test_predict_and_generate(quickstart: Path, tmp_path: Path) -> None:
    example = verb("predict", f"--model={quickstart}", "--example=2")
    assert example.returncode == 0, example.stderr
    histories = tmp_path / "histories.jsonl"
    histories.write_text(example.stdout)
    flags = (f"--model={quickstart}", f"--input={histories}")
    done = verb("predict", *flags, f"--output={tmp_path / 'p.jsonl'}", "--refine")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == max(row["probabilities"], key=row["probabilities"].get)
        assert set(row["understanding"]) == {"key_behaviours", "patterns", "summary", "refinement"}
    events = tmp_path / "events.csv"
    rows = ["user_id,time,location,behavior"] + [
        f"eva,2024-03-04T{i:02d}:00,x,pay" for i in range(12)
    ]
    events.write_text("\n".join(rows) + "\n")
    done = verb("predict", f"--model={quickstart}", str(events), "--for=eva")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("eva")
    assert "summary: " in done.stdout
    done = verb("describe", f"--model={quickstart}", *flags[1:], f"--output={tmp_path / 't.csv'}")
    assert done.returncode == 0, done.stderr
    head, *lines = (tmp_path / "t.csv").read_text().splitlines()
    assert head == "id,key_behaviours,patterns,summary"
    assert len(lines) == 2
    done = verb("generate", *flags, f"--output={tmp_path / 'g.jsonl'}", "--predictions")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert all(row["invalid_pieces"] == 0 for row in rows)
    assert all(row["prediction"] in row["probabilities"] for row in rows)


def test_what_is_shown_to_others_names_no_user(quickstart: Path) -> None:
    store = EventStore.load(quickstart / "data" / "events.parquet")
    lines = (quickstart / "reflect/drafts.jsonl").read_text().splitlines()
    found = {json.loads(line)["sample_id"] for line in lines}
    for path in quickstart.rglob("result.arrow"):
        found |= set(results.read(path).sample_id)
    page = (quickstart / "report.html").read_text()
    shown = re.findall(DIALOGUE, page)
    assert shown
    found |= set(shown)
    assert len(found) > 40
    users = {name.partition(":")[0] for name in found}
    assert users <= set(store.shown_users)
    assert not users & set(store.users.tolist())


@pytest.mark.long
def test_two_shards_of_predictions_are_those_of_the_local_run(
    quickstart: Path, tmp_path: Path
) -> None:
    """A shard is 2 batches of 16."""
    require("ray")
    store = EventStore.load(quickstart / "data" / "events.parquet")
    histories = tmp_path / "histories.jsonl"
    histories.write_text("".join(example_lines(store, 130)))
    flags = (f"--model={quickstart}", f"--input={histories}")
    for engine in ("local", "ray"):
        output = f"--output={tmp_path / engine}"
        done = verb("predict", *flags, output, f"--engine={engine}")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "local").read_bytes()


def test_a_bad_history_is_one_paragraph_and_replaces_nothing(
    quickstart: Path, tmp_path: Path
) -> None:
    store = EventStore.load(quickstart / "data" / "events.parquet")
    good = json.loads(example_lines(store, 1)[0])

    def message(events: list[dict]) -> str:
        path = tmp_path / "bad.jsonl"
        path.write_text(json.dumps({"id": "x", "events": events}) + "\n")
        with pytest.raises(DataError) as caught:
            read_histories(path, store.catalogue, 40)
        return str(caught.value)

    for change, expected in (
        ({"behaviour": "reed news"}, "did you mean 'read news'"),
        ({"time": "25:00"}, "HH:MM"),
        ({"weekday": "Blursday"}, "a name such as"),
        ({"day": -5}, "day"),
    ):
        events = [dict(e) for e in good["events"]]
        events[3] |= change
        assert expected in message(events)
        assert "line 1, event 4" in message(events)
    events = [{k: v for k, v in e.items() if k != "location"} for e in good["events"]]
    assert "'location' is missing" in message(events)
    assert "at least 10" in message(good["events"][:5])

    (tmp_path / "out.jsonl").write_text("earlier")
    message(good["events"][:5])
    flags = (f"--input={tmp_path / 'bad.jsonl'}", f"--output={tmp_path / 'out.jsonl'}")
    done = verb("predict", f"--model={quickstart}", *flags)
    assert done.returncode == 2
    assert "at least 10" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out.jsonl").read_text() == "earlier"


@pytest.mark.parametrize("body", tagged("python", "smoke"))
def test_python_blocks_of_the_readme(
    body: str, quickstart: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    store = EventStore.load(quickstart / "data" / "events.parquet")
    (tmp_path / "histories.jsonl").write_text("".join(example_lines(store, 1)))
    monkeypatch.chdir(tmp_path)
    exec(compile(body.replace("runs/quickstart", str(quickstart)), "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "key_behaviours" in shown
    assert any(label in shown for label in store.catalogue.behaviours)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("quickstart", "image/png"),
        ("your_own_data", "text/html"),
        ("loss_weighting", "image/png"),
    ],
)
def test_notebooks_run_on_the_workdir(quickstart: Path, monkeypatch, name: str, shown: str) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("BUA_WORKDIR", str(quickstart))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any(shown in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize(
    "flags",
    [
        ("--config.stages=(2,)", "--config.dialogues.rounds=False"),
        (
            "--config.stages=(2,)",
            "--config.model.soft_tokens=pooled",
            "--config.encoder.kind=sasrec",
        ),
        (
            "--config.stages=(2,)",
            "--config.model.soft_tokens=item",
            "--config.stage2.loss=token_mean",
            "--config.stage2.balancer=appendix_k",
            "--config.dialogues.target_time_revealed=True",
        ),
        ("--config.stages=(1, 2)", "--config.model.soft_tokens=none"),
        (
            "--config.stages=(2,)",
            "--config.model.soft_tokens=text",
            "--config.dialogues.rounds=False",
        ),
        (JOINT,),
        (
            "--config.stages=(2,)",
            "--config.model.base_quantization=nf4",
            "--config.execution.merge_adapter=False",
        ),
    ],
    ids=[
        "no rounds",
        "pooled sasrec",
        "item token_mean weights revealed",
        "no soft tokens",
        "history in words",
        "joint",
        "nf4 base",
    ],
)
@pytest.mark.long
def test_every_switch_runs(flags: tuple[str, ...], tmp_path: Path) -> None:
    rows = "--config.evaluation.methods=('majority','zero_shot','bua')"
    done = curriculum(tmp_path / "run", rows, *flags)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["prediction"]["bua"]["n"] == 40
    if JOINT in flags:
        assert "bua_joint" in metrics["prediction"]
        own, *others = metrics["oracle"]
        assert own["accuracy"] == pytest.approx(metrics["prediction"]["bua"]["rec_w"])
        for row in others:
            change = (row["w2r"] - row["r2w"]) / 40
            assert change == pytest.approx(row["accuracy"] - own["accuracy"])
    else:
        assert set(metrics["prediction"]) == {"majority", "zero_shot", "bua"}
    rounded = any("base_quantization" in flag for flag in flags)
    if not rounded:  # transformers computes with the base as it is
        output = tmp_path / "parity"
        done = verb("parity", f"--model={tmp_path / 'run'}", f"--output={output}", "--dialogues=2")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("body", tagged("bash", "smoke"))
def test_shell_blocks_of_the_readme_work_as_the_first_command(body: str, tmp_path: Path) -> None:
    """`train` on an empty workdir builds what it needs (two optimizer steps per stage)."""
    for words in commands(body):
        assert words[:2] == ["python", "-m"]
        name = words[2].removeprefix("bua_jax.")
        done = verb(name, *words[3:], f"--workdir={tmp_path / 'run'}", *REDUCED)
        assert done.returncode == 0, done.stderr
        for step in ("data", "encoder", "dialogues", "stage1", "stage2"):
            assert f"-- {step}: done" in done.stderr
