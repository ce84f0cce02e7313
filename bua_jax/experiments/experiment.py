"""An experiment as data: rows that differ in some fields, seeds, columns, and what the paper claims of them.

A file in configs/experiments has `get_experiment(scale) -> Experiment`. Nothing here is built.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.evaluation.tables import METRICS
from bua_jax.experiments.paper import PUBLISHED
from bua_jax.methods.table import METHODS
from bua_jax.training.stage_table import STAGE_TABLE

LOWER_IS_BETTER = ("log_loss", "ece")


@dataclass(frozen=True)
class Scale:
    """How large an experiment's cells are."""

    config: str  # FILE[:KEY=VALUE,...] that rows change
    seeds: tuple[int, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)  # of that config, in all rows
    planned: bool = False  # never built here: hours and memory are printed


TINY = {
    "data.num_users": 30,
    "data.num_days": 21,
    "windows.train": 120,
    "windows.validation": 16,
    "windows.fit_train": 1000,
    "windows.fit_validation": 200,
    "windows.match": 16,
    "windows.test": 40,
    "windows.generation_test": 3,
    "encoder.epochs": 1,
    "dialogues.reflect_train": 16,
    "dialogues.reflect_validation": 4,
    "stage1.max_steps": 2,
    "stage2.max_steps": 2,
    "stage3.max_steps": 2,
    "joint.max_steps": 2,
    "decoding.max_new_tokens": 16,
    "execution.decode_batch": 16,
    "methods.lightgbm.rounds": 5,
    "evaluation.bootstrap": 200,
}
"""The quickstart in seconds, which learns nothing."""
SCALES = {
    "tiny": Scale("configs/quickstart.py", (1, 2), TINY),
    "laptop": Scale("configs/quickstart.py", (1, 2, 3, 4, 5)),
    "paper": Scale("configs/curriculum.py:model=qwen2.5-7b,mesh=8", (1, 2, 3, 4, 5), planned=True),
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


@dataclass(frozen=True)
class Claim:
    """An ordering that the paper asserts: `above` is better than `below`."""

    above: str  # rows
    below: str
    metric: str = "rec_w"


@dataclass(frozen=True)
class Experiment:
    """A table (`curves` is empty) or a picture of validation losses."""

    name: str
    title: str
    scale: Scale
    rows: tuple[Row, ...]
    reference: str  # the row that the others are held against
    claims: tuple[Claim, ...] = ()
    columns: tuple[str, ...] = METRICS
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by row: stages drawn

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True)
class Cell:
    """A row with a seed: the config that it is made by, and the steps that it is read from."""

    row: Row
    seed: int
    config: ConfigDict
    steps: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.seed}"


def load(argument: str) -> Experiment:
    """The experiment of `FILE[:scale=SCALE]`, a shipped file or one's own. Raises `ConfigError`."""
    path, _, arg = argument.partition(":")
    name = configs.parse_arg(arg, {"scale": "laptop"})["scale"]
    if name not in SCALES:
        raise ConfigError(f"scale={name!r} is none of {', '.join(SCALES)}.")
    module = configs.module_of(path)
    if not hasattr(module, "get_experiment"):
        raise ConfigError(
            f"{path} has no get_experiment(scale), so it is no experiment. The shipped ones are in "
            "configs/experiments, for example configs/experiments/table4.py."
        )
    experiment = module.get_experiment(SCALES[name])
    check(experiment)
    return experiment


def check(experiment: Experiment) -> None:
    """Raises `ConfigError` for rows, claims or columns that cannot be."""
    where = f"The experiment {experiment.name}"
    names = [row.name for row in experiment.rows]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{where} has several rows called {twice[0]!r}; give each its own name.")
    asked = [experiment.reference, *experiment.curves]
    asked += [name for claim in experiment.claims for name in (claim.above, claim.below)]
    if unknown := [name for name in asked if name not in names]:
        raise ConfigError(f"{where} speaks of {unknown[0]!r}, which is no row of it: {names}.")
    if wrong := [c for c in experiment.columns if c not in METRICS]:
        raise ConfigError(f"{where} has the column {wrong[0]!r}; there are {', '.join(METRICS)}.")
    if wrong := [c.metric for c in experiment.claims if c.metric not in experiment.columns]:
        raise ConfigError(f"{where} makes a claim about {wrong[0]!r}, which is no column of it.")
    seeds = experiment.scale.seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where} has the seeds {seeds}: expected different ones, at least one.")
    for name, stages in experiment.curves.items():
        if wrong := [stage for stage in stages if stage not in STAGE_TABLE]:
            raise ConfigError(f"{where}, row {name!r}: there is no stage {wrong[0]!r} to draw.")
    _check_rows(experiment, where)


def _check_rows(experiment: Experiment, where: str) -> None:
    for row in experiment.rows:
        if row.method not in METHODS or "predict" not in METHODS[row.method].says:
            raise ConfigError(
                f"{where}, row {row.name!r}: {row.method!r} is no method that predicts."
            )
        if row.published is not None and row.published not in PUBLISHED:
            raise ConfigError(
                f"{where}, row {row.name!r}: {row.published} is not in experiments/paper.py."
            )


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
            steps = experiment.curves.get(row.name) or (f"predict/{row.method}/test",)
            found.append(Cell(row, seed, config, steps))
    return found


def chosen(every: Sequence[Cell], rows: Sequence[str], seeds: Sequence[str]) -> list[Cell]:
    """The cells of some rows and seeds; none given: of all. Raises `ConfigError` for what there is not."""
    names = {"row": {cell.row.name for cell in every}, "seed": {str(cell.seed) for cell in every}}
    for kind, given in (("row", rows), ("seed", seeds)):
        if unknown := [name for name in given if name not in names[kind]]:
            there = ", ".join(sorted(names[kind]))
            raise ConfigError(f"--{kind}s: there is no {kind} {unknown[0]!r}; there are: {there}.")
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
