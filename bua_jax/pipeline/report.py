"""What a finished evaluation left, as tables on the terminal, as metrics.json and as report.html.

Nothing is predicted or scored here, so that how results are shown is no part of what they are.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.config import Settings, settings
from bua_jax.basics.console import out
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.rules import ANNOTATORS
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation import findings, plots, tables, trackers
from bua_jax.evaluation.prediction import calibration
from bua_jax.evaluation.report import (
    Conversation,
    Entry,
    Picture,
    Report,
    Timeline,
    forest,
    papers,
    sections,
    write_report,
)
from bua_jax.evaluation.results import Result
from bua_jax.evaluation.tables import main_row
from bua_jax.evaluation.understanding.claims import ASPECTS
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import Day, WindowSet, history
from bua_jax.parallel import processes
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.evaluate import METRICS, days_of, said_of
from bua_jax.pipeline.steps import EXECUTION, Run, inputs_of, read_record, recorded
from bua_jax.pipeline.windows import load_set
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.writers import read_scalars, write_run

_UNCALIBRATED = ("zero_shot",)  # whose reliability is not drawn
_DAYS = 4  # of a history that are shown before a dialogue


_LOSSES = {
    "validation/log_loss": "validation events",
    "train/log_loss": "training events",
    "validation/task/": "validation ",
    "train/task/": "training ",
}
"""Scalars of metrics.jsonl that are losses, or how they begin, and their lines."""
_SHARES = {"train/share/": "logged "}


def curves_of(run: Run, scalars: Mapping[str, str] = _LOSSES) -> plots.Curves:
    """What encoder and stages logged at each step: a panel for each, by default of their losses."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for step in ("encoder", *STAGE_TABLE):
        for record in read_scalars(run.folder(step)):
            for name, value in record.items():
                for begin, line in scalars.items():
                    if name == begin or (begin.endswith("/") and name.startswith(begin)):
                        line += name.removeprefix(begin)
                        points = panels.setdefault(step, {}).setdefault(line, [])
                        points.append((int(record["step"]), value))
    return panels


def _of_losses(run: Run) -> Picture:
    found = curves_of(run)
    return Picture(
        "Losses: validation, and training dotted",
        plots.curves(found, "loss (nats)"),
        findings.of_curves(found),
    )


def _of_weights(run: Run) -> list[Picture]:
    """What units weighed in each stage; and, where gradients were looked at, how they agree."""
    shares = curves_of(run, _SHARES)
    drawn = plots.curves(shares, "share of the loss")
    pictures = [Picture("Each unit's share of the loss", drawn, findings.of_shares(shares))]
    for stage in STAGE_TABLE:
        pairs: dict[tuple[str, str], list[float]] = {}
        for record in read_scalars(run.folder(stage)):
            for name, value in record.items():
                if name.startswith(("train/cosine/", "look/cosine/")):
                    one, other = name.split("/")[2:]
                    pairs.setdefault((one, other), []).append(value)
        if pairs:
            means = {pair: float(np.mean(values)) for pair, values in pairs.items()}
            drawn = plots.cosines(means, f"{stage}: mean cosine of gradients")
            title = f"How gradients of units agree in {stage}"
            pictures.append(Picture(title, drawn, findings.of_cosines(means)))
    return pictures


class _Days(NamedTuple):
    """Generated days beside the real ones: some as lists of events, all as a picture."""

    shown: list[Timeline]
    pictures: list[Picture]


def _of_days(run: Run, store: EventStore, groups: Mapping[str, Sequence[int]]) -> _Days:
    frozen = load_set(run, "days", store)
    said = said_of(run, "generate", "days", store, frozen)
    if not said or not len(frozen):
        return _Days([], [])
    catalogue = store.catalogue
    sides = {"generated": said[main_row(said)].days, "real": days_of(store, frozen)}
    of = {behaviour: group for group, members in groups.items() for behaviour in members}

    def entries(day: Day) -> list[Entry]:
        return [
            Entry(s / catalogue.slots_per_day, catalogue.clock(s), catalogue.behaviours[b], of[b])
            for s, b in zip(day.slot, day.behaviour, strict=True)
        ]

    first = _of_different_people(frozen.windows.user)[: run.config.report.examples]
    shown = [
        Timeline(
            f"Day {number}: generated beside real",
            {name: entries(days[row]) for name, days in sides.items()},
        )
        for number, row in enumerate(first, 1)
    ]
    drawn = plots.hours_by_behaviour(sides, catalogue)
    finding = findings.of_hours(sides, catalogue.slots_per_day)
    title = "When behaviours happen: share of all events"
    return _Days(shown, [Picture(title, drawn, finding)])


def _of_texts(table: Mapping[str, Any]) -> list[Picture]:
    """What texts say of people by aspect, and the ladder of spoilt ones."""
    if not table:
        return []
    shares = {
        kind: {
            name: {aspect: row["metrics"][f"{aspect}_{kind}"]["value"] for aspect in ASPECTS}
            for name, row in table["rows"].items()
        }
        for kind in ("precision", "recall")
    }
    fell: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, one in table["ladder"]["rungs"].items():
        pairs = zip(one["strengths"], one["values"], strict=True)
        points = [(round(100 * strength), value) for strength, value in pairs if value is not None]
        line = {f"logged {one['falls'].replace('_', ' ')}": points}
        fell[name] = line if points else {}  # texts without such claims have nothing to fall
    return [
        Picture(
            "What texts say of people, by aspect (%)",
            plots.shares(shares),
            findings.of_texts(table),
        ),
        Picture(
            "Texts spoilt on purpose",
            plots.curves(fell, "share", "% spoilt"),
            findings.of_ladder(table["ladder"]),
        ),
    ]


def _of_different_people(people: np.ndarray) -> list[int]:
    """The first row of each person, in order."""
    _, first = np.unique(people, return_index=True)
    return sorted(first.tolist())


def _conversations(
    run: Run, store: EventStore, frozen: WindowSet, said: Result
) -> list[Conversation]:
    """What was said about windows of different people, beside their last days and the rules' answers."""
    targets, catalogue = store.behaviour[frozen.windows.end], store.catalogue
    shares, cases = training_shares(store), list(samples(said, targets, catalogue.behaviours))
    found = []
    for row in _of_different_people(frozen.windows.user)[: run.config.report.examples]:
        title, texts, predicted, true = cases[row]
        start, end = int(frozen.windows.start[row]), int(frozen.windows.end[row])
        window = Window(history(store, start, end), catalogue, shares, str(start))
        turns = [
            (kind, text, ANNOTATORS[kind](window) if kind in UNDERSTANDING else "")
            for kind, text in texts.items()
        ]
        days = history_text(catalogue, window.history).splitlines()[-_DAYS:]
        found.append(
            Conversation(f"{title}: {predicted} predicted, {true} true", turns, "\n".join(days))
        )
    return found


def _executed(run: Run) -> str:
    """How the evaluation was computed, which is no part of what it is; it asks no API."""
    record = read_record(run, "evaluation")
    assert record is not None
    how = {k: v for k, v in record[EXECUTION].items() if not k.startswith("api_")}
    return "Executed with " + ", ".join(f"{k} {v}" for k, v in how.items()) + "."


def _metrics(run: Run) -> dict[str, Any]:
    """What a finished evaluation found. Raises `DataError` where the file is not what it wrote."""
    return files.read_json(run.file("evaluation", METRICS))


def _shown(run: Run) -> Path:
    """Where a person looks: the workdir, or the step's folder where several runs share one."""
    return run.folder("evaluation") if run.places else run.workdir


def _facts(run: Run, scored: Mapping[str, Any]) -> dict[str, str]:
    """Where the numbers come from."""
    records = {need: read_record(run, need) for need in inputs_of(run, "evaluation")}
    own, data = read_record(run, "evaluation"), recorded(run, "data").data
    assert own is not None
    seconds = sum(record["seconds"] for record in records.values() if record)
    row, days = scored["prediction"][main_row(scored["prediction"])], scored["generation"]
    return {
        "tested on": tables.scope(row) + (f"; days of {', '.join(days)}" if days else ""),
        "data": data.name,
        "seed": str(run.config.seed),
        "commit": str(own["versions"]["git"]),
        "minutes": f"{seconds / 60:.1f} in the steps that the evaluation reads",
        "folder": run.workdir.name,
        "built by": "the command in the folder's README.md",
    }


def _changed(config: Settings) -> dict[str, str]:
    """Fields that are not as in configs/base.py, and their values."""
    usual = configs.load("configs/base.py")
    flat = settings(config, sorted(config))
    known = settings(usual, sorted(usual))
    return {
        name: str(value)
        for name, value in flat.items()
        if str(known.get(name)) != str(value) and not name.startswith("execution.")
    }


def report_results(run: Run) -> None:
    """Writes report.html of a finished evaluation, and its metrics.json beside it, by one process."""
    if not processes.is_first():
        return
    store, scored = load_store(run), _metrics(run)
    if not run.places:
        files.write_json(run.workdir / METRICS, scored)
    assert isinstance(run.config, ConfigDict)
    flat, found = settings(run.config, sorted(run.config)), final_metrics(scored)
    write_run(_shown(run) / "tensorboard", flat, found)
    write_report(_shown(run) / "report.html", _report(run, store, scored))
    texts = {key: str(value) for key, value in flat.items()}
    one = trackers.Finished(run.workdir.name, texts, found, [_shown(run) / "report.html"])
    trackers.track(run.workdir, run.config.report.trackers, one)


def _report(run: Run, store: EventStore, scored: Mapping[str, Any]) -> Report:
    """The page of a finished evaluation."""
    frozen, labels = load_set(run, "test", store), store.catalogue.behaviours
    targets, prediction = store.behaviour[frozen.windows.end], scored["prediction"]
    groups, said = behaviour_groups(store), said_of(run, "predict", "test", store, frozen)
    shown = main_row(prediction)
    row, guessed = prediction[shown], said[shown].label
    drawn = {
        name: calibration(one.probability.max(1), one.label == targets)
        for name, one in said.items()
        if name not in _UNCALIBRATED and one.probability is not None
    }
    days, against = _of_days(run, store, groups), row.get("against", {})
    counted = f"{tables.scope(row)}. Percent; log-loss in nats; intervals over people."
    return Report(
        title=f"BUA on {recorded(run, 'data').data.name}",
        verdict=[tables.verdict(against).replace("`", "")] if against else [],
        forests=forest(against),
        notes=[counted, _executed(run)],
        warnings=[*filter(None, [tables.caution(row)]), *scored["warnings"]],
        tables=sections(scored),
        pictures=[
            _of_losses(run),
            *_of_weights(run),
            Picture(
                "Reliability of confidences",
                plots.reliability(drawn, len(frozen)),
                findings.of_reliability(drawn),
            ),
            Picture(
                f"Confusion of {shown}",
                plots.confusion(targets, guessed, labels, groups),
                findings.of_confusion(targets, guessed, labels),
            ),
            *_of_texts(scored.get("understanding", {})),
            *days.pictures,
        ],
        days=days.shown,
        dialogues=_conversations(run, store, frozen, said[shown]),
        elsewhere=[papers()],
        facts=_facts(run, scored),
        config=_changed(run.config),
        signature=scored["signature"],
    )


def final_metrics(scored: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a finished evaluation under one name each: `prediction/METRIC` of the row that is shown
    first, `prediction/METHOD/METRIC`, `generation/METHOD/FIELD/METRIC`."""
    prediction, days = scored["prediction"], scored["generation"]
    rows = {f"prediction/{method}": row for method, row in prediction.items()}
    if prediction:
        rows["prediction"] = prediction[main_row(prediction)]
    rows |= {f"generation/{m}/{f}": row for m, fields in days.items() for f, row in fields.items()}
    rows |= {
        f"understanding/{name}": {metric: one["value"] for metric, one in row["metrics"].items()}
        for name, row in scored.get("understanding", {}).get("rows", {}).items()
    }
    return {
        f"{name}/{metric}": float(value)
        for name, row in rows.items()
        for metric, value in row.items()
        if isinstance(value, int | float)
    }


def samples(
    said: Result, targets: np.ndarray, labels: Sequence[str]
) -> Iterator[tuple[str, dict[str, str], str, str]]:
    """(case, what was written about it, predicted label, true label) of each case."""
    for row, target in enumerate(targets):
        label = int(said.label[row])
        predicted = labels[label] if label >= 0 else "no label that could be read"
        yield said.sample_id[row], said.texts[row], predicted, labels[target]


def print_samples(run: Run, count: int) -> None:
    """Prints the first cases as BUA, or the last row, answered them."""
    store, prediction = load_store(run), _metrics(run)["prediction"]
    frozen, shown = load_set(run, "test", store), main_row(prediction)
    said = said_of(run, "predict", "test", store, frozen)[shown]
    targets = store.behaviour[frozen.windows.end]
    cases = samples(said, targets, store.catalogue.behaviours)
    for name, texts, predicted, true in itertools.islice(cases, min(count, len(said))):
        out.print(f"\n{shown}, case {name}")
        for title, text in (*texts.items(), ("predicted", predicted), ("true", true)):
            out.print(f"  {title}: {text}")


def print_results(run: Run) -> None:
    """Prints the tables of a finished evaluation."""
    tables.print_metrics(_metrics(run))
    out.print(f"{_shown(run) / METRICS}  {_shown(run) / 'report.html'}")
