"""Step `evaluation`: what methods said about the test users, scored once.

The predictions are kept (pipeline/predictions.py), so that the step is built again, and not refused,
where the config asks for one more method or another metric. Tables and report are printed from what it
leaves (pipeline/report.py).
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.alignment.ask import Bua
from bua_jax.basics import files
from bua_jax.basics.version import signature
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.tasks import Writer, understanding_rounds
from bua_jax.evaluation import kept
from bua_jax.evaluation.kept import Predicted
from bua_jax.evaluation.oracle import flips
from bua_jax.evaluation.prediction import bootstrap_interval, paired_bootstrap, prediction_metrics
from bua_jax.evaluation.sequences import bleu_signature, generation_metrics, originality
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowSet, sample_id, shown_id, target_day
from bua_jax.methods import logit_adjustment
from bua_jax.methods.last_day import last_day
from bua_jax.methods.protocol import histories_of
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.predictions import (
    PREDICTIONS_READ,
    Asked,
    asked_of,
    bua_of,
    day_of,
    final_stage,
    generate_all,
    histories_of_windows,
    identity,
    predict_all,
    predictor,
)
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import draw, load_set

_ADJUSTED = "encoder_adjusted"


def score(run: Run, store: EventStore, asked: Asked, predicted: Predicted) -> dict[str, Any]:
    """Metrics of one method with the interval of rec_w over users, and its facts."""
    has_distribution = "signature" not in predicted.facts or run.config.decoding.decode == "labels"
    table = predicted.probabilities if has_distribution else None
    labels = predicted.labels
    metrics = prediction_metrics(asked.targets, labels, behaviour_groups(store), table)
    interval = bootstrap_interval(
        labels == asked.targets,
        asked.windows.user,
        count=run.config.evaluation.bootstrap,
        seed=run.config.seed,
    )
    people = len(np.unique(asked.windows.user))
    return {**metrics, "rec_w_interval": interval, "people": people, **predicted.facts}


def score_all(
    run: Run, store: EventStore, asked: Asked, predicted: dict[str, Predicted]
) -> dict[str, Any]:
    """Metrics by method; BUA's has its differences to the others."""
    found = {name: score(run, store, asked, one) for name, one in predicted.items()}
    if run.config.encoder.kind in predicted:
        adjusted = _adjusted(run, store, asked, predicted, found["bua"]["rec_w"])
        found[_ADJUSTED] = score(run, store, asked, adjusted)
    correct = predicted["bua"].labels == asked.targets
    for name, one in predicted.items():
        if name != "bua":
            found["bua"].setdefault("against", {})[name] = paired_bootstrap(
                correct,
                one.labels == asked.targets,
                asked.windows.user,
                count=run.config.evaluation.bootstrap,
                seed=run.config.seed,
            )
    return found


def _adjusted(
    run: Run, store: EventStore, asked: Asked, predicted: dict[str, Predicted], rec_w: float
) -> Predicted:
    """The encoder, logit-adjusted on validation to BUA's rec_w: what a tail gain is held against."""
    config, kind = run.config, run.config.encoder.kind
    count = config.evaluation.validation_windows
    held = draw(config.windows, store, "validation", "prediction", count)
    seen, targets = histories_of(store, held, asked.seen.fields.shape[1])
    shares = training_shares(store)
    on_validation = predictor(run, store, kind).predict(seen)
    settings = config.methods.encoder_adjusted
    tau = logit_adjustment.match_tau(on_validation, targets, shares, rec_w, settings)
    probabilities = logit_adjustment.adjust(predicted[kind].probabilities, shares, tau)
    return Predicted(probabilities, facts={"tau": tau, **predicted[kind].facts})


def oracle_table(run: Run, store: EventStore, asked: Asked) -> list[dict[str, Any]]:
    """Predictions where the first k rounds have reference answers, and without any round (Appendix J).

    Flips are counted against the model's own answers (k = 0); later rounds are decoded anew.
    """
    bua = bua_of(run, final_stage(run.needs), store)
    writer, windows = Writer.of(store, seed=run.config.seed), asked.windows
    references = [
        {turn.kind: turn.answer for turn in understanding_rounds(writer.window(begin, end, name))}
        for begin, end, name in zip(
            windows.start.tolist(),
            windows.end.tolist(),
            (sample_id(store, windows, i) for i in range(len(windows))),
            strict=True,
        )
    ]

    def right(one: Bua, known: int) -> np.ndarray:
        given = [{kind: text[kind] for kind in UNDERSTANDING[:known]} for text in references]
        log_p, _ = one.probabilities(asked.histories, asked.final, given=given)
        return log_p.argmax(1) == asked.targets

    own = right(bua, 0)
    table = [{"rounds": "own answers", **flips(own, own)}]
    for known in range(1, len(UNDERSTANDING) + 1):
        table.append({"rounds": f"first {known} given", **flips(own, right(bua, known))})
    alone = dataclasses.replace(bua, with_rounds=False, refine=False)
    return [*table, {"rounds": "none", **flips(own, right(alone, 0))}]


def score_days(
    run: Run, store: EventStore, values: list[dict[str, Any]], frozen: WindowSet
) -> dict[str, Any]:
    """Metrics of the generated days, and of repeating the last one."""
    if not values:
        return {"generation": {}}
    windows = frozen.windows
    made = [day_of(one) for one in values]
    real = [target_day(store, windows, i) for i in range(len(windows))]
    last = [last_day(seen) for seen in histories_of_windows(store, windows)]
    training = load_set(run, "days_train", store).windows
    known = [target_day(store, training, i) for i in range(len(training))]
    return {
        "generation": {
            "bua": generation_metrics(made, real, store.catalogue),
            "last_day": generation_metrics(last, real, store.catalogue),
        },
        "originality": {
            name: originality(days, known)
            for name, days in {"generated": made, "real": real}.items()
        },
    }


def _lines(items: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def _write_predictions(
    path: Path, store: EventStore, asked: Asked, predicted: dict[str, Predicted]
) -> None:
    """A line per test window: the target, what each method said, and BUA's understanding."""
    labels, texts = store.catalogue.behaviours, predicted["bua"].texts
    named = {name: one.labels for name, one in predicted.items()}
    lines = [
        {
            "sample_id": shown_id(store, asked.windows, i),
            "target": labels[target],
            "predicted": {n: labels[p[i]] if p[i] >= 0 else None for n, p in named.items()},
            "understanding": texts[i] if texts else {},
        }
        for i, target in enumerate(asked.targets)
    ]
    files.write_text(path, _lines(lines))


def build_evaluation(run: Run) -> dict[str, Any]:
    """Writes metrics.json into the workdir, details into evaluation/."""
    store, folder = load_store(run), run.folder("evaluation")
    asked = asked_of(run, store)
    predicted = predict_all(run, store, asked)
    prediction = score_all(run, store, asked, predicted)
    _write_predictions(folder / "predictions.jsonl", store, asked, predicted)
    made, frozen = generate_all(run, store)
    files.write_text(folder / "generated.jsonl", _lines(made))
    depends_on = signature(
        data=store.fingerprint,
        split=files.sha256_json(store.split.tolist()),
        test=asked.frozen.fingerprint,
        decode=run.config.decoding.decode,
        invalid="wrong",
        bleu=bleu_signature(),
        seed=run.config.seed,
    )
    metrics = {
        "prediction": prediction,
        **score_days(run, store, made, frozen),
        "signature": depends_on,
    }
    if run.config.evaluation.oracle:
        fields = ("seed", *PREDICTIONS_READ)
        depends = identity(run, asked.frozen, final_stage(run.needs), fields)
        make = functools.partial(oracle_table, run, store, asked)
        metrics["oracle"] = kept.values(folder / "kept" / "oracle.json", depends, make)
    files.write_json(run.workdir / "metrics.json", metrics)
    return {"rec_w": prediction["bua"]["rec_w"]}
