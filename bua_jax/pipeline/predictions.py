"""What methods say about the test sets: predictions by all of them, days by BUA; kept as they are made."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.ask import Bua
from bua_jax.alignment.encoder import load_encoder
from bua_jax.alignment.parts import assemble
from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.version import __version__
from bua_jax.dialogue.tasks import Writer, revealed_instruction, zero_shot_instruction
from bua_jax.evaluation import kept
from bua_jax.evaluation.kept import Predicted
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import EventStore, History
from bua_jax.events.windows import Day, WindowIndex, WindowSet, history, shown_id
from bua_jax.methods import lightgbm, neural
from bua_jax.methods.majority import fit_majority
from bua_jax.methods.markov import fit_markov
from bua_jax.methods.markov_counts import fit_markov_counts
from bua_jax.methods.protocol import Histories, Predictor, histories_of
from bua_jax.methods.window_majority import fit_window_majority
from bua_jax.models.encoders import EncoderConfig
from bua_jax.parallel import processes
from bua_jax.parallel.sharding import own_mesh
from bua_jax.pipeline.encoder import encoder_config, encoder_settings
from bua_jax.pipeline.stages import load_stage, previous_stage
from bua_jax.pipeline.steps import Run, read_record, recorded, settings
from bua_jax.pipeline.windows import draw, load_set

FIELDS = (
    "seed",
    "decoding",
    "encoder",
    "evaluation",
    "dialogues.rounds",
    "dialogues.generation_share",
    "dialogues.target_time_revealed",
    "model.drill",
    "windows.seed",
    "windows.min_history",
    "windows.prediction_history",
    "windows.generation_history",
    "methods.window_majority",
    "methods.markov",
    "methods.lightgbm",
    "methods.sasrec",
    "methods.encoder_adjusted",
)
"""What the step reads of the config."""
_BASELINES_READ = (
    "seed",
    "encoder",
    "evaluation.validation_windows",
    "evaluation.lightgbm_windows",
    "windows",
)
_PAGES = {"markov_counts": ("methods.markov", "methods.window_majority")}
"""Pages of methods that have none of their own name."""
_DAYS_READ = ("seed", "decoding", "dialogues.rounds")
PREDICTIONS_READ = (
    "decoding.max_new_tokens",
    "decoding.cache_dtype",
    "decoding.refine",
    "decoding.decode",
    "dialogues.rounds",
    "dialogues.target_time_revealed",
    "model.drill",
)
_FIELDS = ("weekday", "slot", "place", "behaviour")


@dataclasses.dataclass(frozen=True)
class Asked:
    """The test windows of predictions, in the forms that methods take."""

    frozen: WindowSet
    seen: Histories
    histories: list[History]
    targets: np.ndarray  # int16[n]
    final: list[str]  # instructions that ask for the next behaviour

    @property
    def windows(self) -> WindowIndex:
        return self.frozen.windows


def asked_of(run: Run, store: EventStore) -> Asked:
    """The frozen test windows of a run."""
    frozen = load_set(run, "test", store)
    seen, targets = histories_of(store, frozen.windows, run.config.windows.prediction_history)
    revealed, drill = run.config.dialogues.target_time_revealed, run.config.model.drill
    writer = Writer.of(store, target_time_revealed=revealed, drill=drill)
    final = [revealed_instruction(writer, int(end)) for end in frozen.windows.end]
    return Asked(frozen, seen, histories_of_windows(store, frozen.windows), targets, final)


def histories_of_windows(store: EventStore, windows: WindowIndex) -> list[History]:
    spans = zip(windows.start, windows.end, strict=True)
    return [history(store, int(start), int(end)) for start, end in spans]


def identity(run: Run, about: WindowSet, made_from: str, fields: Sequence[str]) -> str:
    """What is made of a set depends on: the set, a step, and fields that this step declares.

    A part in `fields` stands for those of its fields that are declared.
    """
    declared = settings(run.config, FIELDS)
    read = {n: v for n, v in declared.items() if any(f"{n}.".startswith(f"{f}.") for f in fields)}
    record = read_record(run, made_from)
    assert record is not None
    content = [about.fingerprint, record["id"], read, __version__]
    return files.sha256_json(content)


def final_stage(needs: Sequence[str]) -> str:
    """The last stage of the curriculum among the steps that are needed."""
    return [need for need in needs if need.startswith("stage")][-1]


# ----------------------------------------------------------------------------------- the methods


def predictor(run: Run, store: EventStore, name: str) -> Predictor:
    """A baseline, fitted on training users, stopped on validation users."""
    config, methods = run.config, run.config.methods
    length = config.windows.prediction_history
    classes, slots = len(store.catalogue.behaviours), store.catalogue.slots_per_day

    def windows(split: str, count: int) -> tuple[Histories, np.ndarray]:
        return histories_of(store, draw(config.windows, store, split, "prediction", count), length)

    def fit_folder(encoder: EncoderConfig) -> Path | None:
        """Where an encoder's fit goes on after a cut; nowhere in one of several processes, alone."""
        made_of = [
            encoder.to_json(),
            dataclasses.asdict(encoder_settings(config)),
            store.fingerprint,
        ]
        name = f"{encoder.kind}-{files.sha256_text(json.dumps(made_of))[:12]}"
        return None if processes.several() else run.folder("evaluation") / "fits" / name

    def encoder(kind: str) -> Predictor:
        trained, params, _ = load_encoder(run.folder("encoder"))
        if trained.kind == kind:
            return neural.from_encoder(trained, params, store)
        other = encoder_config(run.config, store.catalogue)
        width = methods.sasrec.dim if kind == "sasrec" else other.dim
        other = dataclasses.replace(other, kind=kind, dim=width)
        return neural.fit(other, store, encoder_settings(run.config), fit_folder(other))

    def held() -> tuple[Histories, np.ndarray]:
        return windows("validation", config.evaluation.validation_windows)

    def boosted() -> Predictor:
        training, settings = windows("train", config.evaluation.lightgbm_windows), methods.lightgbm
        return lightgbm.fit(training, held(), classes, slots, config.seed, settings)

    makers: dict[str, Callable[[], Predictor]] = {
        "majority": lambda: fit_majority(store),
        "window_majority": lambda: fit_window_majority(store, methods.window_majority),
        "markov": lambda: fit_markov(store, methods.markov),
        "markov_counts": lambda: fit_markov_counts(store, *held(), methods),
        "lightgbm": boosted,
        "sasrec": lambda: encoder("sasrec"),
        "behavegpt": lambda: encoder("behavegpt"),
    }
    return makers[name]()


def _baseline(run: Run, store: EventStore, asked: Asked, name: str) -> Predicted:
    notice(f"evaluation: fitting {name}")
    method = predictor(run, store, name)
    facts = {"fields": list(method.fields), "training_windows": method.num_training_windows}
    return Predicted(method.predict(asked.seen).astype(np.float64), facts=facts)


def bua_of(run: Run, stage: str, store: EventStore) -> Bua:
    """The model after a stage, as the config wants it asked."""
    config = run.config
    return Bua(
        load_stage(run, stage),
        config.decoding,
        training_shares(store),
        with_rounds=config.dialogues.rounds,
        refine=config.decoding.refine and stage == "stage3",
        seed=config.seed,
        batch=config.execution.decode_batch,
    )


def _bua(run: Run, store: EventStore, asked: Asked, stage: str) -> Predicted:
    bua, decode = bua_of(run, stage, store), run.config.decoding.decode
    log_p, said = bua.probabilities(asked.histories, asked.final, decode=decode)
    facts = {
        "fields": list(_FIELDS),
        "training_windows": dialogues_used(run, stage),
        "truncated_rounds": sum(u.truncated for u in said),
        "signature": bua.signature(decode),
    }
    return Predicted(np.exp(log_p).astype(np.float64), [u.texts for u in said], facts)


def zero_shot(run: Run) -> Bua:
    """The base as it comes: no trained adapter, no rounds, the history in words."""
    had, how = recorded(run, final_stage(run.needs)), run.config.execution
    model = ConfigDict({**had.model.to_dict(), "soft_tokens": "text", "adapter": ""})
    parts = assemble(model, how, run.folder("encoder"), had.seed, own_mesh(how.mesh))
    shares = np.zeros(len(parts.catalogue.behaviours))  # only the refine round's critic reads them
    batch = how.decode_batch
    return Bua(parts, run.config.decoding, shares, with_rounds=False, seed=had.seed, batch=batch)


def _zero_shot(run: Run, store: EventStore, asked: Asked) -> Predicted:
    final = [zero_shot_instruction(store.catalogue)] * len(asked.histories)
    log_p, _ = zero_shot(run).probabilities(asked.histories, final)
    facts = {"fields": list(_FIELDS), "training_windows": 0}
    return Predicted(np.exp(log_p).astype(np.float64), facts=facts)


def dialogues_used(run: Run, stage: str) -> int:
    """Training dialogues of a stage and of those before it."""
    record = read_record(run, stage)
    assert record is not None
    before = previous_stage(record["inputs"])
    own = record["result"].get("dialogues", 0)
    return own + (dialogues_used(run, before) if before else 0)


# ---------------------------------------------------------------------------- what they say


def predict_all(run: Run, store: EventStore, asked: Asked) -> dict[str, Predicted]:
    """What every method predicts for the same test windows, by name."""
    config, found = run.config, {}

    def add(name: str, step: str, fields: Sequence[str], make: Callable[[], Predicted]) -> bool:
        depends = identity(run, asked.frozen, step, fields)
        path = run.folder("evaluation") / "kept" / f"{name}.parquet"
        found[name], new = kept.predictions(path, depends, make)
        return new

    for name in config.evaluation.baselines:
        make = functools.partial(_baseline, run, store, asked, name)
        read = (*_BASELINES_READ, *_PAGES.get(name, (f"methods.{name}",)))
        add(name, "encoder", read, make)
    last = final_stage(run.needs)
    if config.evaluation.zero_shot:
        make = functools.partial(_zero_shot, run, store, asked)
        add("zero_shot", last, PREDICTIONS_READ, make)
    stages = [need for need in run.needs if need.startswith("stage") and need != "stage1"]
    names = {stage: f"bua_{stage}" for stage in stages} | {last: "bua"}
    names |= {need: "bua_joint" for need in run.needs if need == "joint"}
    for stage, name in names.items():
        make = functools.partial(_bua, run, store, asked, stage)
        if add(name, stage, PREDICTIONS_READ, make):
            _log_scoring(run, name, found[name].labels == asked.targets)
    return found


def _log_scoring(run: Run, name: str, correct: np.ndarray) -> None:
    """Appends to a log that tells how often test users were scored."""
    line: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "method": name}
    line |= {"rec_w": float(correct.mean()), "n": len(correct)}
    with open(run.folder("evaluation") / "test_log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def generate_all(run: Run, store: EventStore) -> tuple[list[dict[str, Any]], WindowSet]:
    """A day of BUA's for each window of the set `days`, as JSON values, and the set.

    None where the config's dialogues teach no generation.
    """
    frozen = load_set(run, "days", store)
    if not len(frozen) or not run.config.dialogues.generation_share:
        return [], frozen
    stage = final_stage(run.needs)

    def make() -> list[dict[str, Any]]:
        weekdays = store.weekday[frozen.windows.end].tolist()
        histories = histories_of_windows(store, frozen.windows)
        made, said, _ = bua_of(run, stage, store).days(histories, weekdays)
        return [
            {
                "sample_id": shown_id(store, frozen.windows, i),
                **dataclasses.asdict(one.day),
                "text": one.text,
                "invalid_pieces": one.invalid,
                "understanding": u.texts,
            }
            for i, (one, u) in enumerate(zip(made, said, strict=True))
        ]

    path = run.folder("evaluation") / "kept" / "days.json"
    return kept.values(path, identity(run, frozen, stage, _DAYS_READ), make), frozen


def day_of(values: dict[str, Any]) -> Day:
    """A day from the JSON values of `generate_all`."""
    events = (tuple(values[name]) for name in ("slot", "place", "behaviour"))
    return Day(values["weekday"], *events)
