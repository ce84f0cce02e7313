"""What a workdir has, lacks or holds stale, and the step that comes next.

A step is a folder of the workdir with a `record.json`, written last: the fields that it declared, the
steps that it needed and their ids, hashes of the files that it was made from and of those that it wrote,
how it was executed, versions and seconds, and a hash over all this. It reads the config through a `View`
of those fields, and finds the folders of the steps that it needs and no others. A step without a record
is unfinished and is built (or resumed), by one process at a time; one whose record says something else
than the config is an error that names both values, or is built again where that is cheap (`Step.renew`).
Several processes train a stage together; the others wait for what the first one builds alone.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import begun, files
from bua_jax.basics.claims import claimed
from bua_jax.basics.config import Settings, View, nested, plain, settings
from bua_jax.basics.console import LATE, notice, waiting
from bua_jax.basics.environment import forget_peak, hardware, peak_gib, versions
from bua_jax.basics.errors import ConfigError, DataError, MismatchError, UndeclaredError
from bua_jax.parallel import processes

RECORD = "record.json"
COMMAND = "run.json"
EXECUTION = "execution"  # the part of the config that says how and not what: recorded, not compared
_PARTS = ("settings", "inputs", "sources", EXECUTION, "folders", "files", "result", "config")


@dataclass(frozen=True)
class Run:
    """A config and the folder that its results go to; the run of a step shows it what it declared."""

    config: Settings
    workdir: Path
    step: str = ""  # the step whose run it is; empty: nobody's, which sees everything
    needs: tuple[str, ...] = ()  # what that step is built from
    take_over: bool = False  # whether claims of processes on other hosts are
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)  # see `keyed`

    def folder(self, step: str) -> Path:
        """Where a step lies. Raises `UndeclaredError` for one that this run's step does not need."""
        if self.step and step not in (self.step, *self.needs):
            raise UndeclaredError(
                f"The step {self.step} reads the step {step}, which it does not need; it needs "
                f"{', '.join(self.needs) or 'none'}."
            )
        return self.workdir / self.places.get(step, step)

    def file(self, step: str, name: str) -> Path:
        """A file of a step. Raises `DataError` if a finished step wrote another."""
        record = read_record(self, step)
        if altered := record and _altered(self.folder(step), record, name):
            raise DataError(altered)
        return self.folder(step) / name


def no_sources(config: View) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Step:
    """One folder of a workdir."""

    name: str
    about: str  # what a person reads when it starts
    fields: tuple[str, ...]  # of the config, or whole parts: all that shapes the result
    needs: Callable[[ConfigDict], tuple[str, ...]]  # steps it is built from
    build: Callable[[Run], dict[str, Any]]  # does it; returns what the record should also say
    minutes: Callable[[ConfigDict], float]  # rough expectation on 2 CPU cores
    together: bool = False  # whether all processes build it, or the first alone
    sources: Callable[[View], Mapping[str, str]] = no_sources  # field: file or folder that it names
    renew: bool = False  # built again, not refused, where the config says something else
    files: tuple[str, ...] = ()  # of its folder, which others read: its record has their hashes
    computes: bool = True  # with jax, so that its numbers are those of a device
    numbers: tuple[str, ...] = ()  # fields of `execution` that stay while it is half built

    def view(self, config: ConfigDict) -> View:
        return View(config, (*self.fields, EXECUTION), f"The step {self.name}")

    def run(self, run: Run) -> Run:
        """`run` as the step sees it. Raises `UndeclaredError` for what is not a run of everything."""
        if isinstance(run.config, View):
            raise UndeclaredError(
                f"The step {self.name} needs a config, not the view of {run.step}."
            )
        config, needs = self.view(run.config), self.needs(run.config)
        return Run(config, run.workdir, self.name, needs, places=run.places)


# ------------------------------------------------------------------------------- fields and keys


def source_hashes(step: Step, config: ConfigDict) -> dict[str, str | None]:
    """By config field the hash of the file or folder that it names; None where there is none."""
    named = step.sources(step.view(config))
    return {field: files.sha256_of(Path(path)) for field, path in sorted(named.items())}


def key(
    name: str,
    config: ConfigDict,
    table: Mapping[str, Step],
    known: dict[str, str] | None = None,
) -> str:
    """What a step will be, before anything is built: equal keys are equal results.

    A hash of the fields that it declares, the keys of the steps that it needs, and the content of the
    files that it is made from (a data file, a base's weights). Where a result lies may follow from it.
    known: keys of the same config that need not be found again; those found are added.
    """
    known = {} if known is None else known
    if name not in known:
        step = table[name]
        needs = {need: key(need, config, table, known) for need in step.needs(config)}
        sources = source_hashes(step, config)
        known[name] = files.sha256_json([name, settings(config, step.fields), needs, sources])
    return known[name]


def keyed(run: Run, table: Mapping[str, Step]) -> Run:
    """The run with each step at steps/NAME/KEY, where runs of other configs find those that they share."""
    assert isinstance(run.config, ConfigDict)
    known: dict[str, str] = {}
    places = {n: f"steps/{n}/{key(n, run.config, table, known)}" for n in table}
    return dataclasses.replace(run, places=places)


# ---------------------------------------------------------------------------------------- records


def record_in(folder: Path) -> dict[str, Any] | None:
    """The record of the step in `folder`, or None if it is not finished.

    Raises `DataError` for a damaged one.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return files.read_sealed(path)
    except DataError as error:
        raise DataError(f"{error} {_ANEW.format(folder)}") from error


def read_record(run: Run, step: str) -> dict[str, Any] | None:
    """`record_in` of a step's folder."""
    return record_in(run.folder(step))


_ANEW = "Bring it back, or build it anew after: rm -r {} (and the steps that follow from it)."


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Raises `DataError` if the files of a finished step are not those that it wrote."""
    for name in record["files"]:
        if altered := _altered(folder, record, name):
            raise DataError(altered)


def _altered(folder: Path, record: Mapping[str, Any], name: str) -> str:
    """What is wrong with a file of a finished step, and what to do; empty if nothing is."""
    path, before = folder / name, record["files"].get(name)
    now = files.sha256_of(path)
    if before in (None, now):
        return ""
    found = "it is not there" if now is None else f"its hash is {now}, and was {before}"
    return f"{path} is not the file that the step {record['step']} wrote: {found}. {_ANEW.format(folder)}"


def recorded(run: Run, step: str) -> ConfigDict:
    """The fields that a finished step declared, with the values that it was built with."""
    return nested(_record(run, step)["settings"])


def result_of(run: Run, step: str) -> dict[str, Any]:
    """What the builder of a finished step says of it."""
    return _record(run, step)["result"]


def inputs_of(run: Run, step: str) -> tuple[str, ...]:
    """The steps that a finished one was built from."""
    return tuple(_record(run, step)["inputs"])


def difference(run: Run, step: Step, record: dict[str, Any]) -> str:
    """How a finished step differs from what the config asks for, and what to do; empty if it does not.

    A step that it needs and that is not there is no difference yet: it may come out the same again.
    Raises `MismatchError` for a record of an older version, which does not say enough.
    """
    assert isinstance(run.config, ConfigDict)
    folder = run.folder(step.name)
    had = check_version(folder, record)["settings"]
    anew = f"build it anew after: rm -r {folder} (and the steps that follow from it)."
    wanted = settings(run.config, step.fields)
    for name in (name for name in wanted if name in had):
        if had[name] != wanted[name]:
            return (
                f"{folder} was built with {name}={had[name]!r}, but the config says {wanted[name]!r}. "
                f"Keep it with --config.{name}={had[name]!r}, start another run with "
                f"--workdir=runs/NAME, or {anew}"
            )
    if lacking := sorted(wanted.keys() - had.keys()):
        raise _of_another_version(folder, record, f"config.{lacking[0]}")
    for name in sorted(had.keys() - wanted.keys()):
        return (
            f"{folder} was built with {name}={had[name]!r}, which the config does not have; {anew}"
        )
    needs = step.needs(run.config)
    lost = [f"from {need}" for need in record["inputs"] if need not in needs]
    lost += [f"without {need}" for need in needs if need not in record["inputs"]]
    if lost:
        return (
            f"{folder} was built {' and '.join(lost)}, but the config asks for the reverse; {anew}"
        )
    for need, identity in record["inputs"].items():
        current = read_record(run, need)
        if current is not None and current["id"] != identity:
            return (
                f"{folder} was built from {need} {identity}, but {run.folder(need)} is now "
                f"{current['id']}. Build it anew: rm -r {folder}, then run the same command again."
            )
    for field, now in source_hashes(step, run.config).items():
        before = record["sources"].get(field)
        if now is not None and now != before:  # what is not there any more is not needed any more
            return (
                f"{folder} was built from another config.{field}: its content was {before} and is "
                f"{now}. Bring it back, start another run with --workdir=runs/NAME, or {anew}"
            )
    wanted_files = step.files if step.renew else ()  # which an earlier version wrote elsewhere
    lost = [f"{folder} lacks {n}; {anew}" for n in wanted_files if not (folder / n).is_file()]
    return next(filter(None, (*lost, *(_altered(folder, record, n) for n in record["files"]))), "")


def check_version(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a finished step. Raises `MismatchError` for one that lacks parts which are read."""
    if not {*_PARTS} <= record.keys():
        raise _of_another_version(folder, record, "what shaped it and what did not")
    return record


def _of_another_version(folder: Path, record: dict[str, Any], what: str) -> MismatchError:
    made_by = record.get("versions", {})
    return MismatchError(
        f"{folder} was built by version {made_by.get('bua_jax')} (git {made_by.get('git')}), whose "
        f"records do not say {what}. Use that version with it, or start another run with "
        "--workdir=runs/NAME."
    )


def order(name: str, config: ConfigDict, table: Mapping[str, Step]) -> list[str]:
    """The steps up to `name`, in the order in which they are built."""
    before = (one for need in table[name].needs(config) for one in order(need, config, table))
    return [*dict.fromkeys([*before, name])]


def outline(run: Run, name: str, table: Mapping[str, Step]) -> dict[str, bool]:
    """The steps of `order`, and whether each is finished.

    Raises `MismatchError` for a finished one that is not what the config asks for, and for a half-built
    one that was begun otherwise.
    """
    assert isinstance(run.config, ConfigDict)
    found: dict[str, bool] = {}
    for step in map(table.__getitem__, order(name, run.config, table)):
        found[step.name] = _is_finished(run, step)
        if not found[step.name]:
            begun.check(run.folder(step.name), _go(run, step, here=False))
    return found


def _is_finished(run: Run, step: Step) -> bool:
    """Whether it is, as the config asks for it. Raises `MismatchError` if otherwise, unless it is renewed."""
    record = read_record(run, step.name)
    other = difference(run, step, record) if record is not None else ""
    if other and not step.renew:
        raise MismatchError(other)
    return record is not None and not other


# --------------------------------------------------------------------------------------- building


def ensure(run: Run, name: str, table: Mapping[str, Step]) -> None:
    """Builds the step `name`, and before it whatever it needs that the workdir lacks.

    Raises `MismatchError` for a finished step that is not what the config asks for: before anything is
    built, unless it is a step built anew that comes out otherwise.
    """
    if name not in table:
        raise ConfigError(f"There is no step {name!r}; there are: {', '.join(table)}.")
    for one, finished in outline(run, name, table).items():
        if not (_is_finished(run, table[one]) and finished):
            _build(run, table[one])
    with files.where_writable():
        note_command(run)


def _build(run: Run, step: Step) -> None:
    if not step.together and not processes.is_first():
        _wait_for(run, step)
        return
    claim = claimed(run.folder(step.name), take_over=run.take_over)
    with claim if processes.is_first() else contextlib.nullcontext():
        record = read_record(run, step.name)
        if processes.several() or record is None or difference(run, step, record):
            _build_claimed(run, step)  # or else who had claimed it before has built it


def _build_claimed(run: Run, step: Step) -> None:
    assert isinstance(run.config, ConfigDict)
    folder, minutes = run.folder(step.name), step.minutes(run.config)
    if minutes >= 0.1:
        notice(f"-- {step.name}: {step.about} (about {minutes:.1f} min on 2 CPU cores)")
    begin, go = time.monotonic(), _go(run, step, here=True)
    forget_peak()
    note_command(run)
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        goes = begun.note(folder, go)
        (folder / RECORD).unlink(missing_ok=True)  # of what it was before
    with waiting(step.name, LATE):
        result = step.build(step.run(run))
    if not processes.is_first():
        _wait_for(run, step)
        return
    with contextlib.suppress(DataError):  # the step may have found out more
        goes = begun.goes(folder)
    seconds = time.monotonic() - begin
    record = {
        "step": step.name,
        "id": files.sha256_json([step.name, go.what, result]),
        **go.what,
        "result": result,
        "folders": {n: os.path.relpath(run.folder(n), folder) for n in go.what["inputs"]},
        "files": {name: now for name in step.files if (now := files.sha256_of(folder / name))},
        **go.how,
        "goes": goes,
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "peak_gib": round(peak_gib(), 2),
        "config": plain(run.config),
    }
    files.write_sealed(folder / RECORD, record)
    (folder / begun.STARTED).unlink(missing_ok=True)
    notice(f"-- {step.name}: done in {seconds / 60:.1f} min")


def _go(run: Run, step: Step, *, here: bool) -> begun.Go:
    """What a step is to be, as far as what it needs is finished; `here`: and how this machine builds it."""
    assert isinstance(run.config, ConfigDict)
    records = {need: read_record(run, need) for need in step.needs(run.config)}
    what = {
        "settings": settings(run.config, step.fields),
        "inputs": {need: record["id"] for need, record in records.items() if record},
        "sources": source_hashes(step, run.config),
    }
    execution = plain(run.config)[EXECUTION]
    compared = {f"execution.{name}": execution[name] for name in step.numbers}
    how: dict[str, Any] = {EXECUTION: execution}
    if here and step.computes:
        how |= {"hardware": hardware(), "versions": versions()}
        compared |= how["hardware"]
    elif here:
        how["versions"] = versions()
    return begun.Go(what, how, compared, execution["mix"])


def note_command(run: Run) -> None:
    """Writes run.json, what the last command was asked to do; none where several runs share a folder."""
    if run.places or not processes.is_first():
        return
    path, said = run.workdir / COMMAND, {"config": plain(run.config), "versions": versions()}
    try:
        before = files.read_sealed(path) if path.is_file() else None
    except DataError:  # nothing is lost with it: the command says all
        before = None
    if before != said:
        files.write_sealed(path, said)


def _wait_for(run: Run, step: Step) -> None:
    """Returns when process 0 has built the step; if that fails, jax ends this process."""
    while (record := read_record(run, step.name)) is None or difference(run, step, record):
        time.sleep(1)


def _record(run: Run, step: str) -> dict[str, Any]:
    record = read_record(run, step)
    assert record is not None, step
    return record
