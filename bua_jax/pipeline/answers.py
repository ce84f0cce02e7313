"""Answers to a file of histories, one JSON line each, kept as they are made."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError
from bua_jax.events.histories import read_histories
from bua_jax.events.schema import History
from bua_jax.pipeline import ray_shards
from bua_jax.pipeline.finished import load

PARTS = 8  # batches that are asked about before their answers are written

Ask = Callable[[Sequence[History], int], list[dict[str, Any]]]
"""(histories, index of the first in the whole file) -> an answer for each."""


def write_answers(
    output: str | Path,
    ids: Sequence[str],
    histories: Sequence[History],
    ask: Ask,
    *,
    identity: str,
    part: int,
) -> None:
    """Asks about `part` histories at a time and writes all answers, in order, to `output`.

    Finished parts are in OUTPUT.partial, so that an interrupted run goes on after them if its
    `identity` (input, model and settings) is the same; `output` appears when all are done.
    Raises `DataError` if it cannot write.
    """
    output = Path(output)
    partial = output.with_name(output.name + ".partial")
    lines = _finished(partial, identity)
    if lines:
        notice(
            f"{partial}: {len(lines)} of {len(histories)} histories are done; going on after them"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(line + "\n" for line in [json.dumps(identity), *lines])
        files.write_text(partial, text)
        with partial.open("a", encoding="utf-8") as file:
            for begin in range(len(lines), len(histories), part):
                some = histories[begin : begin + part]
                made = part_lines(ids[begin : begin + part], ask(some, begin))
                file.write("".join(line + "\n" for line in made))
                file.flush()
                lines += made
    except OSError as error:
        raise DataError(
            f"Could not write {partial}: {error.strerror or error}. {len(lines)} answers are finished; "
            "free disk space and run the same command again."
        ) from error
    files.write_text(output, "".join(line + "\n" for line in lines))
    partial.unlink()


def write_answers_on_ray(
    output: str | Path,
    work: Callable[[int, Path], None],
    parts: int,
    *,
    identity: str,
    **cluster: Any,
) -> None:
    """Writes what `write_answers` writes, each part a shard on a Ray cluster.

    work: writes the lines of a part (see `part_lines`). cluster: see `ray_shards.run_shards`. Finished
    parts are in OUTPUT.shards until all are; those of another `identity` are not used.
    """
    output = Path(output)
    folder = output.with_name(output.name + ".shards")
    finished = folder / files.sha256_text(identity)
    paths = ray_shards.run_shards(work, parts, finished, ".jsonl", **cluster)
    files.write_text(output, "".join(path.read_text(encoding="utf-8") for path in paths))
    ray_shards.remove_shards(folder)


def part_lines(ids: Sequence[str], answers: Sequence[dict[str, Any]]) -> list[str]:
    """A JSON line for each answer."""
    named = zip(ids, answers, strict=True)
    return [json.dumps({"id": i, **a}, ensure_ascii=False, allow_nan=False) for i, a in named]


def write_prediction_shard(
    folder: Path, refine: bool, mesh: str, source: Path, part: int, number: int, path: Path
) -> None:
    """Predicts the `number`-th `part` histories of the file `source` and writes their lines to `path`."""
    bua, ids, histories = _loaded(folder, refine, mesh, source)
    some = slice(number * part, (number + 1) * part)
    lines = part_lines(ids[some], bua.predict(histories[some]))
    files.write_text(path, "".join(line + "\n" for line in lines))


@functools.lru_cache(maxsize=1)  # once per worker
def _loaded(folder: Path, refine: bool, mesh: str, source: Path):
    bua = load(folder, refine=refine, mesh=mesh)
    return bua, *read_histories(source, bua.catalogue, bua.windows.prediction_history)


def _finished(partial: Path, identity: str) -> list[str]:
    """Whole lines of an earlier run with the same identity; a cut last line is dropped."""
    if not partial.is_file():
        return []
    *whole, _ = partial.read_text(encoding="utf-8", errors="replace").split("\n")
    if not whole or whole[0] != json.dumps(identity):
        notice(f"{partial} is of another input, model or setting; beginning anew")
        return []
    return whole[1:]
