"""Steps: what is built, kept, refused or built again; the table of steps; keys."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import (
    BuaError,
    ConfigError,
    MismatchError,
    UndeclaredError,
)
from bua_jax.methods.table import METHODS
from bua_jax.pipeline import steps
from bua_jax.pipeline.chain import STAGES, STEPS
from bua_jax.pipeline.methods import ASKED
from bua_jax.pipeline.steps import (
    Run,
    Step,
    ensure,
    key,
    keyed,
    nested,
    outline,
    read_record,
    recorded,
    settings,
)
from tests.support.steps import ask, config_of, faked


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking git and all packages takes longer than everything else here."""
    monkeypatch.setattr(steps, "versions", lambda: {"bua_jax": "0.0", "git": "abc"})


# ------------------------------------------------------------------------------------- building


def test_needs_are_built_first_and_once(tmp_path: Path) -> None:
    windows = [f"windows/{n}" for n in ("train", "days_train", "validation", "days_validation")]
    first = ["data", "encoder", *windows, "dialogues", "stage1", "stage2"]
    assert ask(tmp_path, "stage2") == first
    assert ask(tmp_path, "stage2") == []
    assert ask(tmp_path, "reflect") == ["reflect"]
    assert read_record(Run(config_of(), tmp_path), "windows/test") is None


def test_what_has_no_record_is_built_again_and_what_follows_is_kept(tmp_path: Path) -> None:
    ask(tmp_path, "stage1")
    (tmp_path / "encoder" / "record.json").unlink()
    assert ask(tmp_path, "stage1") == ["encoder"]


def test_an_unknown_step_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no step 'stage9'.*stage2"):
        ask(tmp_path, "stage9")


def test_a_record_says_what_shaped_the_step_and_what_did_not(tmp_path: Path) -> None:
    ask(tmp_path, "stage2", model__recall=3, execution__decode_batch=7)
    run = Run(config_of(), tmp_path)
    record = read_record(run, "stage2")
    assert record is not None
    assert set(record["inputs"]) == {"data", "encoder", "dialogues", "stage1"}
    assert record["inputs"]["stage1"] == files.read_json(tmp_path / "stage1/record.json")["id"]
    assert record["settings"]["model.recall"] == 3
    assert not [name for name in record["settings"] if name.startswith(("execution", "stage1"))]
    assert record["execution"]["decode_batch"] == 7
    assert set(record["sources"]) == {"model.path"}  # nano's own weights
    assert recorded(run, "stage2").model.recall == 3


def test_a_step_sees_what_it_declared_and_needs(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def build(run: Run) -> dict[str, Any]:
        with pytest.raises(UndeclaredError, match=r"step reflect reads decoding\.temperature"):
            _ = run.config.decoding.temperature
        with pytest.raises(UndeclaredError, match="step reflect reads the step windows/test"):
            run.folder("windows/test")
        seen["folders"] = [run.folder(name).name for name in ("reflect", "stage2", "data")]
        seen["execution"] = run.config.execution.mesh
        return {"tokens": run.config.decoding.max_new_tokens}

    table = faked([])
    table["reflect"] = dataclasses.replace(table["reflect"], build=build)
    ensure(Run(config_of(), tmp_path), "reflect", table)
    assert seen["folders"] == ["reflect", "stage2", "data"]
    assert seen["execution"] == "1"


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((2,), (1, 2), "stage2 was built from windows/train and without stage1, but"),
        ((1, 2), (2,), "stage2 was built from stage1 and without windows/train, but"),
    ],
)
def test_other_stages_before_a_finished_one_are_refused(
    tmp_path: Path, before: tuple[int, ...], after: tuple[int, ...], said: str
) -> None:
    ask(tmp_path, "stage2", stages=before)
    with pytest.raises(MismatchError, match=said) as caught:
        ask(tmp_path, "stage2", stages=after)
    assert f"rm -r {tmp_path / 'stage2'}" in str(caught.value)
    assert ask(tmp_path, "stage2", stages=before) == []
    assert (tmp_path / "stage1").exists() == (1 in before)  # nothing was built before it was said


def test_a_longer_history_needs_another_encoder(tmp_path: Path) -> None:
    ask(tmp_path, "encoder", windows__generation_history=40)
    with pytest.raises(
        MismatchError, match=r"windows\.generation_history=40, but the config says 100"
    ):
        ask(tmp_path, "encoder", windows__generation_history=100)


def test_one_more_row_is_added_and_how_it_is_shown_is_nobodys_business(tmp_path: Path) -> None:
    ask(tmp_path, "evaluation", evaluation__methods=("markov", "bua"))
    more: dict[str, Any] = {"evaluation__methods": ("markov", "majority", "bua")}
    asked = ["fit/majority", "predict/majority/test", "evaluation"]
    assert ask(tmp_path, "evaluation", **more) == asked
    assert ask(tmp_path, "evaluation", **more, report__examples=9) == []
    assert ask(tmp_path, "evaluation", **more, execution__decode_batch=9) == []
    more["evaluation__methods"] += ("bua_joint",)
    asked = ["joint", "predict/bua_joint/test", "evaluation"]
    assert ask(tmp_path, "evaluation", **more) == asked
    with pytest.raises(MismatchError, match="seed=42, but the config says 43"):
        ask(tmp_path, "evaluation", **more, seed=43)


def test_how_it_is_executed_is_never_refused(tmp_path: Path) -> None:
    ask(tmp_path, "evaluation")
    for name, value in settings(config_of(), ["execution"]).items():
        assert ask(tmp_path, "evaluation", **{name: other(value)}) == []


def test_a_step_that_came_out_otherwise_is_refused(tmp_path: Path) -> None:
    ask(tmp_path, "stage1")
    record = files.read_sealed(tmp_path / "encoder" / "record.json")
    files.write_sealed(tmp_path / "encoder" / "record.json", record | {"id": "0" * 16})
    with pytest.raises(
        MismatchError, match=f"from encoder {record['id']}, but .* is now {'0' * 16}"
    ):
        ask(tmp_path, "stage1")


def test_another_data_set_is_named(tmp_path: Path) -> None:
    ask(tmp_path, "data")
    with pytest.raises(MismatchError, match=r"data\.name='simulated', but the config says 'carat'"):
        ask(tmp_path, "data", arg="data=carat")


def test_a_changed_source_is_refused_and_a_missing_one_is_not(tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_text("one")
    fields = {"arg": "data=behavior", "data__path": str(source)}
    ask(tmp_path / "run", "data", **fields)
    source.write_text("other")
    with pytest.raises(MismatchError, match=r"another config\.data\.path: its content was"):
        ask(tmp_path / "run", "data", **fields)
    source.unlink()
    assert ask(tmp_path / "run", "data", **fields) == []


def test_a_cut_renewal_is_no_finished_step(tmp_path: Path) -> None:
    ask(tmp_path, "evaluation")
    table = faked([])

    def cut(run: Run) -> dict[str, Any]:
        raise BuaError

    table["evaluation"] = dataclasses.replace(table["evaluation"], build=cut)
    run = Run(config_of(evaluation__bootstrap=7), tmp_path)
    with pytest.raises(BuaError):
        ensure(run, "evaluation", table)
    assert read_record(run, "evaluation") is None


def test_a_dry_run_tells_what_would_be_built(tmp_path: Path) -> None:
    ask(tmp_path, "stage1")
    found = outline(Run(config_of(), tmp_path), "reflect", STEPS)
    assert [name for name, done in found.items() if not done] == ["stage2", "reflect"]
    with pytest.raises(MismatchError, match="stage1"):
        outline(Run(config_of(stage1__epochs=9.0), tmp_path), "reflect", STEPS)


# ------------------------------------------------------------------------------- the table, keys


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return value[1:] if value else ("x",)
    return value + {int: 1, float: 0.5, str: "x"}[type(value)]


def keys(config: ConfigDict) -> dict[str, str]:
    """Of all steps."""
    known: dict[str, str] = {}
    for name in STEPS:
        key(name, config, STEPS, known)
    return known


def reads(step: Step, config: ConfigDict, field: str) -> bool:
    """Whether the step may read the field."""
    value: Any = step.view(config)
    try:
        for name in field.split("."):
            value = value[name]
    except UndeclaredError:
        return False
    return True


@pytest.mark.parametrize("data", ["simulated", "foursquare_nyc"])
def test_a_field_changes_the_key_or_cannot_be_read(data: str) -> None:
    """Of every step and every field; what may be read and changes no key is in `execution`."""
    config = config_of(f"data={data}")
    before = keys(config)
    shapes: dict[str, set[str]] = {name: set() for name in STEPS}
    fields = list(settings(config, config))
    assert len(fields) > 100
    for field in fields:
        changed = copy.deepcopy(config)
        part, _, last = field.rpartition(".")
        with changed.unlocked():
            place: Any = changed
            for name in filter(None, part.split(".")):
                place = place[name]
            place[last] = other(place[last])
        after = keys(changed)
        for name, step in STEPS.items():
            alters = after[name] != before[name]
            if reads(step, config, field):
                assert alters != field.startswith("execution."), (name, field)
            if alters:
                shapes[name].add(field)
    unused = {f for f in fields if not any(f in found for found in shapes.values())}
    rest = {f for f in unused if not f.startswith("execution.")}
    verbs = {f for f in fields if f.startswith(("anonymise.", "judge."))}
    assert rest == {"step", "report.examples", "report.trackers", *verbs}  # read by no step
    assert not {f for f in shapes["stage2"] if f.startswith(("decoding", "evaluation", "stage3"))}
    assert shapes["windows/test"] == {
        *(f for f in fields if f.startswith("data.")),
        *(f"windows.{name}" for name in ("seed", "min_history", "prediction_history", "test")),
    }


def test_no_field_is_declared_that_is_not_there() -> None:
    config = config_of()
    for step in STEPS.values():
        for field in step.fields:
            assert settings(config, [field]), (step.name, field)


def test_needs_stand_in_the_table_and_go_in_no_circle() -> None:
    for stages in ((2,), (1, 2), (2, 3), (1, 2, 3)):
        config = config_of(stages=stages, evaluation__methods=tuple(METHODS))
        for name in STEPS:
            if name not in STAGES or name == "joint" or int(name[-1]) in stages:
                assert name in outline(Run(config, Path("none")), name, STEPS)


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names 'sasrek'; there are majority, .* sasrec"):
        ask(tmp_path, "evaluation", evaluation__methods=("majority", "sasrek"))


def test_where_stage_2_is_the_last_it_has_one_row(tmp_path: Path) -> None:
    fields = {"evaluation__methods": ("bua_stage2", "bua"), "stages": (2,)}
    asked = [name for name in ask(tmp_path, "evaluation", **fields) if name.startswith("predict/")]
    assert asked == ["predict/bua/test"]
    fields = {"evaluation__methods": ("reference", "bua_stage1", "bua"), "stages": (2, 3)}
    found = ask(tmp_path / "other", "evaluation", **fields)
    said = [name for name in found if name.startswith("describe/")]
    assert said == ["describe/reference/texts"]  # no stage 1; BUA's texts come with predictions


def test_seeds_share_their_test_windows_and_more_of_them_train_nothing_anew() -> None:
    before, seeded = keys(config_of()), keys(config_of(seed=43))
    same = {name for name in STEPS if before[name] == seeded[name]}
    assert same == {"data", *(name for name in STEPS if name.startswith("windows/"))}
    tested = keys(config_of(windows__test=7))
    about = {  # the windows of the others are drawn among those of the first
        name
        for name in STEPS
        if name.startswith(("predict/", "describe/"))
        and name.endswith(("/test", "/texts", "/edited"))
    }
    sets = {"windows/test", "windows/texts", "windows/edited"}
    assert {n for n in STEPS if before[n] != tested[n]} == sets | {"evaluation"} | about
    asked = keys(config_of(decoding__max_new_tokens=7))
    assert not {n for n in STEPS if before[n] != asked[n] and n.startswith(("stage2", "fit/ma"))}


def test_a_key_holds_the_content_of_the_files_that_a_step_is_made_from(tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    config = config_of("data=behavior", data__path=str(source))
    found = []
    for content in ("one", "two", "one"):
        source.write_text(content)
        found.append(keys(config))
    assert found[0] == found[2]
    assert all(found[0][name] != found[1][name] for name in STEPS)


def test_a_key_holds_the_base_that_a_model_is_made_from(tmp_path: Path) -> None:
    config = config_of(model__path=str(tmp_path))
    found = []
    for name, content in (
        ("config.json", "{}"),
        ("model.safetensors", "weights"),
        ("model.safetensors", "others"),
        ("tokenizer.json", "{}"),
        ("notes.md", "read by nobody"),
    ):
        (tmp_path / name).write_text(content)
        found.append(key("stage1", config, STEPS))
    assert len(set(found)) == 4
    assert found[3] == found[4]
    assert key("dialogues", config, STEPS) == key("dialogues", config_of(), STEPS)


def test_a_key_holds_the_balancer_of_a_file(tmp_path: Path) -> None:
    """Another file under the same name is another stage; a name of the table is no file."""
    config, mine = config_of(), tmp_path / "mine.py"
    mine.write_text("one\n")
    config.stage2.balancer = f"{mine}:power=2"
    before = steps.source_hashes(STEPS["stage2"], config)["stage2.balancer"]
    assert before == files.sha256_of(mine)
    mine.write_text("other\n")
    assert steps.source_hashes(STEPS["stage2"], config)["stage2.balancer"] != before
    config.stage2.balancer = "cagrad:c=1"
    assert "stage2.balancer" not in steps.source_hashes(STEPS["stage2"], config)


def test_runs_in_one_folder_share_the_steps_of_equal_keys(tmp_path: Path) -> None:
    """As an experiment's cells do: another rate trains stages anew, and nothing before them."""
    built: list[str] = []
    one = keyed(Run(config_of(), tmp_path), STEPS)
    ensure(one, "stage2", faked(built))
    assert "encoder" in built
    built.clear()
    other = keyed(Run(config_of(stage2__peak_lr=0.5), tmp_path), STEPS)
    ensure(other, "stage2", faked(built))
    assert built == ["stage2"]
    first, second = one.folder("stage2"), other.folder("stage2")
    assert first.parent == second.parent == tmp_path / "steps" / "stage2"
    assert one.folder("encoder") == other.folder("encoder")
    record = read_record(other, "stage2")
    assert record is not None
    assert (second / record["folders"]["encoder"]).resolve() == one.folder("encoder").resolve()
    assert key("stage2", config_of(), STEPS) == first.name


def test_a_key_is_the_same_before_and_after() -> None:
    """Of equal configs however they came about: a list is a tuple, a stage has another name."""
    config = config_of()
    again = nested(settings(config, [*config.keys()]))
    staged = configs.load("configs/stage2.py")
    assert keys(config) == keys(again) == keys(staged)


def test_the_key_of_a_fit_follows_from_the_windows_that_it_reads_alone() -> None:
    one, other = config_of(), config_of(windows__fit_train=77)
    changed = {
        name
        for name in STEPS
        if name.startswith("fit/") and key(name, one, STEPS) != key(name, other, STEPS)
    }
    hybrid = ("tallrec", "collm", "llara", "a_llmrec")
    assert changed == {f"fit/{n}" for n in ("lightgbm", "hybrid_data", *hybrid)}


def test_how_days_are_drawn_is_no_part_of_predictions() -> None:
    one, other = config_of(), config_of(decoding__temperature=0.5)
    changed = {name for name in STEPS if key(name, one, STEPS) != key(name, other, STEPS)}
    days = {"generate/bua/days", "generate/bua/days_hybrid"}
    hybrid = {"fit/hybrid_data", *(f"predict/hybrid_data/{name}" for name in ASKED["predict"])}
    assert changed == {*days, *hybrid, "evaluation"}
