"""Step `evaluation`: result files scored. No model is asked, and jax is not imported.

It reads what methods said about the test sets (pipeline/methods.py), joins the targets by the cases'
names, and writes its metrics.json. Another metric or row predicts nothing again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.version import signature
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.evaluation import results
from bua_jax.evaluation.counts import Counts, count, interval, metrics, resamples
from bua_jax.evaluation.day_counts import generation_metrics
from bua_jax.evaluation.oracle import flips
from bua_jax.evaluation.prediction import summary
from bua_jax.evaluation.results import Result
from bua_jax.evaluation.sequences import bleu_signature, originality
from bua_jax.evaluation.tables import SIDES, unread
from bua_jax.evaluation.truth import truth
from bua_jax.evaluation.understanding.counterfactual import followed
from bua_jax.evaluation.understanding.ladder import climb
from bua_jax.evaluation.understanding.score import (
    OTHERS,
    TextCounts,
    against,
    count_texts,
    placebos,
    scored,
    subjects,
    whole,
    with_edits,
)
from bua_jax.events.groups import behaviour_groups, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowSet, history, shown_id, target_day
from bua_jax.methods.table import METHODS
from bua_jax.pipeline.data import load_personas, load_store
from bua_jax.pipeline.steps import Run, inputs_of
from bua_jax.pipeline.windows import load_set

METRICS = "metrics.json"
FIELDS = ("seed", "decoding.decode", "encoder.kind", "evaluation")
RULES = "reference"  # the method whose texts are true
_RUNGS = 60  # texts that are corrupted, at most


def said_of(
    run: Run, kind: str, name: str, store: EventStore, frozen: WindowSet
) -> dict[str, Result]:
    """The result files of a kind about a set, by method, their rows in the order of the set's windows.

    run: the evaluation's, or one whose evaluation is finished.

    Raises `DataError` for a damaged file or labels and distributions of other classes, `MismatchError` for
    a file about other windows.
    """
    cases = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]
    classes = len(store.catalogue.behaviours)
    found = {}
    for need in run.needs or inputs_of(run, "evaluation"):
        asked, _, rest = need.partition("/")
        if asked == kind and rest.endswith(f"/{name}"):
            said = results.read(run.folder(need) / results.FILE)
            said = said.take(results.rows_of(said, frozen.fingerprint, cases))
            if kind == "predict":
                answers = {"label": said.label, "probability": said.probability}
                results.check_predictions(str(said.path), cases, answers, classes)
            found[rest.removesuffix(f"/{name}")] = said
    return found


def score_predictions(
    run: Run, store: EventStore, frozen: WindowSet, said: Mapping[str, Result]
) -> dict[str, Any]:
    """Metrics by method, with the interval of rec_w over people; BUA's has its differences to the others."""
    targets, people = store.behaviour[frozen.windows.end], frozen.windows.user
    groups, size = behaviour_groups(store), len(store.catalogue.behaviours)
    number, settings = len(np.unique(people)), run.config.evaluation
    drawn = resamples(number, settings.bootstrap, run.config.seed)
    found, resampled = {}, {}
    for name, one in said.items():
        counts = count(people, targets, one.label, size, one.probability)
        resampled[name] = _rec_w(counts, drawn)
        scored = {
            **summary(counts, groups),
            "invalid": int(np.sum(one.label < 0)),
            "rec_w_interval": interval(resampled[name]),
            "people": number,
            "fields": one.about["fields"],
        }
        told: dict[str, Any] = {"answered_by": one.answered_by} if one.answered_by else {}
        told |= {} if one.free_valid is None else {"free_valid": one.free_valid}
        found[name] = scored | one.about["facts"] | scored | told  # no fact takes a metric's place
    if "bua" in found:
        found["bua"]["against"] = {
            name: _difference(found["bua"], found[name], resampled["bua"] - resampled[name])
            for name in found
            if name != "bua"
        }
    return found


def _rec_w(counts: Counts, drawn: np.ndarray) -> np.ndarray:
    return metrics(counts.combined(drawn), {})["rec_w"]


def _difference(
    one: Mapping[str, Any], other: Mapping[str, Any], resampled: np.ndarray
) -> dict[str, float]:
    """Of two methods' rec_w on the same windows, with its 95 % interval over people."""
    low, high = interval(resampled)
    return {"difference": one["rec_w"] - other["rec_w"], "low": low, "high": high}


def reference_answers(said: Mapping[str, Result], targets: np.ndarray) -> list[dict[str, Any]]:
    """What reference answers for the first rounds change, wrong ones, and no rounds at all (Appendix J).

    Flips are counted against the model's own answers; none, where no such row was asked for.
    """
    rows = {f"first {k} given": f"bua_given{k}" for k in range(1, len(UNDERSTANDING) + 1)}
    rows |= {"another person's": "bua_given_another", "shuffled": "bua_given_shuffled"}
    rows |= {"none": "bua_no_rounds"}
    rows = {title: name for title, name in rows.items() if name in said}
    if "bua" not in said or not rows:
        return []
    right = {name: one.label == targets for name, one in said.items()}
    table = [{"rounds": "own answers", **flips(right["bua"], right["bua"])}]
    return table + [{"rounds": t, **flips(right["bua"], right[n])} for t, n in rows.items()]


def score_texts(
    store: EventStore, frozen: WindowSet, said: Mapping[str, Result]
) -> dict[str, dict[str, float]]:
    """How true what methods wrote about the histories is; of those whose answers were not given."""
    kind, index, shares = UNDERSTANDING[0], frozen.windows, training_shares(store)
    windows = [
        Window(history(store, start, end), store.catalogue, shares, str(start))
        for start, end in zip(index.start.tolist(), index.end.tolist(), strict=True)
    ]
    own = {name: one for name, one in said.items() if not METHODS[name].notes.by}
    written = {name: [texts.get(kind) for texts in one.texts] for name, one in own.items()}
    return {
        name: truth(windows, [text or "" for text in texts])
        for name, texts in written.items()
        if any(text is not None for text in texts)
    }


def written(
    run: Run, store: EventStore, predicted: Mapping[str, Result], test: WindowSet, frozen: WindowSet
) -> dict[str, list[str]]:
    """By method what it wrote about the windows of the set `texts`, all understanding rounds together.

    predicted: what was said about the set `test`, of which these windows are; where rounds were written
    there, nobody was asked again.
    """
    rows = np.searchsorted(test.windows.end, frozen.windows.end)
    said = {n: one.take(rows) for n, one in predicted.items() if not METHODS[n].notes.by}
    said |= said_of(run, "describe", "texts", store, frozen)
    texts = {
        name: [whole(text, UNDERSTANDING) for text in said[name].texts]
        for name in run.config.evaluation.methods
        if name in said
    }
    return {name: found for name, found in texts.items() if any(found)}


def score_understanding(
    run: Run, store: EventStore, frozen: WindowSet, texts: Mapping[str, list[str]]
) -> dict[str, Any]:
    """What methods wrote about people, held against their logs: rows (by method, and of `main` made false),
    against (main minus each row), ladder (of the texts of the row `of`). Empty where nobody wrote.

    texts: by method, about the windows of the set.
    """
    if not texts:
        return {}
    main = "bua" if "bua" in texts else [*texts][-1]
    names = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]
    about = subjects(store, frozen, training_shares(store), load_personas(run))
    made = placebos(texts[main], frozen.donor, names)
    every = {**texts, **{f"{main}, {title}": found for title, found in made.items()}}
    counts = {name: count_texts(frozen.windows.user, about, one) for name, one in every.items()}
    drawn = resamples(len(counts[main]), run.config.evaluation.bootstrap, run.config.seed)
    of = RULES if RULES in texts else main
    others = placebos(texts[of], frozen.donor, names)[OTHERS]
    some = np.unique(np.linspace(0, len(frozen) - 1, _RUNGS).astype(int))
    rungs = climb(
        frozen.windows.user[some],
        [about[row] for row in some],
        *([found[row] for row in some] for found in (texts[of], others, names)),
    )
    return {
        "main": main,
        "rows": {name: scored(one, drawn) for name, one in counts.items()},
        "against": {n: against(counts[main], c, drawn) for n, c in counts.items() if n != main},
        "ladder": {"of": of, "n": len(some), "rungs": rungs},
    }


def count_described(run: Run, store: EventStore, method: str) -> TextCounts:
    """What a method's descriptions of the sets `texts` and `edited` say, counted per person.

    Raises as `results.read` and `results.rows_of`.
    """

    def texts_of(name: str, frozen: WindowSet) -> list[str]:
        said = results.read(run.file(f"describe/{method}/{name}", results.FILE))
        cases = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]
        said = said.take(results.rows_of(said, frozen.fingerprint, cases))
        return [whole(text, UNDERSTANDING) for text in said.texts]

    frozen, changed = load_set(run, "texts", store), load_set(run, "edited", store)
    texts, after = texts_of("texts", frozen), texts_of("edited", changed)
    about = subjects(store, frozen, training_shares(store), load_personas(run))
    counts = count_texts(frozen.windows.user, about, texts)
    rows = np.searchsorted(frozen.windows.end, changed.windows.end)
    edits = [
        followed(about[row].ground, number, texts[row], text)
        for number, (row, text) in enumerate(zip(rows.tolist(), after, strict=True))
    ]
    return with_edits(counts, frozen.windows.user, rows, edits)


def score_days(
    run: Run, store: EventStore, frozen: WindowSet, said: Mapping[str, Result]
) -> dict[str, Any]:
    """Metrics of the days that methods generated."""
    if not len(frozen) or not said:
        return {"generation": {}}
    real = days_of(store, frozen)
    known = days_of(store, load_set(run, "days_train", store))
    made = {name: one.days for name, one in said.items()}
    scored = {n: generation_metrics(d, real, store.catalogue) for n, d in made.items()}
    return {
        "generation": {
            name: {side: scores[side] for side in sides_of(name) if side in scores}
            for name, scores in scored.items()
        },
        "originality": {n: originality(days, known) for n, days in {**made, "real": real}.items()},
    }


def sides_of(method: str) -> list[str]:
    """What of a method's days is its own, among `SIDES`: all else is a dash in the tables."""
    return [side for side, field in SIDES.items() if field in METHODS[method].about.writes]


def days_of(store: EventStore, frozen: WindowSet) -> list[Any]:
    """The target days of a set."""
    return [target_day(store, frozen.windows, row) for row in range(len(frozen))]


def build_evaluation(run: Run) -> dict[str, Any]:
    """Writes metrics.json into the step's folder."""
    store = load_store(run)
    test, days = load_set(run, "test", store), load_set(run, "days", store)
    said = said_of(run, "predict", "test", store, test)
    prediction = score_predictions(run, store, test, said)
    found = {
        "prediction": prediction,
        **score_days(run, store, days, said_of(run, "generate", "days", store, days)),
        "signature": signature(
            data=store.fingerprint,
            split=files.sha256_json(store.split.tolist()),
            test=test.fingerprint,
            decode=run.config.decoding.decode,
            invalid="wrong",
            bleu=bleu_signature(),
            seed=run.config.seed,
        ),
    }
    if texts := score_texts(store, test, said):
        found["texts"] = texts
    about = load_set(run, "texts", store)
    wrote = written(run, store, said, test, about)
    if understanding := score_understanding(run, store, about, wrote):
        found["understanding"] = understanding
    if oracle := reference_answers(said, store.behaviour[test.windows.end]):
        found["oracle"] = oracle
    classes, encoder = len(store.catalogue.behaviours), run.config.encoder.kind
    found["warnings"] = unread(prediction, classes, encoder)
    files.write_json(run.folder(run.step) / METRICS, found)
    return {name: {"rec_w": row["rec_w"]} for name, row in prediction.items()}
