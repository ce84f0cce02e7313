"""What a wrong call says: the thing that is wrong, and a way on that exists."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bua_jax import cli
from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.events.readers import read_events
from bua_jax.events.spec import DataSpec
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


def test_a_misspelt_model_names_the_run_beside_it(tmp_path: Path) -> None:
    """And no command that would train one there."""
    (tmp_path / "quickstart" / "stage2").mkdir(parents=True)
    files.write_json(tmp_path / "quickstart" / "stage2" / "record.json", {})
    with pytest.raises(MismatchError, match=r"Did you mean .*quickstart\?") as caught:
        finished_stage(tmp_path / "quikstart")
    assert "curriculum" not in str(caught.value)
    with pytest.raises(
        MismatchError, match=r"no folder .*other, expected that of a trained run\.$"
    ):
        finished_stage(tmp_path / "other")


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
def test_help_takes_no_large_library(name: str, tmp_path: Path) -> None:
    """So that it comes in half a second."""
    done = verb(name, "--help", before=hiding(tmp_path, "jax", "torch", "polars", "matplotlib"))
    assert done.returncode == 0, done.stderr
    assert f"python -m bua_jax.{name}" in done.stdout
    source = (ROOT / "bua_jax" / f"{name}.py").read_text()
    shared = {"config=": "workdir", "distributed=True": "dry_run", "define_engine": "ray_retries"}
    for written, flag in shared.items():  # flags that are defined in cli.py are shown too
        assert written not in source or re.search(rf"^  --(\[no\])?{flag}:", done.stdout, re.M)


def test_logs_take_no_torch(tmp_path: Path) -> None:
    """TensorBoard's writer would import it where it is installed, in seconds."""
    code = (
        "import sys; from pathlib import Path; from bua_jax.training.writers import MetricWriter\n"
        "with MetricWriter(Path(sys.argv[1])) as writer: writer.write_scalars(1, {'loss': 2.0})\n"
        "print([name for name in ('torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "logs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert list((tmp_path / "logs" / "tensorboard").iterdir())
