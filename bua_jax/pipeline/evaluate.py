"""Step `evaluation`: test users predicted and generated, beside the baselines, each scored once."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bua_jax.alignment.ask import Bua
from bua_jax.alignment.encoder import load_encoder
from bua_jax.alignment.parts import assemble
from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.version import __version__
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.tasks import (
    revealed_instruction,
    understanding_rounds,
    zero_shot_instruction,
)
from bua_jax.evaluation import plots, tables
from bua_jax.evaluation.oracle import flips
from bua_jax.evaluation.prediction import (
    Calibration,
    bootstrap_interval,
    calibration,
    paired_bootstrap,
    prediction_metrics,
)
from bua_jax.evaluation.report import Conversation, Report, Section, write_report
from bua_jax.evaluation.sequences import bleu_signature, generation_metrics, originality
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex, history, sample_id, shown_id, target_day
from bua_jax.methods import lightgbm, logit_adjustment, neural
from bua_jax.methods.last_day import last_day
from bua_jax.methods.majority import fit_majority
from bua_jax.methods.markov import fit_markov
from bua_jax.methods.markov_counts import fit_markov_counts
from bua_jax.methods.protocol import Histories, Predictor, histories_of
from bua_jax.methods.window_majority import fit_window_majority
from bua_jax.parallel.sharding import own_mesh
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import split_windows, writer_of
from bua_jax.pipeline.encoder import encoder_config, encoder_settings
from bua_jax.pipeline.stages import load_stage, previous_stage
from bua_jax.pipeline.steps import Run, read_record
from bua_jax.training.writers import read_scalars

_VALIDATION_WINDOWS = 4000
_ADJUSTED = "encoder_adjusted"
_FIELDS = ("weekday", "slot", "place", "behaviour")
_SASREC_WIDTH = 64  # of the baseline: near the 50 of Kang & McAuley


def _histories(store: EventStore, windows: WindowIndex) -> list[Any]:
    spans = zip(windows.start, windows.end, strict=True)
    return [history(store, int(start), int(end)) for start, end in spans]


def fit_baselines(run: Run, store: EventStore) -> list[Predictor]:
    """The baselines that the config names, fitted on training users, stopped on validation users."""
    config, length = run.config, run.config.windows.prediction_history
    classes, slots = len(store.catalogue.behaviours), store.catalogue.slots_per_day
    held = split_windows(run, store, "validation", "prediction", _VALIDATION_WINDOWS)
    validation = histories_of(store, held, length)
    trained_config, params, _ = load_encoder(run.folder("encoder"))

    def encoder(kind: str) -> Predictor:
        if trained_config.kind == kind:
            return neural.from_encoder(trained_config, params, store)
        other = encoder_config(run, store.catalogue)
        width = _SASREC_WIDTH if kind == "sasrec" else other.dim
        other = dataclasses.replace(other, kind=kind, dim=width)
        return neural.fit(other, store, encoder_settings(run))

    def boosted() -> Predictor:
        limit = config.evaluation.lightgbm_windows
        chosen = split_windows(run, store, "train", "prediction", limit)
        training = histories_of(store, chosen, length)
        return lightgbm.fit(training, validation, classes, slots, config.seed)

    makers: dict[str, Callable[[], Predictor]] = {
        "majority": lambda: fit_majority(store),
        "window_majority": lambda: fit_window_majority(store),
        "markov": lambda: fit_markov(store),
        "markov_counts": lambda: fit_markov_counts(store, *validation),
        "lightgbm": boosted,
        "sasrec": lambda: encoder("sasrec"),
        "behavegpt": lambda: encoder("behavegpt"),
    }
    found = []
    for name in config.evaluation.baselines:
        notice(f"evaluation: fitting {name}")
        found.append(makers[name]())
    return found


def bua_of(run: Run, stage: str, store: EventStore) -> Bua:
    """The model after a stage, as the config wants it asked."""
    config = run.config
    refine = config.decoding.refine and stage == "stage3"
    parts, shares = load_stage(run, stage), training_shares(store)
    asked = (config.decoding, shares, config.windows, config.dialogues.rounds)
    return Bua(parts, *asked, refine, config.seed)


def zero_shot(run: Run) -> Bua:
    """The base as it comes: no trained adapter, no rounds, the history in words."""
    settings = run.config.model.copy_and_resolve_references()
    with settings.unlocked():
        settings.update({"soft_tokens": "text", "adapter": ""})
    mesh = own_mesh(run.config.mesh)
    parts = assemble(settings, run.folder("encoder"), run.config.seed, mesh)
    shares = np.zeros(len(parts.catalogue.behaviours))  # only the refine round's critic reads them
    asked = (run.config.decoding, shares, run.config.windows)
    return Bua(parts, *asked, with_rounds=False, seed=run.config.seed)


def dialogues_used(run: Run, stage: str) -> int:
    """Training dialogues of a stage and of those before it."""
    record = read_record(run, stage)
    own = record["result"].get("dialogues", 0) if record else 0
    before = previous_stage(run, stage)
    return own + (dialogues_used(run, before) if before else 0)


def score(
    run: Run,
    store: EventStore,
    windows: WindowIndex,
    targets: np.ndarray,
    probabilities: np.ndarray,
    *,
    has_distribution: bool = True,
) -> dict[str, Any]:
    """Metrics of one method with the interval of rec_w over users; rows of zeros are invalid."""
    predicted = np.where(probabilities.max(1) > 0, probabilities.argmax(1), -1)
    table = probabilities if has_distribution else None
    metrics = prediction_metrics(targets, predicted, behaviour_groups(store), table)
    interval = bootstrap_interval(
        predicted == targets,
        windows.user,
        count=run.config.evaluation.bootstrap,
        seed=run.config.seed,
    )
    people = len(np.unique(windows.user))
    return {**metrics, "rec_w_interval": interval, "people": people}


def predict_all(run: Run, store: EventStore, folder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores every method on the same test windows; returns (metrics by method, what else is shown)."""
    config = run.config
    windows = split_windows(run, store, "test", "prediction", config.windows.test)
    seen, targets = histories_of(store, windows, config.windows.prediction_history)
    found: dict[str, Any] = {}
    predicted: dict[str, np.ndarray] = {}
    calibrated: dict[str, Calibration] = {}
    fitted: dict[str, Predictor] = {}
    for method in fit_baselines(run, store):
        probabilities = method.predict(seen)
        found[method.name] = score(run, store, windows, targets, probabilities)
        found[method.name] |= {
            "fields": list(method.fields),
            "training_windows": method.num_training_windows,
        }
        predicted[method.name], fitted[method.name] = probabilities.argmax(1), method
        right = predicted[method.name] == targets
        calibrated[method.name] = calibration(probabilities.max(1), right)
    texts: list[Any] = []
    stages = [f"stage{n}" for n in config.stages if n >= 2]
    names = {stage: f"bua_{stage}" for stage in stages} | {stages[-1]: "bua"}
    if config.with_joint:
        names["joint"] = "bua_joint"
    writer, histories = writer_of(run, store), _histories(store, windows)
    final = [revealed_instruction(writer, int(end)) for end in windows.end]
    decode, scored = config.decoding.decode, config.decoding.decode == "labels"
    if config.evaluation.zero_shot:
        asked = [zero_shot_instruction(store.catalogue)] * len(histories)
        log_p, _ = zero_shot(run).probabilities(histories, asked)
        found["zero_shot"] = score(run, store, windows, targets, np.exp(log_p))
        found["zero_shot"] |= {"fields": list(_FIELDS), "training_windows": 0}
        predicted["zero_shot"] = log_p.argmax(1)
    for stage, name in names.items():
        bua = bua_of(run, stage, store)
        log_p, said = bua.probabilities(histories, final, decode=decode)
        probabilities = np.exp(log_p)
        found[name] = score(run, store, windows, targets, probabilities, has_distribution=scored)
        found[name] |= {
            "fields": list(_FIELDS),
            "training_windows": dialogues_used(run, stage),
            "truncated_rounds": sum(u.truncated for u in said),
            "signature": bua.signature(decode),
        }
        predicted[name] = np.where(probabilities.max(1) > 0, probabilities.argmax(1), -1)
        if scored:
            calibrated[name] = calibration(probabilities.max(1), predicted[name] == targets)
        if name == "bua":
            texts = said
        _log_scoring(run, name, found[name])
    _add_adjusted(run, store, windows, seen, targets, fitted, found)
    correct = predicted["bua"] == targets
    for name, ids in predicted.items():
        if name != "bua":
            found["bua"].setdefault("against", {})[name] = paired_bootstrap(
                correct,
                ids == targets,
                windows.user,
                count=config.evaluation.bootstrap,
                seed=config.seed,
            )
    labels = store.catalogue.behaviours
    lines = [
        json.dumps(
            {
                "sample_id": shown_id(store, windows, i),
                "target": labels[targets[i]],
                "predicted": {n: labels[p[i]] if p[i] >= 0 else None for n, p in predicted.items()},
                "understanding": texts[i].texts if texts else {},
            },
            ensure_ascii=False,
        )
        + "\n"
        for i in range(len(targets))
    ]
    files.write_text(folder / "predictions.jsonl", "".join(lines))
    shown = {"targets": targets, "predicted": predicted["bua"], "texts": texts, "windows": windows}
    return found, {**shown, "calibrated": calibrated}


def oracle_table(
    run: Run, store: EventStore, windows: WindowIndex, targets: np.ndarray
) -> list[dict[str, Any]]:
    """Predictions where the first k rounds have reference answers, and without any round (Appendix J).

    Flips are counted against the model's own answers (k = 0); later rounds are decoded anew.
    """
    bua, writer = bua_of(run, f"stage{run.config.stages[-1]}", store), writer_of(run, store)
    histories = _histories(store, windows)
    final = [revealed_instruction(writer, int(end)) for end in windows.end]
    references = [
        {turn.kind: turn.answer for turn in understanding_rounds(writer.window(begin, end, name))}
        for begin, end, name in zip(
            windows.start.tolist(),
            windows.end.tolist(),
            (sample_id(store, windows, i) for i in range(len(windows))),
            strict=True,
        )
    ]

    def right(asked: Bua, known: int) -> np.ndarray:
        given = [{kind: text[kind] for kind in UNDERSTANDING[:known]} for text in references]
        return asked.probabilities(histories, final, given=given)[0].argmax(1) == targets

    own = right(bua, 0)
    table = [{"rounds": "own answers", **flips(own, own)}]
    for known in range(1, len(UNDERSTANDING) + 1):
        table.append({"rounds": f"first {known} given", **flips(own, right(bua, known))})
    alone = dataclasses.replace(bua, with_rounds=False, refine=False)
    return [*table, {"rounds": "none", **flips(own, right(alone, 0))}]


def _add_adjusted(run, store, windows, seen: Histories, targets, fitted, found) -> None:
    """The encoder, logit-adjusted on validation to BUA's rec_w: what a tail gain is held against."""
    kind = run.config.encoder.kind
    if kind not in fitted:
        return
    held = split_windows(run, store, "validation", "prediction", _VALIDATION_WINDOWS)
    validation, validation_targets = histories_of(store, held, seen.fields.shape[1])
    shares = training_shares(store)
    on_validation = fitted[kind].predict(validation)
    tau = logit_adjustment.match_tau(
        on_validation, validation_targets, shares, found["bua"]["rec_w"]
    )
    probabilities = logit_adjustment.adjust(fitted[kind].predict(seen), shares, tau)
    found[_ADJUSTED] = score(run, store, windows, targets, probabilities) | {
        "tau": tau,
        "fields": list(fitted[kind].fields),
        "training_windows": fitted[kind].num_training_windows,
    }


def _log_scoring(run: Run, name: str, metrics: dict[str, Any]) -> None:
    """Appends to a log that tells how often test users were scored."""
    line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "method": name}
    line |= {"rec_w": metrics["rec_w"], "n": metrics["n"]}
    with open(run.folder("evaluation") / "test_log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def generate_all(
    run: Run, store: EventStore, folder
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Generates test days with BUA and by repeating the last day: (metrics, generated, real)."""
    windows = split_windows(run, store, "test", "generation", run.config.windows.generation_test)
    if not len(windows) or not run.config.dialogues.generation_share:
        return {}, [], []
    histories = _histories(store, windows)
    real = [target_day(store, windows, i) for i in range(len(windows))]
    bua = bua_of(run, f"stage{run.config.stages[-1]}", store)
    made, said, _ = bua.days(histories, [day.weekday for day in real])
    days = [one.day for one in made]
    metrics = {
        "bua": generation_metrics(days, real, store.catalogue),
        "last_day": generation_metrics([last_day(h) for h in histories], real, store.catalogue),
    }
    lines = [
        json.dumps(
            {
                "sample_id": shown_id(store, windows, i),
                "text": made[i].text,
                "invalid_pieces": made[i].invalid,
                "understanding": said[i].texts,
            },
            ensure_ascii=False,
        )
        + "\n"
        for i in range(len(made))
    ]
    files.write_text(folder / "generated.jsonl", "".join(lines))
    return metrics, days, real


def _curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Validation loss per task and stage; staged and joint in one picture (Appendix S)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for stage in ("stage1", "stage2", "stage3", "joint"):
        for record in read_scalars(run.folder(stage)):
            for name, value in record.items():
                if name.startswith("validation/task/"):
                    key = f"{stage} {name.rsplit('/', 1)[1]}"
                    curves.setdefault(key, []).append((int(record["step"]), value))
    return curves


def build_evaluation(run: Run) -> dict[str, Any]:
    """Writes metrics.json and report.html into the workdir, details into evaluation/."""
    store, folder = load_store(run), run.folder("evaluation")
    prediction, shown = predict_all(run, store, folder)
    generation, made, real = generate_all(run, store, folder)
    split = files.sha256_text(json.dumps(store.split.tolist()))
    signature = (
        f"bua|data:{store.fingerprint}|split:{split}|decode:{run.config.decoding.decode}|invalid:wrong|"
        f"bleu:{bleu_signature()}|seed:{run.config.seed}|v{__version__}"
    )
    training = split_windows(run, store, "train", "generation", 0)
    known = [target_day(store, training, i) for i in range(len(training))] if made else []
    metrics: dict[str, Any] = {
        "prediction": prediction,
        "generation": generation,
        "signature": signature,
    }
    if made:
        sides = {"generated": made, "real": real}
        metrics["originality"] = {name: originality(days, known) for name, days in sides.items()}
    if run.config.evaluation.oracle:
        metrics["oracle"] = oracle_table(run, store, shown["windows"], shown["targets"])
    files.write_json(run.workdir / "metrics.json", metrics)
    windows, labels = shown["windows"], store.catalogue.behaviours
    dialogues = [
        Conversation(
            shown_id(store, windows, i),
            [*shown["texts"][i].texts.items(), ("predicted", labels[shown["predicted"][i]])]
            + [("true", labels[shown["targets"][i]])],
        )
        for i in range(min(run.config.evaluation.examples, len(shown["texts"])))
    ]
    pictures = [
        ("Validation losses", plots.loss_curves(_curves(run), "per stage and task")),
        ("Reliability of confidences", plots.reliability(shown["calibrated"])),
        ("Confusion", plots.confusion(shown["targets"], shown["predicted"], labels)),
    ]
    if made:
        both = {"generated": made[0], "real": real[0]}
        pictures.append(
            ("A generated day beside the real one", plots.timeline(both, store.catalogue))
        )
        picture = plots.hours_by_behaviour(sides, store.catalogue)
        pictures.append(("When behaviours happen: share of all events", picture))
    oracle = tables.oracle_rows(metrics.get("oracle", []))
    sections = [
        Section("Prediction (test users)", tables.HEADER, tables.rows(prediction)),
        Section("Generation", tables.GENERATION_HEADER, tables.generation_rows(generation)),
        Section(
            "Paper (private data, 7B model): not comparable, printed for its orderings",
            ("method", *tables.METRICS[:6]),
            [[name, *(f"{100 * v:.1f}" for v in row)] for name, row in tables.PAPER.items()],
        ),
    ]
    if made:
        originals = tables.originality_rows(metrics["originality"])
        sections.insert(2, Section("Are days copies?", tables.ORIGINALITY_HEADER, originals))
    if oracle:
        sections.insert(1, Section("Reference answers given", tables.ORACLE_HEADER, oracle))
    write_report(
        run.workdir / "report.html",
        Report(
            f"BUA on {run.config.data.name}",
            [
                f"{tables.scope(prediction['bua'])}, {len(made)} generated days. "
                "Percent; log-loss in nats.",
                *filter(None, [tables.caution(prediction["bua"])]),
            ],
            sections,
            pictures,
            dialogues,
            signature,
        ),
    )
    return {"rec_w": prediction["bua"]["rec_w"]}


def print_results(run: Run) -> None:
    """Prints the tables of a finished evaluation."""
    metrics = files.read_json(run.workdir / "metrics.json")
    scored = metrics["prediction"]["bua"]
    out.print(tables.rich_table(metrics["prediction"], f"Prediction, {tables.scope(scored)}"))
    if tables.caution(scored):
        notice(tables.caution(scored))
    for name, pair in metrics["prediction"]["bua"].get("against", {}).items():
        low, high = 100 * pair["low"], 100 * pair["high"]
        out.print(
            f"bua - {name}: {100 * pair['difference']:+.1f} points (95 % {low:+.1f} to {high:+.1f})"
        )
    body = tables.generation_rows(metrics["generation"])
    if body:
        out.print(tables.markdown(tables.GENERATION_HEADER, body))
    if "originality" in metrics:
        originals = tables.originality_rows(metrics["originality"])
        out.print(tables.markdown(tables.ORIGINALITY_HEADER, originals))
    if "oracle" in metrics:
        out.print(tables.markdown(tables.ORACLE_HEADER, tables.oracle_rows(metrics["oracle"])))
    out.print(metrics["signature"])
    out.print(f"{run.workdir / 'metrics.json'}  {run.workdir / 'report.html'}")
