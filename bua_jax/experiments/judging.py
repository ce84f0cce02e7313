"""A model as the judge of a run's items (`evaluation.rating`): asked, tried on spoilt texts, kin named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import out
from bua_jax.basics.errors import MismatchError
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rules import refined_summary
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation.rating.families import kin
from bua_jax.evaluation.rating.items import Item, check_tells, read_items
from bua_jax.evaluation.rating.judge import (
    Judge,
    Pair,
    answer_form,
    item_pairs,
    preference_questions,
    score_questions,
)
from bua_jax.evaluation.rating.spoilt import Spoilt, spoil
from bua_jax.evaluation.rating.verdicts import verdicts, write_verdicts
from bua_jax.evaluation.report import Report
from bua_jax.evaluation.understanding.checks import Ground
from bua_jax.evaluation.understanding.claims import read
from bua_jax.evaluation.understanding.ladder import Source
from bua_jax.evaluation.understanding.score import Subject
from bua_jax.events.windows import history, shown_id
from bua_jax.experiments.rating import SET
from bua_jax.interop.openai_page import chat_of, said_cost
from bua_jax.methods.table import METHODS
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import writer_of
from bua_jax.pipeline.evaluate import RULES
from bua_jax.pipeline.steps import Run, outline
from bua_jax.pipeline.windows import load_set, step_of

PART = "judge"
TRIED = 250
"""Pairs of a true and a spoilt text that a judge is tried on: ten of each corruption and strength."""


def spoilt_texts(run: Run, items: Sequence[Item], number: int = TRIED) -> list[Spoilt]:
    """True summaries about the items' people, by the rules, and the same spoilt.

    Raises `MismatchError` for items of another run or history, and where the run has no test set.
    """
    step = step_of(SET)
    if left := [name for name, done in outline(run, step, STEPS).items() if not done]:
        raise MismatchError(
            f"{run.workdir} lacks {', '.join(left)}. Give --workdir the run that the items are of: a judge "
            "is tried on texts about the same people."
        )
    store = load_store(run)
    frozen = load_set(run, SET, store)
    windows, writer = frozen.windows, writer_of(run.config, store)
    row_of = {shown_id(store, windows, row): row for row in range(len(frozen))}
    if strange := [item.id for item in items if item.id not in row_of]:
        raise MismatchError(
            f"The item {strange[0]!r} is of no test window of {run.workdir}. Give --workdir the run that "
            "the items are of: a judge is tried on texts about the same people."
        )

    def window(row: int) -> Window:
        name = shown_id(store, windows, row)
        return writer.window(int(windows.start[row]), int(windows.end[row]), name)

    sources = []
    for item in items:
        row = row_of[item.id]
        seen = history(store, int(windows.start[row]), int(windows.end[row]))
        if tuple(history_text(store.catalogue, seen).splitlines()) != item.history:
            raise MismatchError(
                f"The item {item.id!r} has another history than its test window of {run.workdir}: texts that "
                "are true of the one are not of the other. Write the items anew with rate items."
            )
        own, donor = window(row), int(frozen.donor[row])
        other = refined_summary(window(donor)) if donor >= 0 else ""
        reading = read(store.catalogue, refined_summary(own))
        sources.append(Source(reading, Subject(Ground(own)), other))
    return spoil(sources, [item.id for item in items], number)


def writers(config: Settings, sources: Sequence[str]) -> dict[str, str]:
    """Who wrote what the judge reads, or taught who did -> model.

    A source that is no method is taken by its name, which may be a model's.
    """
    found = {
        f"the writer of {name!r}": config.model.path or config.model.name
        if name in METHODS
        else name
        for name in sources
        if name != RULES
    }
    if "teacher" in (config.dialogues.annotator, config.dialogues.reflect_critic):
        found["the run's teacher"] = config.teacher.model
    return found


def judge(run: Run, path: Path, output: Path, seed: int, *, only_cost: bool) -> Report | None:
    """Has the config's `judge` read the items of a file, and writes OUTPUT.json and OUTPUT.html.

    only_cost: says what that would take, and asks nothing. Raises `ConfigError` where it may not be asked,
    `DataError` for items that cannot be judged, `MismatchError` for those of another run, `ApiError`.
    """
    config, items = run.config, read_items(path)
    check_tells(items)
    for end in (".json", ".html"):
        files.check_output(output.with_name(output.name + end), path)
    spoilt = spoilt_texts(run, items)
    pairs = item_pairs(items)
    tried = [Pair(items[one.item], one.text, one.spoilt) for one in spoilt]
    if only_cost:
        asked = [
            (score_questions(items), lambda: answer_form("scores")),
            (preference_questions([*pairs, *tried]), lambda: answer_form("preferences")),
        ]
        out.print(said_cost(asked, config.judge, config.execution, PART))
        return None
    chat = chat_of(config.judge, config.execution, PART)
    asking = Judge(chat)
    scores = asking.score(items)
    chosen = asking.choose([*pairs, *tried])
    said: dict[str, Any] = {
        "judge": {
            "model": config.judge.model,
            "host": chat.host.name,
            "answered": sorted(filter(None, asking.answered)),
        },
        "kin": kin(config.judge.model, asking.answered, writers(config, sorted(items[0].texts))),
        "counts": dict(asking.counts),
        "seed": seed,
        **verdicts(items, scores, chosen[: len(pairs)], spoilt, chosen[len(pairs) :], seed),
    }
    return write_verdicts(output, said)
