"""From what one method wrote to the notes of another's cases: whose they are, and which are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.events.windows import WindowSet
from bua_jax.methods import cross
from bua_jax.methods.protocol import Data, Description, Method, Site
from bua_jax.methods.table import METHODS
from bua_jax.pipeline import cases as about
from bua_jax.pipeline import methods as built
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run, Step, ensure, recorded, result_of
from bua_jax.pipeline.windows import load_set

SIZES = {
    "data.num_users": 20,
    "data.num_days": 8,
    "windows.cross": 30,
    "windows.validation": 6,
    "windows.test": 9,
}
AHEAD = 3  # of each set the row whose summary says what comes next


@dataclasses.dataclass(frozen=True)
class Tells:
    """A describer that names whom it describes, and once what comes next."""

    label: str
    rows: int = 4096
    facts: Any = dataclasses.field(default_factory=dict)

    def describe(self, cases: Any) -> Description:
        texts = [{"summary": f"person {name}", "patterns": "x"} for name in cases.sample_id]
        texts[AHEAD]["summary"] = f"Next comes {self.label}."
        return Description(texts)


def described(name: str) -> Step:
    """The step of BUA's descriptions of a set, written by the above without a model."""
    step, method = STEPS[f"describe/bua/{name}"], METHODS["bua"]

    def build(run: Run) -> dict[str, Any]:
        label = load_store(run).catalogue.behaviours[0]
        stub = dataclasses.replace(method, load=lambda site: Tells(label))
        return built._build_result(run, stub, "describe", name)

    needs = ("data", f"windows/{name}")
    return dataclasses.replace(step, needs=lambda config: needs, build=build, fields=("seed",))


def table_with(method: Method, seen: dict[str, Any]) -> dict[str, Step]:
    """The steps, in which the method keeps what it is fitted on, and needs no encoder."""

    def fit(site: Site, data: Data) -> dict[str, Any]:
        for name in method.fit_sets:
            seen[name] = data.draw(name)
        return {}

    own = dataclasses.replace(method, fit=fit, needs=lambda config: (), files=())
    fitted = dataclasses.replace(built._fit_step(own), sources=lambda config: {})
    told = {f"describe/bua/{name}": described(name) for name in ("cross", "validation", "test")}
    return {**STEPS, **told, fitted.name: fitted}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = configs.load("configs/curriculum.py").copy_and_resolve_references()
    config.update_from_flattened_dict(SIZES)
    return Run(config, tmp_path_factory.mktemp("notes"))


def frozen(run: Run, name: str) -> WindowSet:
    return load_set(run, name, load_store(run))


@pytest.mark.parametrize("name", ["tallrec_cross", "tallrec_cross_another", "tallrec_apart"])
def test_notes_are_of_the_person_or_of_the_donor(run: Run, name: str) -> None:
    """Where it is fitted, chosen and asked alike; refused ones are left out and counted."""
    method, seen = METHODS[name], dict[str, Any]()
    ensure(run, f"fit/{name}", table_with(method, seen))
    assert set(seen) == {"cross", "validation"}
    facts = result_of(run, f"fit/{name}")
    for of, labelled in seen.items():
        own, donor = labelled.cases.sample_id, frozen(run, of).donor
        if not method.notes.by:
            assert labelled.cases.notes == ()
            assert facts == {}
            continue
        whose = donor if method.notes.another else np.arange(len(own))
        expected = [{} if i == AHEAD else {"summary": f"person {own[i]}"} for i in whose]
        assert list(labelled.cases.notes) == expected
        assert facts[f"notes_refused_{of}"] == np.sum(whose == AHEAD)
    if name == "tallrec_cross":
        assert facts == {"notes_refused_cross": 1, "notes_refused_validation": 1}


def test_cases_of_test_people_carry_them_and_the_record_counts_them(run: Run) -> None:
    method = METHODS["tallrec_cross"]
    step = STEPS["predict/tallrec_cross/test"]
    ensure(run, "describe/bua/test", table_with(method, {}))
    needs = ("data", "windows/test", "describe/bua/test")
    own = dataclasses.replace(step, needs=lambda config: needs).run(run)
    cases = built.cases_about(own, method, "predict", "test", load_store(own))
    assert [one.get("summary", "refused") for one in cases.notes] == [
        "refused" if i == AHEAD else f"person {name}" for i, name in enumerate(cases.sample_id)
    ]
    assert about.refused_of(cases) == 1


def test_nobody_else_is_an_error(run: Run) -> None:
    """A placebo of nobody would be the row without a note."""
    ensure(run, "describe/bua/test", table_with(METHODS["tallrec_cross"], {}))
    store, one = load_store(run), frozen(run, "test")
    alone = WindowSet(one.windows, np.full(len(one), -1), one.fingerprint)
    cases = built.cases_of(
        store, one.windows, recorded(run, "windows/test").windows.prediction_history
    )
    method = METHODS["tallrec_cross_another"]
    with pytest.raises(
        DataError, match="The set test is about one person, so that tallrec_cross_ano"
    ):
        about.with_notes(run, method, "test", store, alone, cases)


def test_rows_of_a_system_differ_in_the_note_alone() -> None:
    """Page, sets, fields and needs are the same; the people are those whom BUA was not trained on."""
    config = configs.load("configs/curriculum.py").copy_and_resolve_references()
    config.windows.cross = 30
    for system in cross.SYSTEMS:
        rows = [METHODS[f"{system}_{ending}"] for ending in cross.NOTES]
        steps = [STEPS[f"fit/{row.name}"] for row in rows]
        assert {row.fit_sets for row in rows} == {("cross", "validation")}
        assert len({step.fields for step in steps}) == 1
        assert f"methods.{system}" in steps[0].fields
        told = [{n for n in step.needs(config) if n.startswith("describe/")} for step in steps]
        plain = {*steps[0].needs(config)}
        assert all({*s.needs(config)} - t == plain for s, t in zip(steps, told, strict=True))
        assert told[0] == set()
        assert told[1] == told[2] == {"describe/bua/cross", "describe/bua/validation"}
        assert told[3] == {"describe/untuned/cross", "describe/untuned/validation"}


def test_without_people_set_apart_it_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    config = configs.load("configs/curriculum.py")
    with pytest.raises(
        ConfigError, match=r"windows\.cross=0 sets no training people apart, .*llara_cross"
    ):
        built.check_methods(config, ["fit/llara_cross"])
    built.check_methods(config, ["fit/llara"])
