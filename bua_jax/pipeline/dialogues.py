"""Step `dialogues`: the rule-based annotator writes the reference answers of stages 1 and 2."""

from collections import Counter
from typing import Any

from bua_jax.console import notice, progress
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.dialogue.store import describe, read_dialogues, write_dialogues
from bua_jax.dialogue.tasks import Writer, build_stage1, build_stage2
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowIndex,
    generation_windows,
    prediction_windows,
    sample_windows,
)
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run


def writer_of(run: Run, store: EventStore) -> Writer:
    """The dialogue writer with the config's switches; statistics from training users only."""
    config = run.config.dialogues
    return Writer.of(
        store,
        rounds=config.rounds,
        shortened_share=config.shortened_share,
        target_time_revealed=config.target_time_revealed,
        seed=run.config.seed,
    )


def split_windows(run: Run, store: EventStore, split: str, task: str, count: int) -> WindowIndex:
    """`count` windows of a split for "prediction" or "generation", drawn by the config's seed."""
    config = run.config.windows
    if task == "prediction":
        windows = prediction_windows(
            store,
            split,
            history_length=config.prediction_history,
            min_history=config.min_history,
        )
    else:
        windows = generation_windows(
            store,
            split,
            history_length=config.generation_history,
            min_history=config.min_history,
        )
    return sample_windows(windows, count, run.config.seed)


def stage2_dialogues(run: Run, writer: Writer, split: str, count: int) -> list[Dialogue]:
    """Stage-2 dialogues about `count` windows of a split, the config's share of them ending in a day."""
    share = run.config.dialogues.generation_share
    everything = split_windows(run, writer.store, split, "prediction", count)
    generated = round(len(everything) * share)
    found: list[Dialogue] = []
    for task, number in (("prediction", len(everything) - generated), ("generation", generated)):
        if number:
            windows = split_windows(run, writer.store, split, task, number)
            items = build_stage2(writer, task, windows, split)
            found += progress(items, f"stage 2 {task}, {split}", len(windows))
    return found


def build_dialogues(run: Run) -> dict[str, Any]:
    """Writes dialogues/stage1.parquet and dialogues/stage2.parquet (training and validation)."""
    config, store = run.config, load_store(run)
    writer = writer_of(run, store)
    sizes = {"train": config.windows.train, "validation": config.windows.validation}
    stage1: list[Dialogue] = []
    stage2: list[Dialogue] = []
    skipped: Counter[str] = Counter()
    for split, count in sizes.items():
        total = len(split_windows(run, store, split, "prediction", count))
        number = max(1, round(total * config.dialogues.stage1_share))
        windows = split_windows(run, store, split, "prediction", number)
        found, left_out = build_stage1(
            writer,
            windows,
            split,
            tasks=tuple(config.dialogues.stage1_tasks),
            nothing_share=config.dialogues.nothing_share,
        )
        stage1 += found
        skipped += left_out
        stage2 += stage2_dialogues(run, writer, split, count)
    for reason, number in skipped.items():
        notice(f"stage 1: left out {number} windows ({reason})")
    folder, metadata = run.folder("dialogues"), describe(store)
    write_dialogues(folder / "stage1.parquet", stage1, metadata)
    write_dialogues(folder / "stage2.parquet", stage2, metadata)
    notice(f"dialogues: {len(stage1)} of stage 1, {len(stage2)} of stage 2")
    return {"stage1": len(stage1), "stage2": len(stage2)}


def load_dialogues(run: Run, stage: str, store: EventStore) -> list[Dialogue]:
    """The dialogues that a stage is trained on; "joint" is all of them."""
    if stage == "joint":
        return [d for s in ("stage1", "stage2", "stage3") for d in load_dialogues(run, s, store)]
    folder = run.folder("reflect" if stage == "stage3" else "dialogues")
    return read_dialogues(folder / f"{stage}.parquet", describe(store))
