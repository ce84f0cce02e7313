"""Every config loads, is locked, and names only fields that its verb reads."""

import ast
import re

import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.pipeline.chain import STEPS
from tests.support.helpers import ROOT
from tests.support.runs import verb

FILES = sorted(p.name for p in (ROOT / "configs").glob("[a-z]*.py"))
PAGES = sorted(
    f"{kind}/{path.stem}"
    for kind in ("data", "methods")
    for path in (ROOT / "configs" / kind).glob("[a-z]*.py")
)
DATA = sorted(p.stem for p in (ROOT / "configs" / "data").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", FILES)
def test_config_loads_and_is_locked(name: str) -> None:
    config = configs.load(f"configs/{name}")
    with pytest.raises(AttributeError):
        config.no_such_field = 1
    assert config.step in {*STEPS, "curriculum"}


@pytest.mark.parametrize("data", DATA)
def test_data_configs_compose(data: str) -> None:
    assert configs.load("configs/curriculum.py", f"data={data}").data.name == data


@pytest.mark.parametrize("model", ["nano", "smollm2-135m", "qwen2.5-0.5b", "qwen2.5-72b"])
def test_model_configs_compose(model: str) -> None:
    config = configs.load("configs/curriculum.py", f"model={model},mesh=8")
    assert config.model.name == model
    assert config.execution.mesh == "8"


def test_train_is_another_name_for_the_stage() -> None:
    config = configs.load("configs/stage2.py")
    config.train.peak_lr = 0.5
    assert config.stage2.peak_lr == 0.5


@pytest.mark.parametrize("name", FILES)
def test_docstrings_have_a_command(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "configs" / name).read_text()))
    assert docstring is not None
    assert "python -m bua_jax." in docstring


@pytest.mark.parametrize("path", ["base.py", *(f"{part}.py" for part in PAGES)])
def test_every_field_is_commented(path: str) -> None:
    """A leaf is set on a line with a comment (name and citation say what they are)."""
    for line in (ROOT / "configs" / path).read_text().splitlines():
        is_leaf = line.strip().startswith("config.") and " = " in line
        whole = ("= ConfigDict()", "= part(", "= _stage(", "config.name =", "config.cite =")
        if is_leaf and not any(part in line for part in whole):
            assert "#" in line, f"configs/{path}: {line.strip()}"


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match="foursquare_nyc"):
        configs.load("configs/curriculum.py", "data=foursquare_nyk")
    with pytest.raises(ConfigError, match=r"configs/stage2\.py"):
        configs.resolve("configs/stage9.py")
    with pytest.raises(ConfigError, match="model, data, scale, mesh"):
        configs.load("configs/curriculum.py", "modle=nano")


def test_settings_are_dotted() -> None:
    config = ConfigDict({"a": {"b": 1}, "c": 2})
    assert configs.settings(config, config) == {"a.b": 1, "c": 2}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.encoder.knd=sasrec", "encoder.kind"),
        ("--config.encoder.kind=lstm", "behavegpt, sasrec"),
        ("--config.stage2.peak_lr=fast", "peak_lr"),
        ("--config=configs/stage7.py", "configs/stage2.py"),
        ("--nonsense=1", "nonsense"),
    ],
)
def test_a_typo_is_one_paragraph_and_exit_code_2(flag: str, message: str, tmp_path) -> None:
    done = verb("train", flag, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_only_nano_is_asked_its_drill_first() -> None:
    for model in ("smollm2-135m", "qwen2.5-7b"):
        assert configs.load("configs/curriculum.py", f"model={model}").model.drill == ""
    assert configs.load("configs/curriculum.py").model.drill == "What was last?"


def test_the_docs_say_what_each_way_of_executing_moves() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == set(configs.load("configs/base.py").execution)
    for path in (path for _, held in rows for path in re.findall(r"`(tests/[^`]*)`", held)):
        assert (ROOT / path).exists(), path
