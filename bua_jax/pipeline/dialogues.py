"""Step `dialogues`: reference answers by rules; those of understanding rounds by a teacher if asked."""

import dataclasses
import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bua_jax.basics import files
from bua_jax.basics.config import Settings, nested, settings
from bua_jax.basics.console import notice, out, progress
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.dialogue.store import provenance, read_dialogues, write_dialogues
from bua_jax.dialogue.tasks import Writer, build_stage2, cap_stage1, is_shortened, write_stage1
from bua_jax.dialogue.teacher import Teacher, annotation_question, answer_form, review_question
from bua_jax.evaluation.understanding.judged import untrue
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex, WindowSet, sample_id, sample_windows
from bua_jax.interop.openai_page import chat_of, check_page, said_cost
from bua_jax.parallel import ray_shards
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import load_set, step_of

SETS = ("train", "days_train", "validation", "days_validation")
FIELDS = (
    "seed",
    "dialogues.stage1_tasks",
    "dialogues.stage1_share",
    "dialogues.generation_share",
    "dialogues.nothing_share",
    "dialogues.annotator",
    "dialogues.rounds",
    "dialogues.shortened_share",
    "dialogues.target_time_revealed",
    "model.drill",
    "teacher",
)
"""What the step reads of the config, and the sets that it draws from."""
_OF_A_TOKEN = 6  # letters, of a draft that is not written yet: a word and its blank
SHARDS = 64  # blocks of people, at most, that workers share


def writer_of(config: Settings, store: EventStore) -> Writer:
    """The dialogue writer with the config's switches; statistics from training users only."""
    switches = config.dialogues
    return Writer(
        store,
        training_shares(store),
        rounds=switches.rounds,
        shortened_share=switches.shortened_share,
        target_time_revealed=switches.target_time_revealed,
        seed=config.seed,
        drill=config.model.drill,
    )


@dataclass(frozen=True)
class Portion:
    """Windows whose dialogues stand together in a file."""

    stage: int
    split: str
    task: str  # prediction or generation; "" in stage 1, where each window draws its own
    windows: WindowIndex


def portions(config: Settings, sets: Mapping[str, WindowSet]) -> list[Portion]:
    """All windows that dialogues are written about, drawn from the sets, in the order of the files."""
    found = []
    for split in ("train", "validation"):
        whole, days = sets[split].windows, sets[f"days_{split}"].windows
        first = max(1, round(len(whole) * config.dialogues.stage1_share))
        found.append(Portion(1, split, "", sample_windows(whole, first, config.seed)))
        generated = round(len(whole) * config.dialogues.generation_share)
        for task, windows, number in (
            ("prediction", whole, len(whole) - generated),
            ("generation", days, generated),
        ):
            if number:
                found.append(Portion(2, split, task, sample_windows(windows, number, config.seed)))
    return found


def load_sets(run: Run, store: EventStore) -> dict[str, WindowSet]:
    """The frozen sets that dialogues are drawn from."""
    return {name: load_set(run, name, store) for name in SETS}


def drafted(
    run: Run, store: EventStore, writer: Writer
) -> dict[str, tuple[WindowIndex, list[Window]]]:
    """By split the windows of which stage 3's summaries are drafted, and what is seen of each."""
    switches, found = run.config.dialogues, {}
    sizes = {"train": switches.reflect_train, "validation": switches.reflect_validation}
    for split, size in sizes.items():
        windows = sample_windows(load_set(run, split, store).windows, size, run.config.seed)
        seen = [
            writer.window(int(windows.start[i]), int(windows.end[i]), sample_id(store, windows, i))
            for i in range(len(windows))
        ]
        found[split] = windows, seen
    return found


def write_portion(
    config: Settings, writer: Writer, portion: Portion
) -> tuple[list[Dialogue], Counter[str]]:
    """A portion's dialogues, and windows left out by reason; none depends on another window."""
    if portion.stage == 1:
        tasks = tuple(config.dialogues.stage1_tasks)
        return write_stage1(writer, portion.windows, portion.split, tasks)
    items = build_stage2(writer, portion.task, portion.windows, portion.split)
    title = f"stage 2 {portion.task}, {portion.split}"
    found = list(progress(items, title, len(portion.windows)))
    missing = len(portion.windows) - len(found)
    return found, +Counter({"stage 2: no usable answer of the teacher": missing})


def annotated(writer: Writer, whole: Iterable[Portion]) -> dict[tuple[int, int], Window]:
    """The windows that understanding rounds are written about, by (start, end).

    Of stage 2, but for dialogues that are their final round alone.
    """
    found = {}
    for portion in (one for one in whole if one.stage == 2):
        windows = portion.windows
        for row in range(len(windows)):
            name, at = (
                sample_id(writer.store, windows, row),
                (int(windows.start[row]), int(windows.end[row])),
            )
            if not is_shortened(writer, name, portion.split):
                found[at] = writer.window(*at, name)
    return found


# ----------------------------------------------------------------------------------------- a teacher


def teacher_of(config: Settings) -> Teacher:
    """The model that `config.teacher` names. Raises `ConfigError` where it may not be asked."""
    return Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)


def say_counts(teacher: Teacher) -> None:
    """Says how many were asked, asked again, false and left out."""
    notice(f"the teacher: {', '.join(f'{n} {what}' for what, n in teacher.counts.items())}")


def check_teacher(config: Settings, steps: Collection[str]) -> None:
    """Raises `ConfigError` where a step would ask a teacher that may not be asked."""
    asks = {"dialogues": config.dialogues.annotator, "reflect": config.dialogues.reflect_critic}
    if any(step in steps and who == "teacher" for step, who in asks.items()):
        check_page(config.teacher, config.execution, "teacher")


def say_estimate(run: Run, build: Callable[[str], object]) -> None:
    """Prints what asking a teacher would take in all steps, having built those of `SETS` if it is asked."""
    config, asked = run.config, list[tuple[list[str], Callable[[], Any]]]()
    writes = config.dialogues.annotator == "teacher"
    criticises = config.dialogues.reflect_critic == "teacher" and 3 in config.stages
    if not (writes or criticises):
        out.print(
            "0 questions: no step asks a teacher. config.dialogues.annotator=teacher has it write the "
            "understanding rounds, config.dialogues.reflect_critic=teacher review the drafts of stage 3."
        )
        return
    for name in SETS:
        build(step_of(name))
    store = load_store(run)
    writer = writer_of(config, store)
    if writes:
        windows = annotated(writer, portions(config, load_sets(run, store))).values()
        asked.append(([*map(annotation_question, windows)], lambda: answer_form("annotation")))
    if criticises:
        draft = "x" * (_OF_A_TOKEN * config.decoding.max_new_tokens)
        both = drafted(run, store, writer).values()
        questions = [review_question(window, draft) for _, seen in both for window in seen]
        asked.append((questions, lambda: answer_form("review")))
    out.print(said_cost(asked, config.teacher, config.execution, "teacher"))


def _finish(
    run: Run, store: EventStore, written: Iterable[tuple[Portion, list[Dialogue], Counter[str]]]
) -> dict[str, Any]:
    """Caps stage 1, writes both files of what was written of each portion, and says what was left out."""
    config = run.config
    stages: dict[int, list[Dialogue]] = {1: [], 2: []}
    texts: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for portion, found, left_out in written:
        skipped += left_out
        if portion.stage == 1:
            share = config.dialogues.nothing_share
            found, left_out = cap_stage1(found, portion.split, share, config.seed)
            skipped += left_out
        stages[portion.stage] += found
    for reason, number in skipped.items():
        notice(f"left out {number} windows ({reason})")
    for stage, dialogues in stages.items():
        path = run.folder("dialogues") / f"stage{stage}.parquet"
        texts[f"stage{stage}"] = write_dialogues(path, dialogues, provenance(store))
    notice(f"dialogues: {len(stages[1])} of stage 1, {len(stages[2])} of stage 2")
    return {"stage1": len(stages[1]), "stage2": len(stages[2]), "texts": texts}


def build_dialogues(run: Run) -> dict[str, Any]:
    """Writes dialogues/stage1.parquet and dialogues/stage2.parquet (training and validation)."""
    store, counts = load_store(run), Counter[str]()
    writer = writer_of(run.config, store)
    chosen = portions(run.config, load_sets(run, store))
    if run.config.dialogues.annotator == "teacher":
        teacher = teacher_of(run.config)
        windows = annotated(writer, chosen)
        said = dict(zip(windows, teacher.annotate([*windows.values()]), strict=True))
        answers = {at: one for at, one in said.items() if one is not None}
        writer, counts = dataclasses.replace(writer, answers=answers), teacher.counts
        say_counts(teacher)
    written = ((portion, *write_portion(run.config, writer, portion)) for portion in chosen)
    return {**_finish(run, store, written), **({"teacher": dict(counts)} if counts else {})}


def build_dialogues_on_ray(run: Run, **cluster: Any) -> dict[str, Any]:
    """`build_dialogues` with the windows of a block of people as a shard; the files are the same.

    cluster: see `ray_shards.run_shards`. Finished shards are in dialogues/shards until all are.
    """
    if run.config.dialogues.annotator == "teacher":
        raise ConfigError(
            "config.dialogues.annotator='teacher' asks one host: --engine=ray has nothing to share out. "
            "Leave it out."
        )
    store = load_store(run)
    number, sets = min(SHARDS, len(store.users)), load_sets(run, store)
    values = settings(run.config, FIELDS)
    work = shard_work(values, run.workdir.resolve(), dict(run.places), number)
    folder = shard_folder(run, store, sets, number)
    paths = ray_shards.run_shards(work, number, folder, ".parquet", **cluster)
    whole = portions(run.config, sets)
    found: list[list[Dialogue]] = [[] for _ in whole]
    skipped = Counter[str]()
    places = {(portion.stage, portion.split, portion.task): i for i, portion in enumerate(whole)}
    for path in paths:
        for dialogue in read_dialogues(path, provenance(store)):
            task = dialogue.task if dialogue.stage == 2 else ""
            found[places[dialogue.stage, dialogue.split, task]].append(dialogue)
        skipped += Counter(json.loads(pq.read_schema(path).metadata[b"skipped"]))
    counted = [skipped, *(Counter[str]() for _ in whole[1:])]
    result = _finish(run, store, zip(whole, found, counted, strict=True))
    shutil.rmtree(run.folder("dialogues") / "shards", ignore_errors=True)
    return result


def shard_folder(run: Run, store: EventStore, sets: Mapping[str, WindowSet], number: int) -> Path:
    """Where the shards of this config, data, annotator, these windows and of that number lie."""
    drawn = {name: one.fingerprint for name, one in sets.items()}
    shaped = [settings(run.config, FIELDS), drawn, provenance(store), number]
    identity = files.sha256_json(shaped)
    return run.folder("dialogues") / "shards" / identity


def shard_work(
    config: dict[str, Any], workdir: Path, places: dict[str, str], shards: int
) -> ray_shards.Work:
    """What a worker does for a shard; paths are absolute, since workers start elsewhere."""
    return functools.partial(write_shard, config, workdir, places, shards)


def write_shard(
    config: dict[str, Any],
    workdir: Path,
    places: dict[str, str],
    shards: int,
    number: int,
    path: Path,
) -> None:
    """Writes the dialogues about the `number`-th of `shards` blocks of people to `path`."""
    run, store, writer, whole = _loaded(json.dumps([config, places]), workdir)
    users = np.array_split(np.arange(len(store.users)), shards)[number]
    found: list[Dialogue] = []
    skipped = Counter[str]()
    for portion in whole:
        first, stop = np.searchsorted(portion.windows.user, [users[0], users[-1] + 1])
        windows = portion.windows.take(np.arange(first, stop))
        written, left_out = write_portion(
            run.config, writer, dataclasses.replace(portion, windows=windows)
        )
        found += written
        skipped += left_out
    write_dialogues(path, found, {**provenance(store), "skipped": json.dumps(skipped)})


@functools.lru_cache(maxsize=1)  # once per worker
def _loaded(said: str, workdir: Path) -> tuple[Run, EventStore, Writer, list[Portion]]:
    config, places = json.loads(said)
    run = Run(nested(config), workdir, places=places)
    store = load_store(run)
    return run, store, writer_of(run.config, store), portions(run.config, load_sets(run, store))


def load_dialogues(run: Run, stage: str, store: EventStore) -> list[Dialogue]:
    """The dialogues that a stage is trained on; "joint" is all of them."""
    if stage == "joint":
        return [d for s in ("stage1", "stage2", "stage3") for d in load_dialogues(run, s, store)]
    step = "reflect" if stage == "stage3" else "dialogues"
    return read_dialogues(run.file(step, f"{stage}.parquet"), provenance(store))
