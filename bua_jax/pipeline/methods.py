"""Steps `fit/METHOD` and `predict|generate|describe/METHOD/SET`: systems fitted, and asked about a set.

What they say lies in a result file each (evaluation/results.py), which `evaluation` scores without them.
"""

import functools
from collections.abc import Collection
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.base_files import model_sources
from bua_jax.basics import begun, files
from bua_jax.basics import config as configs
from bua_jax.basics.config import Settings, View
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.version import __version__
from bua_jax.evaluation import results
from bua_jax.evaluation.results import Ready, Rows
from bua_jax.events.split import without_test_people
from bua_jax.events.windows import WindowSet
from bua_jax.methods.protocol import Built, Cases, Data, Kind, Labelled, Method, Site, cases_of
from bua_jax.methods.table import METHODS
from bua_jax.pipeline.cases import (
    asked_about,
    cases_about,
    length_of,
    notes_step,
    refused_of,
    with_notes,
)
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import (
    EXECUTION,
    Run,
    Step,
    no_sources,
    recorded,
    result_of,
)
from bua_jax.pipeline.windows import SETS, load_set, step_of

ASKED: dict[Kind, tuple[str, ...]] = {
    "predict": ("test", "match"),
    "generate": ("days", "days_hybrid"),
    "describe": ("test", "texts", "edited", "cross", "validation"),
}
"""Sets that methods are asked about; by `match`, of validation people, some are matched, and all tuned."""
NUMBERS = ("attention", "remat", "merge_adapter")
"""Fields of `execution` that the bits of what a language model learns depend on."""
_TOKENS = 300  # of a history in words, about


def result_steps(config: Settings) -> tuple[str, ...]:
    """The result files that the config's tables are made of. Raises `ConfigError` for an unknown row."""
    found: list[str] = []
    for name in config.evaluation.methods:
        if name not in METHODS:
            raise ConfigError(
                f"config.evaluation.methods names {name!r}; there are {', '.join(METHODS)}."
            )
        if name == "bua_stage2" and max(config.stages) == 2:
            continue  # it is the row `bua`
        if name == "bua_stage1" and 1 not in config.stages:
            continue  # there is none
        said = METHODS[name].says
        teaches_days = METHODS[name].about.trained_on != "dialogues" or (
            config.dialogues.generation_share > 0
        )
        found += [f"predict/{name}/test"] * ("predict" in said)
        found += [f"generate/{name}/days"] * ("generate" in said and teaches_days)
        found += [f"describe/{name}/texts"] * (said == ("describe",))  # others with predictions
    return tuple(found)


def method_steps() -> list[Step]:
    """The steps of all methods."""
    found = []
    for method in METHODS.values():
        if method.fit:
            found.append(_fit_step(method))
        for kind in method.says:
            sets = [
                n for n in ASKED[kind] if n != "match" or not method.notes.by
            ]  # none are written
            found += [_result_step(method, kind, name) for name in sets]
    return found


def check_methods(config: Settings, steps: Collection[str]) -> None:
    """Raises `ConfigError` for a method that one of the steps fits or asks, and that cannot be asked."""
    for name, method in METHODS.items():
        if any(step.split("/")[1:2] == [name] for step in steps):
            method.check(config)


# ----------------------------------------------------------------------------------------- fitting


def _page(method: Method) -> tuple[str, ...]:
    """The method's page in configs/methods, if it has one."""
    name = method.page or method.name
    page = configs.folder() / "methods" / f"{name}.py"
    return (f"methods.{name}",) if page.is_file() else ()


def _fit_fields(method: Method) -> tuple[str, ...]:
    return ("seed", *_page(method), *method.fit_reads)


def _fit_step(method: Method) -> Step:
    fields, sets = _fit_fields(method), tuple(map(step_of, method.fit_sets))
    notes = tuple(notes_step(method, name) for name in method.fit_sets if method.notes.by)
    return Step(
        f"fit/{method.name}",
        f"{method.about.title} fitted: {method.about.source}",
        fields,
        lambda config: ("data", *sets, *method.needs(config), *notes),
        functools.partial(_build_fit, method=method),
        functools.partial(_fit_minutes, method),
        sources=model_sources if "model" in fields else no_sources,
        files=method.files,
        numbers=NUMBERS if method.about.trained_on == "dialogues" else (),
    )


def _fit_minutes(method: Method, config: ConfigDict) -> float:
    """A guess, for a language model from nano's measured rate of tokens."""
    if method.about.trained_on != "dialogues":
        return 0.5 if method.about.trained_on == "windows" else 0.1
    windows = min(config.windows[SETS[method.fit_sets[0]].count] or 1e5, 1e5)
    windows *= config.methods[method.page or method.name].epochs
    return windows * _TOKENS / 6_000 / 60 + 0.3


def _build_fit(run: Run, method: Method) -> dict[str, Any]:
    assert method.fit is not None
    store, refused = load_store(run), dict[str, int]()

    def labelled(name: str) -> Labelled:
        frozen = load_set(run, name, store)
        cases = cases_of(store, frozen.windows, length_of(run, name))
        cases = with_notes(run, method, name, store, frozen, cases)
        if method.notes.summary:
            refused[f"notes_refused_{name}"] = refused_of(cases)
        return Labelled(cases, store.behaviour[frozen.windows.end].astype(np.int32))

    data = Data(without_test_people(store), labelled)
    facts = method.fit(_site(run, method, _fit_fields(method), run.step), data)
    return {**facts, **refused}


def _site(run: Run, method: Method, fields: tuple[str, ...], folder: str) -> Site:
    assert isinstance(run.config, View)
    view = run.config.narrowed((*fields, EXECUTION), f"The method {method.name}")
    inputs = {
        need: Built(run.folder(need), recorded(run, need), result_of(run, need))
        for need in run.needs
    }
    return Site(view, run.folder(folder), inputs)


# ------------------------------------------------------------------------------------------ asking


def _asked_fields(method: Method, kind: Kind) -> tuple[str, ...]:
    own = () if method.fit else ("seed", *_page(method))
    return (*own, *method.reads, *method.reads_for.get(kind, ()))


def _result_step(method: Method, kind: Kind, name: str) -> Step:
    fields = _asked_fields(method, kind)
    fitted = (f"fit/{method.name}",) if method.fit else ()
    about = [notes_step(method, name)] if method.notes.by else []
    about += [f"predict/{other}/{name}" for other in method.predicted_by]

    def needs(config: ConfigDict) -> tuple[str, ...]:
        own = (step_of(name), *fitted, *method.needs(config), *about)
        if _written_with_predictions(config, method, kind, name):
            own += (f"predict/{method.name}/{name}",)
        return tuple(dict.fromkeys(("data", *own)))

    def minutes(config: ConfigDict) -> float:
        asked = method.about.trained_on == "dialogues" or "model" in fields
        return (config.windows.get(SETS[name].count) or 2e4) / 800 if asked else 0.0

    what = {"predict": "next behaviours", "generate": "next days", "describe": "texts"}[kind]
    return Step(
        f"{kind}/{method.name}/{name}",
        f"{what} of the set {name} by {method.about.title}",
        (*fields, *asked_about(kind, name)),
        needs,
        functools.partial(_build_result, method=method, kind=kind, name=name),
        minutes,
        sources=model_sources if "model" in fields else no_sources,
        files=(results.FILE,),
    )


def _build_result(run: Run, method: Method, kind: Kind, name: str) -> dict[str, Any]:
    store = load_store(run)
    frozen = load_set(run, name, store)
    cases = cases_about(run, method, kind, name, store)
    about = {
        "method": method.name,
        "title": method.about.title,
        "fields": method.about.sees,
        "set": name,
        "windows": frozen.fingerprint,
        "data": store.fingerprint,
    }
    path = run.folder(run.step) / results.FILE
    if kind == "describe" and (predicted := f"predict/{method.name}/{name}") in run.needs:
        ready = _texts_of(results.read(run.folder(predicted) / results.FILE))
    else:
        asked, classes = method.load(asked_site(run, method, kind)), len(store.catalogue.behaviours)

        def ask(some: slice) -> Rows:
            rows = rows_of_slice(asked, kind, cases, some)
            if kind == "predict":  # before it is kept
                by = f"The method {method.name}"
                results.check_predictions(by, cases.sample_id[some], rows, classes)
            return rows

        ready = Ready(asked.facts, asked.rows, ask)
    results.write(path, kind, about, _identity(run, frozen), cases.sample_id, ready)
    notice(f"{run.step}: {len(cases)} cases")
    said = results.read(path)
    more: dict[str, Any] = {"answered_by": said.answered_by} if said.answered_by else {}
    more |= {"notes_refused": refused_of(cases)} if method.notes.summary else {}
    return {"cases": len(cases), "content": said.digest, **more}


def asked_site(run: Run, method: Method, kind: Kind) -> Site:
    """Where a method is asked; run: that of a result step of this kind."""
    folder = f"fit/{method.name}" if method.fit else run.step
    return _site(run, method, _asked_fields(method, kind), folder)


def _written_with_predictions(config: Settings, method: Method, kind: Kind, name: str) -> bool:
    """Whether the texts of predictions are the descriptions too: rounds are written once for both."""
    both = kind == "describe" and "predict" in method.says and name in ASKED["predict"]
    return both and config.dialogues.rounds


def _texts_of(said: results.Result) -> Ready:
    """What was written for predictions, as descriptions of the same cases."""
    texts, cut = said.texts, said.table["cut"].to_pylist()

    def ask(some: slice) -> Rows:
        return results.text_columns(texts[some], cut[some])

    return Ready(said.about["facts"], max(1, len(said)), ask)


def rows_of_slice(asked: Any, kind: Kind, cases: Cases, some: slice) -> Rows:
    """What a method that is ready says of a slice of the cases."""
    said = getattr(asked, kind)(cases[some])
    rows: dict[str, Any] = results.text_columns(said.text, said.cut)
    if kind == "predict":
        rows |= {"label": said.label, "probability": said.probability}
    elif kind == "generate":
        rows |= results.day_columns(said.days)
        rows |= {"written": said.written, "invalid": said.invalid}
    return rows


def _identity(run: Run, frozen: WindowSet) -> str:
    """What the slices of a half-written file depend on: how the step was started."""
    said = files.read_sealed(run.folder(run.step) / begun.STARTED)
    what = [said[part] for part in ("settings", "inputs", "sources")]
    return files.sha256_json([what, frozen.fingerprint, __version__])
