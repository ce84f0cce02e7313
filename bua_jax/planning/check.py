"""What a file of events holds, and what would become of it, before anything is trained.

Everything is found through the readers that a run uses, so that what is said here is what a run would do.
"""

import dataclasses
import difflib
import itertools
import math
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.console import waiting
from bua_jax.basics.errors import BuaError, ConfigError, DataError
from bua_jax.evaluation.report import Picture, Section
from bua_jax.evaluation.tables import caution
from bua_jax.events.card import data_card, heat_map
from bua_jax.events.groups import training_shares
from bua_jax.events.readers import anonymised_mark, read_events
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import WEEKDAYS, EventStore
from bua_jax.events.spec import ROLES, DataSpec
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import check_events
from bua_jax.pipeline.steps import order
from bua_jax.planning.columns import (
    Guess,
    Layout,
    guess_columns,
    layout_of,
    plain_copy,
    sample_of,
    share_of,
)
from bua_jax.planning.estimate import memory_of

_ALIKE = 0.88  # of difflib's ratio, from which two labels may be one that was written in two ways
_COMPARED = 300  # labels, at most, that are held against each other


def _plain(label: str) -> str:
    """A label without what people write differently: case, accents' forms, spaces, punctuation."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return re.sub(r"[\W_]+", "", text) or text


def alike(shares: Mapping[str, float]) -> dict[str, str]:
    """Labels that look like another that is more frequent, and that one; shares: label -> share of events.

    They differ in case, spaces or punctuation alone, or in a letter or so of many.
    """
    ordered = sorted(shares, key=lambda label: -shares[label])[:_COMPARED]
    found: dict[str, str] = {}
    for first, second in itertools.combinations(ordered, 2):
        if first in found or second in found:
            continue
        a, b = _plain(first), _plain(second)
        digits = re.findall(r"\d+", first) == re.findall(r"\d+", second)  # b17 and b18 are two
        near = min(len(a), len(b)) >= 6 and difflib.SequenceMatcher(None, a, b).ratio() >= _ALIKE
        if a == b or (near and digits):
            found[second] = first
    return found


def _times(sample: pl.DataFrame, column: str) -> dict[str, Any]:
    """How a time column is written: whether with an offset from UTC, and how finely."""
    texts = sample[column].drop_nulls()
    clocks = texts.str.extract(r"[T ](\d{2}:\d{2})").drop_nulls()
    minutes = clocks.str.slice(3).cast(pl.Int32, strict=False)
    step = math.gcd(*minutes.unique().to_list()) if len(minutes) else None
    return {
        "column": column,
        "with_offset": round(share_of(texts, r"(Z|[+-]\d{2}:?\d{2})$"), 3),
        "minutes_apart": None if step is None else (step or 60),
    }


def _slots(sample: pl.DataFrame, columns: Mapping[str, str]) -> int:
    """24 where slots or hours are of whole hours, else 48."""
    if "slot" not in columns:
        return 24 if "hour" in columns else 48
    numbers = sample[columns["slot"]].cast(pl.Int64, strict=False).drop_nulls().to_numpy()
    return 24 if numbers.max(initial=0) < 24 else 48


def _spec(
    path: Path, layout: Layout, columns: Mapping[str, str], zone: str, sample: pl.DataFrame
) -> DataSpec:
    mark = anonymised_mark(path)
    return DataSpec(
        name="own" if path.stem == "simulated" else path.stem,  # the built-in population's name
        path=str(path),
        format=layout.format,
        columns=dict(columns),
        slots_per_day=mark["slots_per_day"] if mark else _slots(sample, columns),
        has_dates=bool({"time", "day"} & set(columns)),
        has_places="location" in columns,
        time_zone=zone,
    )


def _read(spec: DataSpec, report: BadRows) -> tuple[EventStore, str]:
    """The events, with bad rows left out, and what is said of the first of those, or nothing."""
    try:
        return read_events(spec, report), ""
    except DataError as error:
        skipping = dataclasses.replace(spec, on_bad_row="skip")
        report.counts.clear()
        report.null_words.clear()
        try:
            return read_events(skipping, report), str(error)
        except DataError:  # without any good row the first bad one says more
            raise error from None


def config_for(config: ConfigDict, spec: DataSpec) -> ConfigDict:
    """A run's config on that file."""
    own = config.copy_and_resolve_references()
    own.unlock()
    own.data = configs.part("data", "behavior")
    own.data.update(
        {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "columns"}
    )
    own.data.columns = ConfigDict({"split": "", **spec.columns})
    return own


def _guessed(layout: Layout) -> str:
    """What to know of letters where nothing says the encoding."""
    if layout.encoding not in ("cp1252", "latin-1"):
        return ""
    return (
        f" The file is no UTF-8 and is read as {layout.encoding}, which is a guess: if letters look wrong "
        "here, write it as UTF-8 first."
    )


def _columns(sample: pl.DataFrame, layout: Layout, given: Mapping[str, str]) -> list[Guess]:
    """`guess_columns`, which also says of names that cannot be told that their encoding is a guess."""
    try:
        return guess_columns(sample, given)
    except DataError as error:
        raise DataError(f"{error}{_guessed(layout)}") from error


def _in_flags(said: str) -> str:
    """What the readers say, with the flags of `check` and `fit` for fields of a config."""
    said = said.replace("--config.data.on_bad_row=skip", "`bua fit --skip_bad_rows`")
    said = said.replace("--config.data.time_zone=", "--time_zone=")
    return said.replace("--config.data.columns.", "--columns=")


def _model_says(config: ConfigDict, store: EventStore) -> tuple[list[str], list[str]]:
    """What the config's language model makes of the labels: (what keeps a run from working, what to know)."""
    from bua_jax.alignment.reading import read_base
    from bua_jax.decoding.labels import check_labels

    base, unread = read_base(config, store.catalogue.behaviours)
    try:
        check_labels(base.tokenizer, store.catalogue)
    except BuaError as error:
        return [str(error)], [unread] if unread else []
    return [], [unread] if unread else []


def minutes_of(config: ConfigDict, windows: int) -> dict[str, float]:
    """Minutes of each step on two cores, by the same guess that a run prints."""
    own = config.copy_and_resolve_references()
    own.windows.train = min(own.windows.train or windows, windows)
    steps = order("evaluation", own, STEPS)
    return {name: round(STEPS[name].minutes(own), 1) for name in steps}


@waiting("looking at the file")
def check(
    path: Path,
    columns: Mapping[str, str],
    config: ConfigDict,
    zone: str = "",
    *,
    memory: bool = False,
) -> dict[str, Any]:
    """What `bua check` prints, as JSON values; `config` says how much a run would do.

    columns: role -> column that were given; the others are guessed. zone: of times in UTC. memory: compile
    the stages' steps to say how much they take.
    Keys: path, layout, columns, unused, times, bad_rows, first_bad, card (see `data_card`), alike, problems,
    notes, minutes, gib (of the stages), config (of the data). Raises `DataError` for a file without an event.
    """
    layout = layout_of(path)
    sample = sample_of(path, layout)
    mark = anonymised_mark(path)
    guesses = [] if mark else _columns(sample, layout, columns)
    own_names = {name: name for name in layout.names if name in ROLES}
    mapped = {guess.role: guess.column for guess in guesses} or own_names
    report, copied = BadRows(), ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = read = _spec(path, layout, mapped, zone, sample)
            if not layout.as_read:
                copied = str(Path(folder) / "events.csv")
                plain_copy(path, layout, Path(copied))
                read = dataclasses.replace(spec, path=copied, format="csv")
            store, first_bad = _read(read, report)
        except (ConfigError, DataError) as error:  # there is no config yet, and maybe a copy
            said = str(error).replace(copied or str(path), str(path))
            raise type(error)(_in_flags(said)) from error
        first_bad = _in_flags(first_bad.replace(read.path, spec.path))
    card = data_card(store, report.duplicates)
    own = config_for(config, spec)
    problems, notes = _judged(own, store, layout, report, first_bad)
    few = caution({"people": card["splits"]["test"]["users_with_prediction_window"]})
    notes += [few] if few and not problems else []
    shares = np.bincount(store.behaviour, minlength=len(store.catalogue.behaviours)) / len(
        store.day
    )
    return {
        "path": str(path),
        "layout": {**dataclasses.asdict(layout), "names": list(layout.names)},
        "columns": [
            {**dataclasses.asdict(guess), "examples": list(guess.examples)} for guess in guesses
        ],
        "unused": [name for name in layout.names if name not in mapped.values()] if guesses else [],
        "times": _times(sample, mapped["time"]) if "time" in mapped else None,
        "bad_rows": report.counts,
        "first_bad": first_bad,
        "card": card,
        "alike": alike(dict(zip(store.catalogue.behaviours, shares.tolist(), strict=True))),
        "problems": problems,
        "notes": notes,
        "minutes": minutes_of(own, max(1, card["splits"]["train"]["prediction_windows"])),
        "gib": {stage: memory_of(own, stage) for stage in ("stage1", "stage2")} if memory else {},
        "config": configs.plain(own.data),
    }


def _judged(
    config: ConfigDict, store: EventStore, layout: Layout, report: BadRows, first_bad: str
) -> tuple[list[str], list[str]]:
    """(what keeps a run from working, what to know)."""
    problems, notes = _model_says(config, store)
    try:
        check_events(store, config.windows.min_history)
    except DataError as error:
        problems.append(_in_flags(str(error)))
    if first_bad:
        problems.append(first_bad)
    if not layout.as_read:
        how = f"separated by {layout.separator!r}, in {layout.encoding}"
        notes.append(
            f"The file is {how}: runs read UTF-8 with commas. `fit`, and --save=NAME here, write a copy so."
            f"{_guessed(layout)}"
        )
    if report.duplicates:
        notes.append(f"{report.duplicates:,} rows repeat an earlier one exactly; they are kept.")
    null_words = sorted(report.null_words)
    notes += [
        f"{said}, read as it stands; leave it empty where there is none." for said in null_words
    ]
    if report.mixed_clocks:
        notes.append("Some times have an offset from UTC and others none (--time_zone).")
    unseen = [
        b
        for b, share in zip(store.catalogue.behaviours, training_shares(store), strict=True)
        if share == 0
    ]
    if unseen:
        shown = ", ".join(map(repr, unseen[:5]))
        notes.append(f"{len(unseen)} labels occur in no training person's events: {shown}.")
    return problems, notes


def _about(found: Mapping[str, Any]) -> list[Sequence[Any]]:
    """Rows (what, value) on the file as a whole."""
    card, layout = found["card"], found["layout"]
    written = layout["format"]
    if layout["separator"]:
        written += f", separated by {layout['separator']!r}, {layout['encoding']}"
    about: list[Sequence[Any]] = [
        ("file", f"{found['path']} ({written})"),
        ("people", f"{card['users']:,}"),
        ("events", f"{card['events']:,}"),
        ("days spanned", card["days_spanned"] or "no dates"),
        ("events per person", _spread(card["events_per_user"])),
        ("events per active day", _spread(card["events_per_active_day"])),
        ("places per person", _spread(card["areas_per_user"])),
        ("gaps of unknown length", f"{card['gaps']:,}"),
        ("rows left out", f"{sum(found['bad_rows'].values()):,}"),
        *(("", f"{count:,}: {reason}") for reason, count in found["bad_rows"].items()),
    ]
    if found["unused"]:
        about.append(("columns that are not read", ", ".join(found["unused"])))
    if times := found["times"]:
        fine = (
            f"minutes are multiples of {times['minutes_apart']}"
            if times["minutes_apart"]
            else "epoch"
        )
        about.append(("times", f"{fine}; {times['with_offset']:.0%} with an offset from UTC"))
    return about


def sections(found: Mapping[str, Any]) -> list[Section]:
    """What was found as tables."""
    card = found["card"]
    columns = [
        (c["role"], c["column"], c["why"], ", ".join(c["examples"])) for c in found["columns"]
    ]
    splits = [(name, *(f"{v:,}" for v in part.values())) for name, part in card["splits"].items()]
    labels = [
        (group, label, f"{100 * share:.2f} %")
        for group, members in card["groups"].items()
        for label, share in sorted(members.items(), key=lambda item: -item[1])
    ]
    minutes: list[Sequence[Any]] = [
        (n, f"{m:.1f}") for n, m in found["minutes"].items() if m >= 0.1
    ]
    minutes.append(("together", f"{sum(found['minutes'].values()):.0f}"))
    tables: list[tuple[str, tuple[str, ...], list[Sequence[Any]]]] = [
        ("What it holds", ("", ""), _about(found)),
        ("Columns", ("field", "column", "because of", "values"), list(columns)),
        ("Splits by person", ("split", *next(iter(card["splits"].values()))), list(splits)),
        ("Labels (share of training people's events)", ("group", "label", "share"), list(labels)),
        ("Labels that may be one", ("label", "may be"), list(found["alike"].items())),
        ("Minutes on 2 CPU cores", ("step", "minutes"), minutes),
        (
            "Memory of arrays",
            ("stage", "GiB"),
            [(n, "not known" if gib is None else f"{gib:.2f}") for n, gib in found["gib"].items()],
        ),
    ]
    return [
        Section(
            title,
            tuple(h.replace("_", " ") for h in header),
            [[str(v) for v in row] for row in rows],
        )
        for title, header, rows in tables
        if rows
    ]


def picture(found: Mapping[str, Any]) -> Picture:
    """Events by weekday and hour."""
    from bua_jax.evaluation.plots import png  # matplotlib, which only the page needs

    counts = np.asarray(found["card"]["hour_by_weekday"])
    day, hour = np.unravel_index(np.argmax(counts), counts.shape)
    quiet = np.flatnonzero(counts.sum(0) == 0)
    finding = (
        f"Most events are on {WEEKDAYS[day]} from {hour}:00; {len(quiet)} hours of a day have none."
    )
    return Picture("Events by weekday and hour", png(heat_map(counts)), finding)


def _spread(values: Mapping[str, float] | None) -> str:
    if values is None:
        return "none"
    return f"median {values['median']:g}, {values['min']:g} to {values['max']:g}"
