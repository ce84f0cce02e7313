"""What a config may say: every field has legal values, and what is not legal is named before any step."""

import importlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.legal import Flag, OneOf, Read, Real, SomeOf, Text, Whole, keys_of
from bua_jax.pipeline import checks
from bua_jax.pipeline.chain import PURPOSES, show_outline, start

ARGUMENTS = [f"data={path.stem}" for path in (configs.folder() / "data").glob("[a-z]*.py")]
MODELS = ["model=smollm2-135m,scale=paper", "model=qwen2.5-7b,scale=paper,mesh=8"]


def changed(arg: str = "", **values: Any) -> ConfigDict:
    """The curriculum's config with some fields changed; `a__b` is `a.b`."""
    config = configs.load("configs/curriculum.py", arg)
    config.update_from_flattened_dict({n.replace("__", "."): v for n, v in values.items()})
    return config


def said(arg: str = "", **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        checks.check(changed(arg, **values), PURPOSES)
    return str(caught.value)


@pytest.mark.parametrize("arg", [*ARGUMENTS, *MODELS])
def test_every_field_has_legal_values_and_has_one_of_them(arg: str) -> None:
    config = configs.load("configs/curriculum.py", arg)
    names = [name for name, _ in checks.fields(config)]
    assert len(names) > 100
    unchecked = [n for n in names if checks.legal_of(n) is None]
    assert sorted({*unchecked} - {"step"}) == []
    checks.check(config, PURPOSES)


def test_keys_read_from_sources_are_those_of_the_tables() -> None:
    source = Path(checks.__file__).read_text(encoding="utf-8")
    named = re.findall(r'keys_of\("([\w.]+)", "(\w+)"\)', source)
    assert len(named) > 10
    for module, table in named:
        there = getattr(importlib.import_module(f"bua_jax.{module}"), table)
        assert keys_of(module, table) == tuple(there), table
    for table in ("stage", "Nothing"):  # no table, and none at all
        with pytest.raises(LookupError, match=table):
            keys_of("training.stage_table", table)


def test_every_entry_is_of_a_field() -> None:
    fields = {
        name
        for arg in ARGUMENTS
        for name, _ in checks.fields(configs.load("configs/curriculum.py", arg))
    }
    parts = {f"{name.rpartition('.')[0]}.*" for name in fields}
    assert sorted(checks.LEGAL.keys() - fields - parts) == []


@pytest.mark.parametrize(
    "path", sorted(p.name for p in configs.folder().glob("[a-z]*.py") if p.name != "base.py")
)
def test_every_shipped_config_passes(path: str) -> None:
    checks.check(configs.load(f"configs/{path}"), PURPOSES)


BAD: list[tuple[str, Any, str]] = [
    ("stage1.evaluations", 0, "=0: expected a whole number from 1."),
    ("stage2.microbatches", 0, "=0: expected a whole number from 1."),
    ("stage2.peak_lr", math.nan, "=nan: expected a finite number from 0 to 1."),
    ("joint.clip_norm", math.inf, "=inf: expected a finite number above 0."),
    ("stage3.max_steps", -1, "=-1 is negative: expected a whole number from 0."),
    ("stage1.loss", "mean", "='mean' is none of round_balanced, dialogue_token_mean, "),
    ("stage1.balancer_unit", "kind", "='kind' is none of task, round."),
    ("model.lora_targets", ("q_proj",), "=('q_proj',): 'q_proj' is none of q, k, v, o, gate"),
    ("model.lora_targets", (), "=(): expected a tuple with at least one of q, k"),
    ("model.lora_targets", ("q", "q"), "=('q', 'q') names one of them twice."),
    ("model.recall", -1, "=-1 is negative"),
    ("model.base_quantization", "int3", "='int3' is none of none, int8, nf4."),
    ("execution.attention", "flash", "='flash' is none of auto, xla, cpu, cudnn, splash."),
    ("execution.remat", "half", "='half' is none of none, full, dots."),
    ("model.lora_rank", 0, "=0: expected a whole number from 1."),
    ("model.dtype", "fp16", "='fp16' is none of float32, bfloat16."),
    ("model.name", "nanno", "='nanno' is none of nano, smollm2-135m"),
    ("model.drill", "one\ntwo", ": expected text of one line."),
    ("encoder.dropout", 1.5, "=1.5: expected a finite number from 0 below 1."),
    ("encoder.epochs", 0, "=0: expected a whole number from 1 to 100000."),
    ("windows.train", -5, "=-5 is negative: expected a whole number from 0."),
    ("dialogues.generation_share", 2.0, "=2.0: expected a finite number from 0 to 1."),
    ("dialogues.stage1_tasks", ("hobby",), ": 'hobby' is none of reconstruction"),
    ("decoding.top_p", 0.0, "=0.0: expected a finite number above 0 to 1."),
    ("execution.mesh", "2x2", "mesh='2x2' is neither N nor DATAxFSDPxTENSOR"),
    ("execution.decode_batch", 0, "=0: expected a whole number from 1."),
    ("data.num_users", 5, "=5: expected a whole number from 6."),
    ("seed", 2**31, "expected a whole number from 0 to 2147483647."),
    ("stages", (1, 3), "=(1, 3): expected some of (1, 2, 3) in order"),
    ("step", "stage4", "='stage4' is none of curriculum, data"),
    ("methods.lightgbm.num_leaves", 1, "=1: expected a whole number from 2"),
    ("evaluation.methods", ("bua", "buaa"), ": 'buaa' is none of majority, window_majority"),
    ("evaluation.methods", ("bua", "bua"), " names one of them twice."),
    ("evaluation.methods", ("last_day", "reference"), " names none that predicts"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_value_that_is_not_legal(name: str, value: Any, message: str) -> None:
    text = said(**{name.replace(".", "__"): value})
    assert text.startswith(f"config.{name}=")
    assert message in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "behaviours",
            ("pay",),
            "=('pay',): expected none, for the labels in the data, or at least",
        ),
        ("behaviours", ("pay", "pay"), "names a behaviour twice."),
        ("behaviours", ("pay", "a;b"), "'a;b' cannot be written"),
        ("slots_per_day", 25, "=25 is none of 24, 48."),
        ("columns__user", "", "maps no column for the field 'user'"),
        ("format", "xlsx", "='xlsx' is none of csv, tsv, parquet."),
    ],
)
def test_a_value_of_a_file_that_is_not_legal(name: str, value: Any, message: str) -> None:
    assert message in said("data=foursquare_nyc", **{f"data__{name}": value})


def test_labels_given_as_text_are_no_set_of_letters() -> None:
    """A config file of one's own may say `config.behaviours = "pay"`."""
    config = configs.load("configs/curriculum.py", "data=behavior")
    with config.unlocked():
        config.data = ConfigDict({**config.data.to_dict(), "behaviours": "pay"})
    with pytest.raises(ConfigError, match=r"config\.data\.behaviours='pay': .* of type tuple"):
        checks.check(config, PURPOSES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"windows__min_history": 41},
            "min_history=41 is more than config.windows.prediction_hist",
        ),
        (
            {"encoder__num_heads": 3},
            "num_heads=3 does not divide the 128 numbers of a state of beh",
        ),
        ({"methods__sasrec__dim": 50}, "config.methods.sasrec.dim=50 gives"),
        (
            {"stage2__full_finetuning": True, "model__dtype": "bfloat16"},
            "config.stage2.full_finetuning trains the base",
        ),
        (
            {"evaluation__methods": ("bua", "bua_given1"), "dialogues__rounds": False},
            "config.dialogues.rounds=False leaves out",
        ),
        (
            {"dialogues__rounds": False},
            "config.stages holds 3, which needs answers",
        ),
        (
            {"evaluation__methods": ("bua", "fused"), "decoding__decode": "free"},
            "names fused, which reads probabilities; there are none with config.dec",
        ),
        ({"model__base_quantization": "int8"}, "add --config.execution.merge_adapter=False"),
        ({"evaluation__methods": ("last_day",)}, "names none that predicts"),
        ({"evaluation__methods": ("bua", "sasrek")}, "'sasrek' is none of"),
    ],
)
def test_fields_that_do_not_fit_each_other(values: dict[str, Any], message: str) -> None:
    assert message in said(**values)


def test_a_row_that_is_not_asked_fits_anything() -> None:
    checks.check(changed(methods__sasrec__dim=50, evaluation__methods=("majority",)), PURPOSES)


def test_data_of_another_config() -> None:
    assert "config.data.name='mine' is of a file, but" in said(data__name="mine")


def test_a_config_of_another_version() -> None:
    """As run.json of an older run holds it."""
    config = configs.load("configs/curriculum.py")
    with config.unlocked():
        del config.methods.sasrec
    with pytest.raises(
        ConfigError, match=r"has no field methods\.sasrec\.dim: it is of another ver"
    ):
        checks.check(config, PURPOSES)


def test_tasks_that_the_data_leaves_nothing_of() -> None:
    tasks = {"dialogues__stage1_tasks": ("home_work",)}
    checks.check(changed(**tasks), PURPOSES)
    assert "the data set has no places" in said("data=carat", **tasks)


def test_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for values, message in (
        ({"stage1__evaluations": 0}, "evaluations=0"),
        ({"execution__mesh": "4000"}, "needs 4000 devices"),
    ):
        with pytest.raises(ConfigError, match=message):
            show_outline(changed(**values), folder, "stage2")
    show_outline(changed(execution__mesh="4000"), folder, "stage2", several=True)
    with pytest.raises(ConfigError, match="There is no step 'curriculum'"):
        show_outline(changed(), folder, "curriculum")
    with pytest.raises(ConfigError, match="evaluations=0"):
        start(changed(stage1__evaluations=0), folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["a[x]b", "a\\b", "[[]"])
def test_a_workdir_whose_checkpoints_could_not_be_read(name: str, tmp_path: Path) -> None:
    for refuse in (
        lambda folder: start(changed(), folder),
        lambda folder: show_outline(changed(), folder, "stage2"),
    ):
        with pytest.raises(ConfigError, match="brackets or a backslash"):
            refuse(tmp_path / name / "run")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a b", "a]b[c", "a*b", "ä?{x}"])
def test_other_workdirs_are_taken(name: str, tmp_path: Path) -> None:
    checks.check_workdir(tmp_path / name)


def test_what_only_the_machine_knows(tmp_path: Path) -> None:
    """Asked before a step that computes; the tests run on CPUs."""
    for values, message in (
        ({"execution__mesh": "4000"}, "needs 4000 devices"),
        ({"execution__attention": "splash"}, "runs on TPUs"),
        ({"execution__attention": "cudnn"}, "runs on NVIDIA GPUs"),
        ({"execution__attention": "cpu", "model__dtype": "bfloat16"}, "takes a CPU"),
    ):
        with pytest.raises(ConfigError, match=message):
            checks.check_machine(changed(**values))
    for arg, values, message in (
        ("", {"model__adapter": str(tmp_path / "none")}, "adapter=.* is no folder"),
        ("model=qwen2.5-7b", {"model__path": str(tmp_path / "none")}, "There is no .*none"),
        ("model=qwen2.5-7b", {}, "The weights of qwen2.5-7b are not shipped"),
    ):
        with pytest.raises(ConfigError, match=message):
            checks.check_model(changed(arg, **values).model)


def test_a_flag_that_stands_for_a_field() -> None:
    checks.check_flag("top_p", 1.0, "decoding.top_p")
    with pytest.raises(
        ConfigError, match=r"^--top_p=0\.0: expected a finite number above 0 to 1\.$"
    ):
        checks.check_flag("top_p", 0.0, "decoding.top_p")  # which would keep no token
    with pytest.raises(ConfigError, match="--temperature=nan: expected"):
        checks.check_flag("temperature", math.nan, "decoding.temperature")


def test_kinds_of_legal_values() -> None:
    assert Whole(1).wrong(True)
    assert Whole(1).wrong(1.0)
    assert Whole(1).wrong(10**30) == ": expected a whole number from 1 to 2147483647"
    assert Real(0).wrong(1e300) == ": expected a finite number from 0 to 1e+09"
    assert Read(str.split, str).wrong(0)
    assert not Real(0).wrong(1)
    assert Real().wrong(True)
    assert Real().wrong("1")
    assert OneOf((0, 1)).wrong(True)
    assert OneOf(("a",)).wrong(("a",))
    assert not OneOf({"a": 1}).wrong("a")
    assert SomeOf(("a", "b")).wrong("ab")
    assert not SomeOf(("a", "b")).wrong(("b",))
    assert Flag().wrong(1)
    assert Text(empty=False).wrong("")
