"""What a wrong call says: the thing that is wrong, and a way on that exists."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags

from bua_jax import cli
from bua_jax.basics import config as configs
from bua_jax.basics import files, help
from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.basics.hints import nearest_run, unfinished_near
from bua_jax.events.readers import read_events
from bua_jax.events.spec import DataSpec
from bua_jax.experiments.compare import finished
from bua_jax.pipeline.finished import finished_stage
from tests.support.helpers import ROOT
from tests.support.runs import verb


@pytest.mark.parametrize(
    ("name", "flags", "said", "unsaid"),
    [
        (
            "anonymise",
            ["--input=nope.csv", "--output=a.parquet"],
            "no file --input=nope.csv",
            "config.",
        ),
        ("anonymise", ["nope.csv"], "no file --input=nope.csv", "Unexpected"),
        ("bench", ["foo"], "no benchmark 'foo'; there are: base, decode, train, ", "start with"),
        (
            "versions",
            ["foo"],
            "argument 'foo': every argument is a flag, --NAME=VALUE",
            "start with",
        ),
    ],
)
def test_wrong_calls(name: str, flags: list[str], said: str, unsaid: str) -> None:
    done = verb(name, *flags)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert unsaid not in done.stderr


@pytest.mark.parametrize("below", ["", "run"])
def test_a_workdir_that_is_a_file(tmp_path: Path, monkeypatch, below: str) -> None:
    (tmp_path / "afile").write_text("x")
    given = SimpleNamespace(workdir=str(tmp_path / "afile" / below))
    monkeypatch.setattr(cli, "FLAGS", given)
    with pytest.raises(ConfigError, match=r"afile is a file. Choose a folder for the run"):
        cli.workdir()


def test_a_misspelt_model_names_the_run_beside_it(tmp_path: Path, monkeypatch) -> None:
    """And no command that would train one there; without a near one those there are, or the way to one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart" / "stage2").mkdir(parents=True)
    files.write_json(tmp_path / "quickstart" / "stage2" / "record.json", {})
    with pytest.raises(MismatchError, match=r"Did you mean .*quickstart\?") as caught:
        finished_stage(tmp_path / "quikstart")
    assert "curriculum" not in str(caught.value)
    with pytest.raises(MismatchError, match=r"trained run\. Train one first: .*fit events\.csv\.$"):
        finished_stage(tmp_path / "other")
    (tmp_path / "runs").symlink_to(tmp_path)
    with pytest.raises(MismatchError, match=r"trained run\. There are runs/quickstart\.$"):
        finished_stage(Path("elsewhere"))


def test_the_folder_of_an_experiment_names_a_stage_of_it(tmp_path: Path) -> None:
    for name in ("data/a1", "stage1/b1", "stage3/c1"):
        (tmp_path / "steps" / name).mkdir(parents=True)
        (tmp_path / "steps" / name / "record.json").touch()
    said = r"an experiment, whose runs share 2 trained stages\. Give .*/steps/stage3/c1\."
    with pytest.raises(MismatchError, match=said):
        finished_stage(tmp_path)


def test_a_misspelt_folder_names_the_nearest_run(tmp_path: Path, monkeypatch) -> None:
    """Whatever is asked of it: beside it, or where runs lie from here."""
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "mine"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    (tmp_path / "runs" / "quickstar").mkdir()  # nearer, and no run
    for given in ("runs/quikstart", "run/quickstart", "quickstart"):
        assert nearest_run(Path(given)) == " Did you mean runs/quickstart?"
    assert nearest_run(Path("elsewhere/x")) == ""
    assert nearest_run(Path("rusn"), "*/run.json") == " Did you mean runs?"
    with pytest.raises(MismatchError, match=r"no folder runs/quikstart. Did you mean runs/quick"):
        finished(Path("runs/quikstart"))


def test_a_new_run_that_is_called_nearly_as_an_unfinished_one(tmp_path: Path) -> None:
    """It may be a new one, so it is only said; finished ones and other numbers are no slips."""
    for name in ("quickstart", "seed1", "done"):
        (tmp_path / "runs" / name / "evaluation").mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    (tmp_path / "runs" / "done" / "evaluation" / "record.json").touch()
    for given, near in {
        "runs/quikstart": "runs/quickstart",
        "runs/quickstart": "",
        "runs/seed2": "",
        "runs/seed": "",
        "runs/dune": "",
        "runs/another": "",
        "elsewhere/quikstart": "",
    }.items():
        found = unfinished_near(tmp_path / given)
        assert found == (str(tmp_path / near) if near else ""), given
    flags = ("--config=configs/quickstart.py", f"--workdir={tmp_path}/runs/quikstart", "--dry_run")
    done = verb("curriculum", *flags)
    assert done.returncode == 0, done.stderr
    assert f"to go on with it, --workdir={tmp_path}/runs/quickstart." in done.stderr


@pytest.mark.parametrize(
    ("name", "flag"), [("evaluate", "--workdir=runs/mime"), ("runs", "--folder=rusn")]
)
def test_verbs_name_it_too(tmp_path: Path, name: str, flag: str) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").touch()
    done = verb(name, flag, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Did you mean runs" in done.stderr


def test_an_output_below_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("x")
    with pytest.raises(DataError, match="Could not write"):
        files.write_text(tmp_path / "afile" / "out.json", "y")


def test_a_copied_template_is_a_config(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # as from a wheel: there is no configs/ beside
    template = (configs.folder() / "data" / "behavior.py").read_text()
    Path("mine.py").write_text(template.replace('"behavior"', '"mine"'))
    assert configs.load("configs/curriculum.py", "data=mine.py").data.name == "mine"
    with pytest.raises(ConfigError, match=r"data=mine\.py, a copy of one in .*configs/data"):
        configs.load("configs/curriculum.py", "data=mine")
    with pytest.raises(ConfigError, match=r"There is no data config other\.py"):
        configs.load("configs/curriculum.py", "data=other.py")


@pytest.mark.parametrize("name", ["foursquare_nyc", "foursquare_usa"])
def test_a_set_that_is_not_there_names_its_source(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    spec = DataSpec.from_mapping(configs.part("data", name).to_dict())
    with pytest.raises(DataError, match=r"no file .*parquet.*from: .*https://github\.com/"):
        read_events(spec)


def test_no_hint_names_a_package_that_no_index_has() -> None:
    root = Path(files.__file__).parent
    said = [p.name for p in root.rglob("*.py") if "install 'bua-jax[" in p.read_text()]
    assert said == []


VERBS = {path.stem for path in (ROOT / "bua_jax").glob("[a-z]*.py")} - {"cli", "versions"}
"""But for `versions`, which has no flags and prints what all libraries say."""


def hiding(folder: Path, *packages: str) -> Path:
    """A folder of packages that raise when they are imported."""
    for name in packages:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} is imported')\n")
    return folder


@pytest.mark.parametrize("name", sorted(VERBS))
def test_help(name: str, tmp_path: Path) -> None:
    """It takes no large library, so that it comes in half a second, and is a screen and a half."""
    done = verb(name, "--help", before=hiding(tmp_path, "jax", "torch", "polars", "matplotlib"))
    assert done.returncode == 0, done.stderr
    assert f"python -m bua_jax.{name}" in done.stdout
    rows = sum(max(1, -(-len(line) // help.WIDTH)) for line in done.stdout.splitlines())
    assert rows <= 70
    source = (ROOT / "bua_jax" / f"{name}.py").read_text()
    shared = {"config=": "workdir", "distributed=True": "dry_run", "define_engine": "ray_retries"}
    for written, flag in shared.items():  # flags that are defined in cli.py are shown too
        assert written not in source or re.search(rf"^  --(\[no\])?{flag}\b", done.stdout, re.M)
    assert ("--config=TEXT" in done.stdout) == ("docs/configs.md says" in done.stdout)
    titles = [f"\n{title}:\n" for title in (help.FILES, help.WORK, help.EXECUTION)]
    places = [done.stdout.find(title) for title in titles]
    assert [place for place in places if place > 0] == sorted(p for p in places if p > 0)
    for unknown in ("--verbosity", "--alsologtostderr", "--grain", "--orbax"):
        assert unknown not in done.stdout


def test_what_stands_under_a_title_is_a_flag_of_a_verb() -> None:
    sources = [*(ROOT / "bua_jax").glob("*.py"), ROOT / "bua_jax" / "benchmarks" / "flags.py"]
    defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', "".join(p.read_text() for p in sources)))
    assert {name for names in help.TITLES.values() for name in names} <= defined


def test_a_page_of_help() -> None:
    made = flags.FlagValues()
    flags.DEFINE_integer("seed", 42, "Of the sampled day.", flag_values=made)
    flags.DEFINE_string("output", "", "File to write.", flag_values=made)
    flags.DEFINE_enum("engine", "local", ["local", "ray"], "Where.", flag_values=made)
    flags.DEFINE_list("batches", ["1", "8"], "By default all.", flag_values=made)
    text = help.page("Does it\nall.\n\nExamples:\n  python", (made[name] for name in made))
    assert text.splitlines()[:4] == ["Does it all.", "", "Examples:", "  python"]
    found = [" ".join(line.split()) for line in text.splitlines()[5:]]
    assert found[:2] == ["Input and output:", "--output=TEXT File to write."]
    assert found[3:9] == [
        "What it does:",
        "--seed=N Of the sampled day. (default: 42)",
        "--batches=A,B By default all.",
        "",
        "Execution:",
        "--engine=local|ray Where. (default: local)",
    ]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("train", "--nope", "Unknown command line flag 'nope'"),
        ("train", "--take_ovr", "Did you mean: take_over"),
        ("train", "--config.stage2.los=x", "Did you mean stage2.loss"),
        (
            "curriculum",
            "--config.stage2.loss=x",
            "'x' is none of round_balanced, dialogue_token_mean,",
        ),
        ("pretrain", "--config.encoder.kind=x", "'x' is none of behavegpt, sasrec."),
        ("curriculum", "--config=nope.py", "There is no config file nope.py"),
        ("fit", "no.csv", "There is no file --input=no.csv"),
        ("pretrain_nano", "--stepz=1", "Did you mean: steps"),
        ("predict", "no.csv", "There is no folder runs/curriculum"),
        ("compare", "no", "There is no folder no."),
        ("runs", "no", "There is no folder no."),
        (
            "evaluate",
            "--workdir=no",
            "There is no folder no. Build it with: python -m bua_jax.curric",
        ),
    ],
)
def test_a_usage_error_takes_no_large_library(
    name: str, given: str, said: str, tmp_path: Path
) -> None:
    """So that it comes within a second."""
    done = verb(name, given, before=hiding(tmp_path, "jax", "torch", "polars", "matplotlib"))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_fields_may_stand_before_their_config() -> None:
    said = cli._resolved_argv(["x", "--config.seed=1", "--config", "stage2.py:a=b"], "base.py")
    assert said == ["x", f"--config={configs.resolve('stage2.py')}:a=b", "--config.seed=1"]
    twice = cli._resolved_argv(["x", "--config=stage1.py", "--config=stage2.py"], "base.py")
    assert twice == ["x", f"--config={configs.resolve('stage2.py')}"]


def test_logs_take_no_torch(tmp_path: Path) -> None:
    """TensorBoard's writer would import it where it is installed, in seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.log_scalars", str(tmp_path / "logs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert list((tmp_path / "logs" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("configs/quickstar.py", "configs/quickstart.py"),
        ("tabel4", "configs/experiments/table4.py"),
        ("zzz.py", ""),
    ],
)
def test_a_misspelt_config_names_the_nearest(given: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.resolve(given)
    assert str(caught.value).endswith(f" Did you mean {near}?" if near else "stage3.py.")


@pytest.mark.parametrize(
    ("name", "said"),
    [("events.csv", "no Python file"), ("none.py", r"no function get_config\(arg\)")],
)
def test_what_is_no_config_is_said(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x = 1\n")
    with pytest.raises(ConfigError, match=f"{name} (is|has) {said}"):
        configs.load(str(tmp_path / name))


def test_a_misspelt_part_names_the_nearest_and_the_key() -> None:
    with pytest.raises(ConfigError, match=r"such as model=mine\.py.* Did you mean nano\?$"):
        configs.load("configs/quickstart.py", "model=nanno")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "events.csv").touch()
    done = verb("check", "evnts.csv", cwd=tmp_path)
    assert "no file --input=evnts.csv. Did you mean events.csv?" in done.stderr
    (tmp_path / "x.json").touch()  # a like ending alone is no likeness
    done = verb("rate", "score", "--input=nokey.json", "--output=o", cwd=tmp_path)
    assert "There is no file --input=nokey.json." in done.stderr
    assert "Did you mean" not in done.stderr
    done = verb("rate", "export", "--input=items.jsonl", "--output=o", cwd=tmp_path)
    assert "There is no file --input=items.jsonl." in done.stderr
    assert "predict" not in done.stderr
    done = verb("check", str(tmp_path), cwd=tmp_path)
    assert f"--input={tmp_path} is a folder. Give the name of a file." in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fit", "--input is missing"),
        ("predict", "--input is missing"),
        ("generate", "--input is missing"),
        ("describe", "--input is missing"),
        ("compare", "Give two or more runs"),
    ],
)
def test_what_is_missing_is_said_before_seconds_of_imports(
    tmp_path: Path, name: str, said: str
) -> None:
    asked = [f"--model={tmp_path}"] * (name in ("predict", "generate", "describe"))
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print({'jax', 'polars'} & {*sys.modules}));"
        f"sys.argv = {[name, *asked]!r}; runpy.run_module('bua_jax.{name}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout.split() == ["set()"]
