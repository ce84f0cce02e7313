"""The cases of a set as a method is asked about them: altered, edited, with notes and others' predictions."""

import dataclasses

from bua_jax.basics.errors import DataError
from bua_jax.dialogue.notes import states_next, summary_of
from bua_jax.evaluation import results
from bua_jax.evaluation.understanding.counterfactual import edited
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowSet
from bua_jax.methods.altered import altered_cases
from bua_jax.methods.protocol import Cases, Kind, Method
from bua_jax.pipeline.steps import Run, recorded
from bua_jax.pipeline.windows import SETS, load_set, step_of

_REVEALED = "dialogues.target_time_revealed"
_ALTERED = "windows.test_history"  # read where next behaviours of test people are asked for


def length_of(run: Run, name: str) -> int:
    """Events of the longest history that a set may hold."""
    return recorded(run, step_of(name)).windows[f"{SETS[name].task}_history"]


def asked_about(kind: Kind, name: str) -> tuple[str, ...]:
    """What cases depend on beside their set."""
    altered = (_ALTERED,) if (kind, name) == ("predict", "test") else ()
    return (_REVEALED, *altered) if kind == "predict" else ()


def cases_about(run: Run, method: Method, kind: Kind, name: str, store: EventStore) -> Cases:
    """The cases of a set as the method is asked about them; run: that of the result step."""
    frozen = load_set(run, name, store)
    told = {"predict": "nothing", "generate": "weekday", "describe": "nothing"}[kind]
    if kind == "predict" and run.config.dialogues.target_time_revealed:
        told = "time"
    how = run.config.windows.test_history if _ALTERED in asked_about(kind, name) else "own"
    cases = altered_cases(store, frozen, length_of(run, name), how, told=told)
    if name == "edited":
        seen = enumerate(cases.histories())
        cases = cases.with_histories([edited(one, store.catalogue, row) for row, one in seen])
    cases = with_notes(run, method, name, store, frozen, cases)
    others = {
        other: _said_of(run, f"predict/{other}/{name}", frozen, cases)
        for other in method.predicted_by
    }
    return dataclasses.replace(
        cases, predicted={other: said.distributions for other, said in others.items()}
    )


def _said_of(run: Run, step: str, frozen: WindowSet, cases: Cases) -> results.Result:
    """What another method said about the same cases, in their order."""
    said = results.read(run.folder(step) / results.FILE)
    return said.take(results.rows_of(said, frozen.fingerprint, cases.sample_id))


def notes_step(method: Method, name: str) -> str:
    """The step whose texts are the notes of a set's cases."""
    return f"describe/{method.notes.by}/{name}"


def with_notes(
    run: Run, method: Method, name: str, store: EventStore, frozen: WindowSet, cases: Cases
) -> Cases:
    """The cases of a set with the method's notes, if it reads any; a refused summary is left out.

    Raises `DataError` where notes are to be about another person and there is nobody else.
    """
    if not method.notes.by:
        return cases
    texts = _said_of(run, notes_step(method, name), frozen, cases).texts
    if method.notes.another:
        if (frozen.donor < 0).any():
            raise DataError(
                f"The set {name} is about one person, so that {method.name} has no text about another; give "
                "it more windows (config.windows), or the data more people."
            )
        texts = [texts[row] for row in frozen.donor]
    if method.notes.summary:
        summaries = map(summary_of, texts)
        texts = [{} if states_next(store.catalogue, one) else {"summary": one} for one in summaries]
    return cases.with_notes(texts)


def refused_of(cases: Cases) -> int:
    """Summaries that were left out."""
    return sum("summary" not in notes for notes in cases.notes)
