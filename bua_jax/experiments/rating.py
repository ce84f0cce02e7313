"""Items for human evaluation out of a run's result files: histories, BUA's predictions, texts by source."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation import results
from bua_jax.evaluation.rating.items import LEAST_SOURCES, Item, plain, write_items
from bua_jax.evaluation.results import Result
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import history, shown_id
from bua_jax.methods.table import METHODS
from bua_jax.pipeline.chain import STAGES, STEPS, build
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run, outline
from bua_jax.pipeline.windows import load_set

SET = "test"
PREDICTS = f"predict/bua/{SET}"
RATED = "summary"
"""The round whose text is rated."""


def source_step(name: str) -> str:
    """The result file that holds a method's texts. Raises `ConfigError` for one that writes none."""
    method = METHODS.get(name)
    if method and "predict" in method.says and method.about.trained_on == "dialogues":
        return f"predict/{name}/{SET}"  # where they were written before the prediction
    if method and "describe" in method.says:
        return f"describe/{name}/{SET}"
    known = [n for n, m in METHODS.items() if "describe" in m.says]
    raise ConfigError(
        f"--sources: {name!r} is no method that describes, such as {', '.join(known)}."
    )


def build_sources(run: Run, sources: Sequence[str]) -> dict[str, str]:
    """Asks the methods that were not asked yet; source -> step.

    Raises `ConfigError` for one that does not describe, and for one alone; `MismatchError` where untrained.
    """
    steps = {name: source_step(name) for name in sources}
    if len(steps) < LEAST_SOURCES:
        raise ConfigError(
            f"--sources={','.join(sources)}: judges compare texts; give two sources or more, with commas."
        )
    for step in (PREDICTS, *steps.values()):
        if untrained := [
            s for s, done in outline(run, step, STEPS).items() if not done and s in STAGES
        ]:
            raise MismatchError(
                f"{run.workdir} lacks {', '.join(untrained)}. Build it with: python -m bua_jax.curriculum "
                f"--workdir={run.workdir}"
            )
        build(run, step)
    return steps


def write_items_of(run: Run, path: Path, sources: Sequence[str], number: int, seed: int) -> None:
    """Writes `items_of` a run into a file."""
    files.check_output(path)
    write_items(path, items_of(run, sources, number, seed))


def items_of(run: Run, sources: Sequence[str], number: int, seed: int) -> list[Item]:
    """`number` histories of the test set, of as many people as can be, with each source's summary."""
    steps = build_sources(run, sources)
    store = load_store(run)
    frozen = load_set(run, SET, store)
    drawn = _evenly(frozen.windows.user, number, seed)
    if len(drawn) < number:
        notice(f"The test set has {len(drawn)} windows: that many items are written, not {number}.")
    names = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]

    def said(step: str) -> Result:
        found = results.read(run.file(step, results.FILE))
        return found.take(results.rows_of(found, frozen.fingerprint, names)).take(np.asarray(drawn))

    predicted = said(PREDICTS)
    texts = {name: said(step).texts for name, step in steps.items()}
    windows = frozen.windows
    seen = [history(store, int(windows.start[row]), int(windows.end[row])) for row in drawn]
    return [
        Item(
            names[row],
            tuple(history_text(store.catalogue, seen[i]).splitlines()),
            _label(store, int(predicted.label[i])),
            {source: _said(own[i].get(RATED, "")) for source, own in texts.items()},
        )
        for i, row in enumerate(drawn)
    ]


def _said(text: str) -> str:
    return text.strip() if plain(text) else "(no text)"


def _label(store: EventStore, label: int) -> str:
    return "(none)" if label < 0 else store.catalogue.behaviours[label]


def _evenly(users: np.ndarray, number: int, seed: int) -> list[int]:
    """`number` rows, one of each person before a second of any; users: int[n], whose each row is."""
    seen: Counter[int] = Counter()
    turn: list[tuple[int, int]] = []
    for row in np.random.default_rng(seed).permutation(len(users)).tolist():
        turn.append((seen[int(users[row])], row))
        seen[int(users[row])] += 1
    return [row for _, row in sorted(turn, key=lambda one: one[0])[:number]]
