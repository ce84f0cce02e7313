"""What a finished evaluation left, as tables on the terminal, as metrics.json and as report.html.

Nothing is predicted or scored here, so that how results are shown is no part of what they are.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.basics.config import settings
from bua_jax.basics.console import out
from bua_jax.evaluation import plots, tables, trackers
from bua_jax.evaluation.prediction import calibration
from bua_jax.evaluation.report import Conversation, Report, sections, write_report
from bua_jax.evaluation.results import Result
from bua_jax.evaluation.tables import main_row
from bua_jax.events.schema import EventStore
from bua_jax.parallel import processes
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.evaluate import METRICS, days_of, said_of
from bua_jax.pipeline.steps import EXECUTION, Run, read_record, recorded
from bua_jax.pipeline.windows import load_set
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.writers import read_scalars, write_run

_UNCALIBRATED = ("zero_shot",)  # whose reliability is not drawn


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


def _of_weights(run: Run) -> list[tuple[str, bytes]]:
    """What units weighed in each stage; and, where the balancer asked for gradients, how they agree."""
    pictures = [
        (
            "Each unit's share of the loss",
            plots.curves(curves_of(run, _SHARES), "share of the loss"),
        )
    ]
    for stage in STAGE_TABLE:
        pairs: dict[tuple[str, str], list[float]] = {}
        for record in read_scalars(run.folder(stage)):
            for name, value in record.items():
                if name.startswith("train/cosine/"):
                    one, other = name.split("/")[2:]
                    pairs.setdefault((one, other), []).append(value)
        if pairs:
            means = {pair: float(np.mean(values)) for pair, values in pairs.items()}
            drawn = plots.cosines(means, f"{stage}: mean cosine of gradients")
            pictures.append((f"How gradients of units agree in {stage}", drawn))
    return pictures


def _pictures_of_days(run: Run, store: EventStore) -> list[tuple[str, bytes]]:
    frozen = load_set(run, "days", store)
    said = said_of(run, "generate", "days", store, frozen)
    if not said or not len(frozen):
        return []
    sides = {"generated": said[main_row(said)].days, "real": days_of(store, frozen)}
    first = {name: days[0] for name, days in sides.items()}
    return [
        ("A generated day beside the real one", plots.timeline(first, store.catalogue)),
        (
            "When behaviours happen: share of all events",
            plots.hours_by_behaviour(sides, store.catalogue),
        ),
    ]


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


def report_results(run: Run) -> None:
    """Writes report.html of a finished evaluation, and its metrics.json beside it, by one process."""
    if not processes.is_first():
        return
    store, scored = load_store(run), _metrics(run)
    frozen, labels = load_set(run, "test", store), store.catalogue.behaviours
    targets, prediction = store.behaviour[frozen.windows.end], scored["prediction"]
    said = said_of(run, "predict", "test", store, frozen)
    shown = main_row(prediction)
    drawn = {
        name: calibration(one.probability.max(1), one.label == targets)
        for name, one in said.items()
        if name not in _UNCALIBRATED and one.probability is not None
    }
    dialogues = [
        Conversation(title, [*texts.items(), ("predicted", found), ("true", true)])
        for title, texts, found, true in samples(said[shown], targets, labels)
    ][: run.config.report.examples]
    pictures = [
        (
            "Losses: validation, and training dotted",
            plots.curves(curves_of(run), "loss (nats)"),
        ),
        *_of_weights(run),
        ("Reliability of confidences", plots.reliability(drawn)),
        ("Confusion", plots.confusion(targets, said[shown].label, labels)),
        *_pictures_of_days(run, store),
    ]
    row, days = prediction[shown], len(load_set(run, "days", store))
    counted = f"{tables.scope(row)}, {days} generated days. Percent; log-loss in nats."
    if not run.places:
        files.write_json(run.workdir / METRICS, scored)
    assert isinstance(run.config, ConfigDict)
    flat, found = settings(run.config, sorted(run.config)), final_metrics(scored)
    write_run(_shown(run) / "tensorboard", flat, found)
    write_report(
        _shown(run) / "report.html",
        Report(
            f"BUA on {recorded(run, 'data').data.name}",
            [counted, _executed(run), *filter(None, [tables.caution(row)]), *scored["warnings"]],
            sections(scored),
            pictures,
            dialogues,
            scored["signature"],
        ),
    )
    texts = {key: str(value) for key, value in flat.items()}
    one = trackers.Finished(run.workdir.name, texts, found, [_shown(run) / "report.html"])
    trackers.track(run.workdir, run.config.report.trackers, one)


def final_metrics(scored: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a finished evaluation under one name each: `prediction/METRIC` of the row that is shown
    first, `prediction/METHOD/METRIC`, `generation/METHOD/FIELD/METRIC`."""
    prediction, days = scored["prediction"], scored["generation"]
    rows = {f"prediction/{method}": row for method, row in prediction.items()}
    if prediction:
        rows["prediction"] = prediction[main_row(prediction)]
    rows |= {f"generation/{m}/{f}": row for m, fields in days.items() for f, row in fields.items()}
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
