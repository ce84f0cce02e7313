"""Answers to a file of histories, one JSON line each, kept as they are made.

They are made in parts: the last bits of a probability depend on what is decoded together (1.5e-5 nats
were seen between batches of 8 and of 64 in float32), so what is kept are whole parts, and a run that was
cut ends with the bytes of one that was not.
"""

import datetime
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from bua_jax.alignment.answer import Answer, Description, NextBehaviour, NextDay
from bua_jax.basics import files
from bua_jax.basics.begun import PARTIAL
from bua_jax.basics.claims import claimed
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import ConfigError, DataError, Interrupted
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.events.histories import People, read_histories
from bua_jax.events.schema import History
from bua_jax.parallel import ray_shards
from bua_jax.pipeline.finished import TABLES, load

PARTS = 2  # batches of a part: with one, more rows would wait for the longest answer
LINES = (".jsonl",)
SHARDS = ".shards"
BESIDE = (PARTIAL, SHARDS)  # endings of what is kept next to an output until it is whole
SECONDS = 30.0  # that a part may take

Ask = Callable[[Sequence[History], int], list[dict[str, Any]]]
"""(histories, index of the first in the whole file) -> an answer for each."""


def check_answers(output: str, source: str) -> None:
    """To be asked before anything is answered: whether `output` can be written, answers to `source`.

    A name without an ending is of JSON lines. Raises `ConfigError` as `files.check_output`, and for an ending
    of which there is no format.
    """
    files.check_output(output, source, beside=BESIDE)
    if Path(output).suffix not in ("", *LINES, *TABLES):
        formats = ", ".join((*LINES, *TABLES))
        raise ConfigError(f"--output={output} has none of the endings {formats}. Give it one.")


def write_answers(
    output: str | Path,
    ids: Sequence[str],
    histories: Sequence[History],
    ask: Ask,
    *,
    identity: str,
    part: int,
    take_over: bool = False,
) -> None:
    """Asks about `part` histories at a time and writes all answers, in order, to `output`.

    As JSON lines, or as a table where `output` has such an ending. Meanwhile it is claimed (see
    `basics.claims`, also for take_over).
    Finished parts are in OUTPUT.partial, so that an interrupted run goes on after them if its
    `identity` (input, model and settings) is the same; `output` appears when all are done. Where a
    part (but the first, which compiles) took longer than `SECONDS`, the next are half as large.
    Raises `ClaimedError` if another process writes it, `DataError` if it cannot be written, and
    `Interrupted` after the part at hand on SIGTERM or Ctrl-C.
    """
    with claimed(Path(output), take_over=take_over):
        _write_claimed(Path(output), ids, histories, ask, identity, part)


def _write_claimed(
    output: Path,
    ids: Sequence[str],
    histories: Sequence[History],
    ask: Ask,
    identity: str,
    part: int,
) -> None:
    partial = output.with_name(output.name + PARTIAL)
    parts = _finished(partial, identity)
    lines = [line for one in parts for line in one]
    if lines:
        notice(
            f"{partial}: {len(lines)} of {len(histories)} histories are done; going on after them"
        )
        part = len(parts[-1])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        kept = [_head(identity)]
        for one in parts:
            kept.append(_sealed(one, kept[-1]))
        files.write_text(partial, "".join(kept))
        last = kept[-1]
        with (
            partial.open("a", encoding="utf-8") as file,
            asked_to_stop(f"at most {part} more histories") as asked,
        ):
            for some, made in _made(ids, histories, ask, len(lines), part):
                last = _sealed(made, last)
                file.write(last)
                file.flush()
                lines += made
                if asked and some.stop < len(histories):
                    raise Interrupted(
                        asked[0],
                        f"{len(lines)} of {len(histories)} answers are kept in {partial}. Run the same "
                        "command again to go on after them.",
                    )
    except OSError as error:
        raise DataError(
            f"Could not write {partial}: {error.strerror or error}. {len(lines)} answers are finished; "
            "free disk space and run the same command again."
        ) from error
    if output.suffix in TABLES:
        write_table(output, lines)
    else:
        files.write_text(output, "".join(line + "\n" for line in lines))
    partial.unlink()


def _made(
    ids: Sequence[str], histories: Sequence[History], ask: Ask, begin: int, part: int
) -> Iterator[tuple[slice, list[str]]]:
    """(which, their lines) of part after part, from the history `begin` on."""
    first = begin
    while begin < len(histories):
        started = time.monotonic()
        some = slice(begin, begin + part)
        yield some, part_lines(ids[some], ask(histories[some], begin))
        if begin > first and time.monotonic() - started > SECONDS:
            part = max(1, part // 2)
        begin = some.stop


def write_answers_on_ray(
    output: str | Path,
    work: Callable[[int, Path], None],
    parts: int,
    *,
    identity: str,
    take_over: bool = False,
    **cluster: Any,
) -> None:
    """Writes what `write_answers` writes, each part a shard on a Ray cluster.

    work: writes the lines of a part (see `part_lines`). cluster: see `ray_shards.run_shards`. Finished
    parts are in OUTPUT.shards until all are; those of another `identity` are not used. `output` is
    claimed as there.
    """
    output = Path(output)
    folder = output.with_name(output.name + SHARDS)
    finished = folder / files.sha256_text(identity)
    with claimed(output, take_over=take_over):
        paths = ray_shards.run_shards(work, parts, finished, ".jsonl", **cluster)
        files.write_text(output, "".join(path.read_text(encoding="utf-8") for path in paths))
        shutil.rmtree(folder, ignore_errors=True)


def part_lines(ids: Sequence[str], answers: Sequence[dict[str, Any]]) -> list[str]:
    """A JSON line for each answer."""
    named = zip(ids, answers, strict=True)
    return [json.dumps({"id": i, **a}, ensure_ascii=False, allow_nan=False) for i, a in named]


def records(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers as JSON has them."""
    return [answer.record for answer in answers]


def check_shared(source: str, output: str, only: str) -> None:
    """Raises `ConfigError` for what shards on a cluster do not do."""
    if Path(source).suffix in TABLES or Path(output).suffix in TABLES or only or not output:
        raise ConfigError(
            "--engine=ray reads histories and writes answers as JSON lines, those of all people: give "
            "--input=FILE.jsonl and --output=FILE.jsonl."
        )


How = tuple[bool, str, str | None]
"""`finished.load`'s refine, mesh and weights."""


def write_prediction_shard(
    folder: Path, how: How, source: Path, part: int, number: int, path: Path
) -> None:
    """Predicts the `number`-th `part` histories of the file `source` and writes their lines to `path`."""
    bua, ids, histories = _loaded(folder, how, source)
    some = slice(number * part, (number + 1) * part)
    lines = part_lines(ids[some], records(bua.predict(histories[some])))
    files.write_text(path, "".join(line + "\n" for line in lines))


@functools.lru_cache(maxsize=1)  # once per worker
def _loaded(folder: Path, how: How, source: Path):
    refine, mesh, weights = how
    bua = load(folder, refine=refine, mesh=mesh, weights=weights)
    return bua, *read_histories(source, bua.catalogue, bua.windows.prediction_history)


def write_asked(output: str | Path, people: People, ask: Ask, **options: Any) -> None:
    """`write_answers` about people, in the words of their file."""

    def asked(some: Sequence[History], begin: int) -> list[dict[str, Any]]:
        return [
            in_own_words(people, begin + i, answer) for i, answer in enumerate(ask(some, begin))
        ]

    write_answers(output, people.ids, people.histories, asked, **options)


def in_own_words(people: People, number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """A generated day with its date and the names of places, as far as the person's file has them."""
    if "events" not in answer:
        return answer
    named = dict(answer)
    if people.dates:
        named["date"] = str(people.dates[number] + datetime.timedelta(days=1))
    if people.places:
        names = {f"L{rank}": name for rank, name in people.places[number].items()}
        named["events"] = [
            {
                **event,
                **(
                    {"place": names.get(event["place"], event["place"])} if "place" in event else {}
                ),
            }
            for event in answer["events"]
        ]
    return named


def as_table(answers: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Answers with a row for each: id, prediction, probability, then texts by round, probabilities as JSON.
    Descriptions have their id and texts alone.

    Answers with a day have a row for each of its events, a day without events one: id, weekday or date,
    prediction and probability where they were asked for, time, place, behaviour.
    """
    if answers and "events" in answers[0]:
        none = [{"time": None, "behaviour": None}]
        return pl.DataFrame(
            [
                {"id": a["id"], "date": a.get("date", a["weekday"]), **_first_columns(a), **event}
                for a in answers
                for event in a["events"] or none
            ],
            infer_schema_length=None,
        )
    return pl.DataFrame(
        [
            {"id": a["id"], **_first_columns(a), **a["understanding"], **_last_columns(a)}
            for a in answers
        ]
    )


def _first_columns(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "prediction" not in answer:
        return {}
    best = answer["prediction"]
    return {"prediction": best, "probability": answer["probabilities"][best]}


def _last_columns(answer: Mapping[str, Any]) -> dict[str, str]:
    if "probabilities" not in answer:
        return {}
    return {"probabilities": json.dumps(answer["probabilities"], ensure_ascii=False)}


def write_table(output: Path, lines: Sequence[str]) -> None:
    """Writes answers, a line of JSON each, as CSV, TSV or parquet, by the ending."""
    table = as_table([json.loads(line) for line in lines])
    with files.atomic_write(output) as temporary:
        if output.suffix == ".parquet":
            table.write_parquet(temporary)
        else:
            table.write_csv(temporary, separator="\t" if output.suffix == ".tsv" else ",")


def print_answers(people: People, answers: Sequence[Answer]) -> None:
    """What is said of each person, in the words of their file; of a single one the texts too."""
    for number, answer in enumerate(answers):
        said = in_own_words(people, number, answer.record)
        out.print(people.ids[number])
        table = Table(show_header=False, box=None)
        for row in _shown(answer, said):
            table.add_row(*row)
        out.print(table)
        if len(answers) == 1 or isinstance(answer, Description):
            out.print(str(Description(answer.understanding)))


def _shown(answer: Answer, said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows of the terminal's table: a day's events, or the likeliest labels with a bar."""
    if isinstance(answer, NextDay):
        none = "" if said["events"] else "no events"
        yield str(said.get("date", said["weekday"])), none, ""
        yield from (tuple(event.values()) for event in said["events"])
    likely = answer if isinstance(answer, NextBehaviour) else getattr(answer, "next", None)
    for label, share in likely.likely() if likely else ():
        yield label, f"{100 * share:.0f} %", "#" * round(40 * share)


def tell(
    people: People,
    ask: Callable[[Sequence[History], int], Sequence[Answer]],
    output: str,
    **options: Any,
) -> None:
    """Asks about people and prints what is said, or, with `output`, writes it (see `write_asked`)."""
    if not output:
        print_answers(people, ask(people.histories, 0))
        return
    write_asked(output, people, lambda some, begin: records(ask(some, begin)), **options)


def _head(identity: str) -> str:
    return json.dumps(identity) + "\n"


def _sealed(lines: Sequence[str], before: str) -> str:
    """The text of a part: its lines, and one with their number and a hash of them and of `before`.

    before: what precedes the part, of which the last line tells all.
    """
    text = "".join(line + "\n" for line in lines)
    last = before.removesuffix("\n").rpartition("\n")[2]
    return f"{text}{json.dumps([len(lines), files.sha256_text(last + text)])}\n"


def _finished(partial: Path, identity: str) -> list[list[str]]:
    """Lines of the whole parts of an earlier run with the same identity.

    A part that was cut or damaged, and what follows it, is made anew; that it is damaged is said.
    """
    if not partial.is_file():
        return []
    text, before = partial.read_text(encoding="utf-8", errors="replace"), _head(identity)
    if not text.startswith(before):
        notice(f"{partial} is of another input, model or setting; beginning anew")
        return []
    parts: list[list[str]] = []
    lines: list[str] = []
    *whole_lines, cut = text[len(before) :].split("\n")
    for line in whole_lines:
        if not line.startswith("["):
            lines.append(line)
            continue
        whole = _sealed(lines, before)
        if not lines or not whole.endswith(f"\n{line}\n"):
            notice(f"{partial} was altered or damaged in part {len(parts) + 1}; going on before it")
            break
        before = whole
        parts.append(lines)
        lines = []
    else:
        if lines or cut:
            notice(f"{partial} ends within part {len(parts) + 1}, which is made anew")
    return parts
