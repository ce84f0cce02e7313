"""An experiment as data: rows that differ in some fields, seeds, columns, and what the paper claims of them.

A file in configs/experiments has `get_experiment(scale) -> Experiment`. Nothing here is built.
"""

import difflib
import functools
import re
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.rounds import TASKS
from bua_jax.evaluation.tables import DAY_METRICS, METRICS
from bua_jax.evaluation.understanding.score import METRICS as TEXT_METRICS
from bua_jax.experiments.paper import PUBLISHED
from bua_jax.methods.table import METHODS
from bua_jax.training.stage_table import STAGE_TABLE


class Kind(NamedTuple):
    """What an experiment's rows are asked: the set, and how answers are scored."""

    set: str
    main: str  # the metric of the family that p-values are corrected over; the others describe
    metrics: tuple[str, ...]
    counted: str  # what a score is of
    more: tuple[str, ...] = ()  # other sets that rows are asked about for the same scores


KINDS = {
    "predict": Kind("test", "rec_w", METRICS, "test windows"),
    "generate": Kind("days", "event_bleu", DAY_METRICS, "generated days"),
    "describe": Kind("texts", "recall", TEXT_METRICS, "described windows", ("edited",)),
}


@dataclass(frozen=True)
class Scale:
    """How large an experiment's cells are."""

    name: str
    config: str  # FILE[:KEY=VALUE,...] that rows change
    seeds: tuple[int, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)  # of that config, in all rows
    planned: bool = False  # never built here: hours and memory are printed


TINY: dict[str, Any] = configs.module_of("configs/scale/tiny.py").FIELDS
"""The quickstart in seconds, which learns nothing."""
SCALES = {
    "tiny": Scale("tiny", "configs/quickstart.py", (1, 2), TINY),
    "laptop": Scale("laptop", "configs/quickstart.py", (1, 2, 3, 4, 5)),
    "paper": Scale(
        "paper",
        "configs/curriculum.py:model=qwen2.5-7b,scale=paper,mesh=8",
        (1, 2, 3, 4, 5),
        planned=True,
    ),
}
"""For CI; two CPU cores, each table in at most 8 hours; the paper's 8 GPUs."""


@dataclass(frozen=True)
class Row:
    """A row of a table: how its runs differ from the scale's config, and which system is asked."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    method: str = "bua"  # of methods/table.py
    published: tuple[str, str] | None = None  # (table, row) of the paper
    note: str = ""
    trials: tuple[Mapping[str, Any], ...] = ()  # more fields; validation people choose one of them
    tried: tuple[Mapping[str, Any], ...] = ()  # what they said of each (`tuning.settled`)


@dataclass(frozen=True)
class Claim:
    """An ordering that the paper asserts: `above` is better than `below`."""

    above: str  # rows
    below: str
    metric: str = ""  # the experiment's main one; of curves, "first TASK" or "lowest TASK"


@dataclass(frozen=True)
class Experiment:
    """A table (`curves` is empty) or a picture of validation losses.

    columns: by default all metrics of its kind.
    """

    name: str
    title: str
    scale: Scale
    rows: tuple[Row, ...]
    reference: str  # the row that the others are held against
    claims: tuple[Claim, ...] = ()
    columns: tuple[str, ...] = ()
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by row: stages drawn
    asks: str = "predict"  # key of `KINDS`
    drawn: tuple[str, ...] = ()  # columns of which there is a picture

    @property
    def kind(self) -> Kind:
        return KINDS[self.asks]

    @property
    def shown(self) -> tuple[str, ...]:
        return self.columns or self.kind.metrics

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True)
class Cell:
    """A row with a seed: the config that it is made by, and the steps that it is read from."""

    row: Row
    seed: int
    config: ConfigDict
    steps: tuple[str, ...]
    fields: Mapping[str, Any]  # of the scale and of the row, which the config was changed by

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.seed}"


def load(argument: str) -> Experiment:
    """The experiment of `FILE[:scale=SCALE]`, a shipped file or one's own. Raises `ConfigError`."""
    path, _, arg = argument.partition(":")
    name = configs.parse_arg(arg, {"scale": "laptop"})["scale"]
    if name not in SCALES:
        raise ConfigError(f"scale={name!r} is none of {', '.join(SCALES)}.")
    configs.resolve(path)
    try:
        module = configs.module_of(path)
        made = getattr(module, "get_experiment", lambda scale: None)(SCALES[name])
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if Path(frame.filename).name == Path(path).name]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else "?"
        raise ConfigError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Experiment):
        raise ConfigError(
            f"{path} has no get_experiment(scale) that returns an Experiment. The shipped ones are in "
            "configs/experiments, for example configs/experiments/table4.py."
        )
    check(made)
    return made


def check(experiment: Experiment) -> None:
    """Raises `ConfigError` for rows, claims or columns that cannot be."""
    where = f"The experiment {experiment.name!r}"
    for kind, name in (("experiment", experiment.name), ("scale", experiment.scale.name)):
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name)):
            raise ConfigError(
                f"{where}: the {kind}'s name {name!r} is to be of letters, digits, _ and -."
            )
    _check_types(experiment, where)
    _check_rows(experiment, where)
    names = [row.name for row in experiment.rows]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{where} has several rows called {twice[0]!r}; give each its own name.")
    asked = [experiment.reference, *experiment.curves]
    asked += [name for claim in experiment.claims for name in (claim.above, claim.below)]
    if unknown := [name for name in asked if name not in names]:
        raise ConfigError(f"{where} speaks of {unknown[0]!r}, which is no row of it: {names}.")
    if experiment.asks not in KINDS:
        raise ConfigError(f"{where} asks={experiment.asks!r}, which is none of {', '.join(KINDS)}.")
    _check_columns(experiment, where)
    _check_trials(experiment, where)
    seeds = experiment.scale.seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where} has the seeds {seeds}: expected different ones, at least one.")
    if same := [claim.above for claim in experiment.claims if claim.above == claim.below]:
        raise ConfigError(f"{where} claims that {same[0]!r} is above itself.")
    _check_curves(experiment, where)


def _check_types(experiment: Experiment, where: str) -> None:
    """Raises `ConfigError` for what would be a traceback later, most of all a tuple without its comma."""
    parts: list[tuple[str, Any, type]] = [
        ("rows", experiment.rows, Row),
        ("claims", experiment.claims, Claim),
        ("columns", experiment.columns, str),
        ("scale.seeds", experiment.scale.seeds, int),
    ]
    if isinstance(experiment.rows, tuple):
        parts += [
            (f"trials of {row.name!r}", row.trials, Mapping)
            for row in experiment.rows
            if isinstance(row, Row)
        ]
    for name, value, kind in parts:
        if not isinstance(value, tuple) or not all(isinstance(one, kind) for one in value):
            raise ConfigError(
                f"{where}: {name}={value!r} is no tuple of {kind.__name__}; is a comma missing?"
            )


def _check_columns(experiment: Experiment, where: str) -> None:
    scored, columns = experiment.kind, experiment.shown
    if scored.main not in columns:
        raise ConfigError(
            f"{where} lacks the column {scored.main}, which rows are held against each other in."
        )
    if twice := [c for c, count in Counter(columns).items() if count > 1]:
        raise ConfigError(f"{where} has the column {twice[0]!r} twice.")
    if unseen := [c for c in experiment.drawn if c not in columns]:
        raise ConfigError(f"{where} draws {unseen[0]!r}, which is no column of it.")
    if wrong := [c for c in columns if c not in scored.metrics]:
        there = ", ".join(scored.metrics)
        raise ConfigError(f"{where} has the column {wrong[0]!r}; there are {there}.")
    ends = {f"{which} {task}" for which in ("first", "lowest") for task in TASKS}
    known = ends if experiment.curves else {"", *columns}
    if wrong := [claim.metric for claim in experiment.claims if claim.metric not in known]:
        raise ConfigError(f"{where} makes a claim about {wrong[0]!r}, which is no column of it.")


def _check_trials(experiment: Experiment, where: str) -> None:
    counts = {row.name: len(row.trials) for row in experiment.rows if row.trials}
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"{where} gives its rows other numbers of trials ({counts}): a table is fair where all that are "
            "tuned have as many."
        )
    if counts and (experiment.asks != "predict" or experiment.curves):
        raise ConfigError(
            f"{where} has trials, which are chosen by predictions, and asks for none."
        )
    for row in experiment.rows:
        if row.trials and METHODS[row.method].notes.by:
            raise ConfigError(
                f"{where}, row {row.name!r}: {row.method} reads what others wrote about each set, and of "
                "the one that chooses (`match`) nobody writes. Give it no trials."
            )
        if any("seed" in trial for trial in row.trials):
            raise ConfigError(f"{where}, row {row.name!r}: a trial sets no seed.")


def _check_curves(experiment: Experiment, where: str) -> None:
    curves = experiment.curves
    if curves and (lacking := [row.name for row in experiment.rows if row.name not in curves]):
        raise ConfigError(f"{where} says of the row {lacking[0]!r} no stages to draw.")
    for name, stages in curves.items():
        if wrong := [stage for stage in stages if stage not in STAGE_TABLE]:
            raise ConfigError(f"{where}, row {name!r}: there is no stage {wrong[0]!r} to draw.")


def _check_rows(experiment: Experiment, where: str) -> None:
    for row in experiment.rows:
        for what, text in (("name", row.name), ("note", row.note)):
            if not (isinstance(text, str) and text == text.strip() and text.isprintable()):
                raise ConfigError(
                    f"{where}: {text!r} is no {what} of a row: expected a line of text."
                )
        if not row.name:
            raise ConfigError(f"{where} has a row without a name.")
        for whose, fields in (("", row.fields), ("the scale's ", experiment.scale.fields)):
            own = ("seed", "evaluation.methods")
            wrong = not isinstance(fields, Mapping) or any(name in own for name in fields)
            if wrong or not all(isinstance(name, str) for name in fields):
                raise ConfigError(
                    f"{where}, row {row.name!r}: {whose}fields={fields!r}: expected config fields and their "
                    "values, without seed and evaluation.methods, which the experiment sets."
                )
        if not isinstance(row.method, str) or (
            row.method not in METHODS or experiment.asks not in METHODS[row.method].says
        ):
            raise ConfigError(
                f"{where}, row {row.name!r}: {row.method!r} is no method that {experiment.asks}s."
            )
        _check_published(experiment, row, f"{where}, row {row.name!r}")


def _check_published(experiment: Experiment, row: Row, where: str) -> None:
    if row.published is None:
        return
    if not isinstance(row.published, tuple) or row.published not in PUBLISHED:
        raise ConfigError(f"{where}: {row.published} is not in experiments/paper.py.")
    main = KINDS[experiment.asks].main if experiment.asks in KINDS else ""
    if not experiment.curves and main and PUBLISHED[row.published].value(main) is None:
        raise ConfigError(
            f"{where}: {row.published} has no {main}, which rows are held against each other in."
        )


def around(scale: Scale, name: str, factors: Sequence[float]) -> tuple[dict[str, Any], ...]:
    """Trials of a number of the scale's config: its own value times each factor."""
    path, _, arg = scale.config.partition(":")
    config = configs.based_on(path, arg)
    config.update_from_flattened_dict(dict(scale.fields))
    value: Any = functools.reduce(getattr, name.split("."), config)
    return tuple({name: type(value)(value * factor)} for factor in factors)


def cells(experiment: Experiment) -> list[Cell]:
    """Rows times seeds, in that order. Raises `ConfigError` for a row's field that is none."""
    path, _, arg = experiment.scale.config.partition(":")
    found = []
    for row in experiment.rows:
        for seed in experiment.scale.seeds:
            config = configs.based_on(path, arg)
            config.evaluation.methods = (row.method,)
            for fields in (experiment.scale.fields, row.fields, {"seed": seed}):
                _change(config, fields, f"The experiment {experiment.name}, row {row.name!r}")
            config.lock()
            sets = (experiment.kind.set, *experiment.kind.more)
            asked = tuple(f"{experiment.asks}/{row.method}/{name}" for name in sets)
            steps = experiment.curves.get(row.name) or asked
            fields = {**experiment.scale.fields, **row.fields}
            found.append(Cell(row, seed, config, steps, fields))
    return found


def chosen(every: Sequence[Cell], rows: Sequence[str], seeds: Sequence[str]) -> list[Cell]:
    """The cells of some rows and seeds; none given: of all. Raises `ConfigError` for what there is not."""
    names = {"row": {cell.row.name for cell in every}, "seed": {str(cell.seed) for cell in every}}
    for kind, given in (("row", rows), ("seed", seeds)):
        if unknown := [name for name in given if name not in names[kind]]:
            there = sorted(names[kind])
            near = difflib.get_close_matches(unknown[0], there, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(there)}."
            raise ConfigError(f"--{kind}s: there is no {kind} {unknown[0]!r}.{hint}")
    return [
        cell
        for cell in every
        if (not rows or cell.row.name in rows) and (not seeds or str(cell.seed) in seeds)
    ]


def named(every: Sequence[Cell], name: str) -> Cell:
    """The cell ROW/SEED. Raises `ConfigError` naming those that there are."""
    for cell in every:
        if cell.name == name:
            return cell
    there = ", ".join(cell.name for cell in every)
    raise ConfigError(f"--show={name!r}: there is no such cell; there are: {there}.")


def _change(config: ConfigDict, fields: Mapping[str, Any], where: str) -> None:
    """Sets dotted fields. Raises `ConfigError` for one that is none, and for a value of another type."""
    known = [*configs.settings(config, config)]
    for name, value in fields.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{where}: the config has no field {name!r}.{hint}")
        try:
            config.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {name}={value!r}: {error}") from error
