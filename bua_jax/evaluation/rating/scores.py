"""What judges sent back: read, held against the key, and scored."""

import codecs
import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation.differences import holm
from bua_jax.evaluation.rating.agreement import (
    Estimate,
    Pair,
    best_share,
    krippendorff_ordinal,
    over_items,
    paired,
)
from bua_jax.evaluation.rating.packets import ANCHORS, COLUMNS, CRITERIA, LEAST_ITEMS, SLOTS
from bua_jax.evaluation.report import Forest, Interval, Report, Section, write_report

_SEPARATORS = (",", ";", "\t")  # a spreadsheet's, by its language
_SHOWN = 80  # letters of a line that is not what it should be


@dataclass(frozen=True)
class Ratings:
    """`scores`: float[J, N, S, K], of J judges about N items' texts of S sources by K criteria."""

    scores: np.ndarray
    judges: tuple[str, ...]
    sources: tuple[str, ...]
    left_out: Mapping[str, str]  # judges, and why
    seed: int


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, values) of a file that a judge sent back."""
    text = _decoded(path.read_bytes())
    head = text.partition("\n")[0]
    between = max(_SEPARATORS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between)
    try:
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
            raise DataError(
                f"{path}, line 1: there is no column {missing[0]!r}; expected {', '.join(COLUMNS)}, with "
                f"commas, semicolons or tabs between them. The line is {head[:_SHOWN].strip()!r}."
            )
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. Save it as CSV in UTF-8."
        ) from error


def _decoded(data: bytes) -> str:
    """A table as programs save it; what is read of it is ASCII, whatever stands in its texts."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _score(path: Path, line: int, row: Mapping[str, str], criterion: str) -> int:
    said = (row[criterion] or "").strip()
    if said.removesuffix(".0") not in map(str, range(len(ANCHORS))):
        raise DataError(
            f"{path}, line {line}, column {criterion}: value {said!r}, expected a whole number from 0 to "
            f"{len(ANCHORS) - 1}. Every text of every item has a score."
        )
    return int(said.removesuffix(".0"))


def _read(
    path: Path, packets: Mapping[str, Any], sources: Sequence[str]
) -> tuple[str, dict[tuple[str, str], list[int]]]:
    """(judge, scores by item and slot) of a file. Raises `DataError` naming file, line and column."""
    rows = _rows(path)
    names = {said["packet"]: name for name, said in packets.items()}
    found: dict[tuple[str, str], list[int]] = {}
    lines: dict[tuple[str, str], int] = {}
    judges = set()
    for line, row in rows:
        if row["packet"] not in names:
            raise DataError(
                f"{path}, line {line}, column packet: value {row['packet']!r} is none of the key's "
                "packets. Give the key that was written with these packets."
            )
        judges.add(names[row["packet"]])
        at = row["item"], row["slot"]
        if at in found:
            raise DataError(f"{path}, line {line}: item {at[0]}, text {at[1]} stands twice.")
        lines[at] = line
        found[at] = [_score(path, line, row, criterion) for criterion in CRITERIA]
    if len(judges) != 1:
        raise DataError(f"{path} holds answers to {len(judges)} packets, expected one judge's.")
    (judge,) = judges
    slots = SLOTS[: len(sources)]
    asked = [(item, slot) for item in packets[judge]["items"] for slot in slots]
    for item, slot in asked:
        if (item, slot) not in found:
            raise DataError(f"{path}: item {item}, text {slot} is missing.")
    for at in found:
        if at not in asked:
            raise DataError(
                f"{path}, line {lines[at]}: the packet has no item {at[0]}, text {at[1]}."
            )
    return judge, found


def _careless(key: Mapping[str, Any], found: Mapping[tuple[str, str], list[int]]) -> str:
    """Why a judge is left out, or nothing: texts that ask for a score and did not get it."""
    asked = {(item, said["slot"]): said["expected"] for item, said in key.items() if "slot" in said}
    missed = [at for at, expected in asked.items() if set(found[at]) != {expected}]
    return f"missed {len(missed)} of {len(asked)} texts that ask for a score" if missed else ""


def _by_source(
    keyed: Mapping[str, Any],
    found: Mapping[tuple[str, str], list[int]],
    items: Sequence[str],
    sources: Sequence[str],
) -> np.ndarray:
    """float[N, S, K]: a judge's scores behind the blind; texts that ask for a score have none."""
    scores = np.full((len(items), len(sources), len(CRITERIA)), np.nan)
    for number, said in keyed.items():
        for slot, source in said.get("slots", {}).items():
            scores[items.index(said["id"]), sources.index(source)] = found[number, slot]
    return scores


def _check_there(key: Path, paths: Sequence[Path]) -> None:
    if not paths:
        raise ConfigError("--answers is missing: the files that judges sent back, with commas.")
    for path in (key, *paths):
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.")


def read_ratings(key: Path, paths: Sequence[Path]) -> Ratings:
    """What judges sent back, by source.

    Raises `ConfigError` for files that are not there, `DataError` for what is not whole or of another key.
    """
    _check_there(key, paths)
    said = files.read_sealed(key)
    sources, items, packets = said["sources"], said["items"], said["packets"]
    if len(items) < LEAST_ITEMS:
        raise DataError(f"{key} is of one item; differences are tested over {LEAST_ITEMS} or more.")
    scores, left_out = {}, {}
    for path in paths:
        judge, found = _read(path, packets, sources)
        if judge in scores or judge in left_out:
            raise DataError(f"{path}: the answers of {judge} were given twice.")
        keyed = packets[judge]["items"]
        if why := _careless(keyed, found):
            left_out[judge] = why
            continue
        scores[judge] = _by_source(keyed, found, items, sources)
    if not scores:
        raise DataError(
            f"No judge is left: {'; '.join(f'{j} {why}' for j, why in left_out.items())}."
        )
    return Ratings(
        np.stack([*scores.values()]), tuple(scores), tuple(sources), left_out, said["seed"]
    )


class Found(NamedTuple):
    """What is said of one criterion."""

    means: list[Estimate]  # by source
    best: list[Estimate]  # likewise: best shares
    alpha: Estimate
    pairs: dict[str, Pair]  # "a - b"


def _alpha(scores: np.ndarray, seed: int) -> Estimate:
    """Agreement of judges about texts; scores: float[J, N, S]. NaN of one judge."""
    judges, items, _ = scores.shape
    if judges == 1:
        return Estimate(math.nan, math.nan, math.nan)

    def measure(rows: np.ndarray) -> np.ndarray:
        return np.asarray([krippendorff_ordinal(scores[:, rows].reshape(judges, -1))])

    (found,) = over_items(measure, items, seed)
    return found


def score(ratings: Ratings) -> dict[str, Any]:
    """Means, best shares, paired differences and agreement, by criterion, as JSON values.

    Judges are averaged first, so that the interval is over items. Sign flips are two-sided, adjusted by Holm
    over all pairs of sources and criteria.
    """
    found = {criterion: _of(ratings, k) for k, criterion in enumerate(CRITERIA)}
    p = {f"{c} {name}": one.p for c, said in found.items() for name, one in said.pairs.items()}
    adjusted = holm(p)
    return {
        "items": ratings.scores.shape[1],
        "judges": list(ratings.judges),
        "left_out": dict(ratings.left_out),
        "criteria": {
            c: {
                "sources": {
                    source: {"mean": as_json(said.means[i]), "best_share": as_json(said.best[i])}
                    for i, source in enumerate(ratings.sources)
                },
                "alpha": as_json(said.alpha),
                "pairs": {
                    name: {
                        "difference": as_json(one.difference),
                        "p": one.p,
                        "p_holm": adjusted[f"{c} {name}"],
                        "items_needed": one.items_needed,
                        "detectable": None if np.isnan(one.detectable) else one.detectable,
                    }
                    for name, one in said.pairs.items()
                },
            }
            for c, said in found.items()
        },
    }


def _of(ratings: Ratings, criterion: int) -> Found:
    names, own = ratings.sources, ratings.scores.mean(0)[:, :, criterion]
    items, seed = len(own), ratings.seed
    means = over_items(lambda rows: own[rows].mean(0), items, seed)
    best = over_items(lambda rows: best_share(own[rows]), items, seed)
    pairs = {
        f"{names[a]} - {names[b]}": paired(own[:, a], own[:, b], seed)
        for a, b in itertools.combinations(range(len(names)), 2)
    }
    return Found(means, best, _alpha(ratings.scores[:, :, :, criterion], seed), pairs)


def write_scores(name: Path, said: Mapping[str, Any]) -> Report:
    """Writes NAME.json and NAME.html, and returns the latter's page."""
    return write_both(name, said, report(said))


def write_both(name: Path, said: Mapping[str, Any], page: Report) -> Report:
    """Writes NAME.json and NAME.html, a page, and returns that."""
    files.write_json(name.with_name(f"{name.name}.json"), said)
    write_report(name.with_name(f"{name.name}.html"), page)
    return page


def as_json(one: Any) -> dict[str, float] | None:
    """An estimate as JSON; None for what is of nothing."""
    return None if np.isnan(one.value) else one._asdict()


def shown(one: Mapping[str, float] | None, percent: bool = False) -> str:
    """An estimate with its interval; a dash for what is of nothing."""
    if one is None:
        return "-"
    scale = 100 if percent else 1
    value, low, high = (scale * one[name] for name in ("value", "low", "high"))
    return (
        f"{value:.1f} ({low:.1f} to {high:.1f})"
        if percent
        else f"{value:.2f} ({low:.2f} to {high:.2f})"
    )


def report(said: Mapping[str, Any]) -> Report:
    """What `score` found as a page."""
    criteria, judges = said["criteria"], len(said["judges"])
    rows = [
        [source, *(cell for c in criteria for cell in _of_source(criteria[c]["sources"][source]))]
        for source in next(iter(criteria.values()))["sources"]
    ]
    header = ("source", *(f"{c}{what}" for c in criteria for what in ("", ", best in %")))
    pairs = [
        [c, name, *_of_pair(one)] for c, of in criteria.items() for name, one in of["pairs"].items()
    ]
    agreed = [[c, shown(of["alpha"])] for c, of in criteria.items()]
    forests = [
        Forest(f"Differences in {c}", "points of 3", [_line(n, p) for n, p in of["pairs"].items()])
        for c, of in criteria.items()
    ]
    return Report(
        "Human evaluation",
        verdict=[f"{said['items']} items, {judges} judges; scores 0 to 3, judges averaged first."],
        forests=forests,
        warnings=[f"{judge} is left out: {why}." for judge, why in said["left_out"].items()],
        tables=[
            Section("Means and best shares", header, rows, said="Intervals: bootstrap over items."),
            Section(
                "Differences",
                (
                    "criterion",
                    "sources",
                    "difference",
                    "p",
                    "p, Holm",
                    "items needed",
                    "detectable",
                ),
                pairs,
                said="p: sign flips over items. Items needed: for 80 % power at this difference; detectable: "
                "by as many items as these.",
            ),
            Section("Agreement of judges", ("criterion", "Krippendorff's alpha, ordinal"), agreed),
        ],
    )


def _of_source(one: Mapping[str, Any]) -> tuple[str, str]:
    return shown(one["mean"]), shown(one["best_share"], percent=True)


def _of_pair(one: Mapping[str, Any]) -> list[str]:
    needed, least = one["items_needed"], one["detectable"]
    last = ["-" if needed is None else f"{needed:,}", "-" if least is None else f"{least:.2f}"]
    return [shown(one["difference"]), f"{one['p']:.3f}", f"{one['p_holm']:.3f}", *last]


def _line(name: str, one: Mapping[str, Any]) -> Interval:
    return Interval(name, *(one["difference"][of] for of in ("value", "low", "high")))
