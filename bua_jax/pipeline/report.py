"""What a finished evaluation left, as tables on the terminal and as report.html.

Nothing is predicted or scored here, so that how results are shown is no part of what they are.
"""

from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.evaluation import kept, plots, tables
from bua_jax.evaluation.kept import Predicted
from bua_jax.evaluation.prediction import Calibration, calibration
from bua_jax.evaluation.report import Conversation, Report, sections, write_report
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import shown_id, target_day
from bua_jax.methods.protocol import histories_of
from bua_jax.parallel import processes
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.predictions import day_of
from bua_jax.pipeline.steps import EXECUTION, Run, read_record, recorded
from bua_jax.pipeline.windows import load_set
from bua_jax.training.optimizer import STAGE_TABLE
from bua_jax.training.writers import read_scalars

_UNCALIBRATED = ("zero_shot",)  # whose reliability is not drawn


def _curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Validation loss per task and stage; staged and joint in one picture (Appendix S)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for stage in STAGE_TABLE:
        for record in read_scalars(run.folder(stage)):
            for name, value in record.items():
                if name.startswith("validation/task/"):
                    key = f"{stage} {name.rsplit('/', 1)[1]}"
                    curves.setdefault(key, []).append((int(record["step"]), value))
    return curves


def _pictures_of_days(
    run: Run, store: EventStore, made: list[dict[str, Any]]
) -> list[tuple[str, bytes]]:
    if not made:
        return []
    windows = load_set(run, "days", store).windows
    real = [target_day(store, windows, i) for i in range(len(windows))]
    sides = {"generated": [day_of(one) for one in made], "real": real}
    first = {name: days[0] for name, days in sides.items()}
    return [
        ("A generated day beside the real one", plots.timeline(first, store.catalogue)),
        (
            "When behaviours happen: share of all events",
            plots.hours_by_behaviour(sides, store.catalogue),
        ),
    ]


def _executed(run: Run) -> str:
    """How the evaluation was computed, which is no part of what it is."""
    record = read_record(run, "evaluation")
    assert record is not None
    return "Executed with " + ", ".join(f"{k} {v}" for k, v in record[EXECUTION].items()) + "."


def report_results(run: Run) -> None:
    """Writes report.html of a finished evaluation into the workdir, by one process."""
    if not processes.is_first():
        return
    folder, store = run.folder("evaluation"), load_store(run)
    metrics = files.read_json(run.workdir / "metrics.json")
    windows, labels = load_set(run, "test", store).windows, store.catalogue.behaviours
    _, targets = histories_of(store, windows, run.config.windows.prediction_history)
    predicted = {
        name: kept.read_predictions(path)
        for name in metrics["prediction"]
        if (path := folder / "kept" / f"{name}.parquet").is_file()
    }
    bua = predicted["bua"]
    path = folder / "kept" / "days.json"
    made = files.read_json(path)["values"] if metrics["generation"] else []

    def calibrated(one: Predicted) -> Calibration:
        return calibration(one.probabilities.max(1), one.labels == targets)

    drawn = {
        name: calibrated(one)
        for name, one in predicted.items()
        if name not in _UNCALIBRATED and "log_loss" in metrics["prediction"][name]
    }
    dialogues = [
        Conversation(
            shown_id(store, windows, i),
            [*bua.texts[i].items(), ("predicted", labels[bua.labels[i]])]
            + [("true", labels[targets[i]])],
        )
        for i in range(min(run.config.report.examples, len(bua.texts)))
    ]
    pictures = [
        ("Validation losses", plots.loss_curves(_curves(run), "per stage and task")),
        ("Reliability of confidences", plots.reliability(drawn)),
        ("Confusion", plots.confusion(targets, bua.labels, labels)),
        *_pictures_of_days(run, store, made),
    ]
    scored = metrics["prediction"]["bua"]
    counted = f"{tables.scope(scored)}, {len(made)} generated days. Percent; log-loss in nats."
    write_report(
        run.workdir / "report.html",
        Report(
            f"BUA on {recorded(run, 'data').data.name}",
            [counted, _executed(run), *filter(None, [tables.caution(scored)])],
            sections(metrics),
            pictures,
            dialogues,
            metrics["signature"],
        ),
    )


def print_results(run: Run) -> None:
    """Prints the tables of a finished evaluation."""
    tables.print_metrics(files.read_json(run.workdir / "metrics.json"))
    out.print(f"{run.workdir / 'metrics.json'}  {run.workdir / 'report.html'}")
