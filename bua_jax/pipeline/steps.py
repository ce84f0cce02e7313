"""What a workdir has, lacks or holds stale, and the step that comes next.

A step is a folder of the workdir with a `record.json`, written last: the settings that shaped the
result, the ids of the steps it was built from, versions and seconds. A step without a record is
unfinished and is built (or resumed); a step whose record differs from the config is an error that
names both values. `train`, `curriculum` and the other verbs share this.

Several processes train a stage together; the other steps are built by the first of them, and the rest
wait for the record in their shared storage.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.environment import versions
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.parallel import processes


@dataclass(frozen=True)
class Run:
    """A config and the folder that its results go to."""

    config: ConfigDict
    workdir: Path

    def folder(self, step: str) -> Path:
        return self.workdir / step


@dataclass(frozen=True)
class Step:
    """One folder of a workdir."""

    name: str
    about: str  # what a person reads when it starts
    fields: tuple[str, ...]  # config fields (or their prefixes) that shape the result
    needs: Callable[[ConfigDict], tuple[str, ...]]  # steps it is built from
    build: Callable[[Run], dict[str, Any]]  # does it; returns what the record should also say
    minutes: Callable[[ConfigDict], float]  # rough expectation on 2 CPU cores
    together: bool = False  # whether all processes build it, or the first alone


def plain(config: ConfigDict) -> Any:
    """The config as JSON values (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def settings(config: ConfigDict, fields: tuple[str, ...]) -> dict[str, Any]:
    """The values of `fields`, flattened to dotted names."""
    found: dict[str, Any] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                collect(f"{name}.{key}", value[key])
        else:
            found[name] = value

    values = plain(config)
    for field in fields:
        value = values
        for key in field.split("."):
            value = value[key]
        collect(field, value)
    return found


def read_record(run: Run, step: str) -> dict[str, Any] | None:
    """The step's record, or None if it is not finished."""
    path = run.folder(step) / "record.json"
    return files.read_json(path) if path.is_file() else None


def check_record(run: Run, step: Step, record: dict[str, Any]) -> None:
    """Raises `MismatchError` if a finished step is not what the config asks for."""
    wanted = settings(run.config, step.fields)
    folder = run.folder(step.name)
    for name in sorted(wanted.keys() | record["settings"].keys()):
        had, want = record["settings"].get(name), wanted.get(name)
        if had != want:
            raise MismatchError(
                f"{folder} was built with {name}={had!r}, but the config says {want!r}. Keep it with "
                f"--config.{name}={had!r}, start another run with --workdir=runs/NAME, or build it "
                f"anew after: rm -r {folder} (and the steps that follow from it)."
            )
    for need, identity in record["inputs"].items():
        current = read_record(run, need)
        if current is None or current["id"] != identity:
            now = "missing" if current is None else current["id"]
            raise MismatchError(
                f"{folder} was built from {need} {identity}, but {run.folder(need)} is now {now}. "
                f"Build it anew: rm -r {folder}, then run the same command again."
            )


def outline(run: Run, name: str, table: dict[str, Step]) -> dict[str, bool]:
    """The steps up to `name` in the order in which they are built, and whether each is finished.

    Raises `MismatchError` for a finished one that is not what the config asks for.
    """
    step = table[name]
    found: dict[str, bool] = {}
    for need in step.needs(run.config):
        found |= outline(run, need, table)
    record = read_record(run, name)
    if record is not None:
        check_record(run, step, record)
    return {**found, name: record is not None}


def ensure(run: Run, name: str, table: dict[str, Step]) -> None:
    """Builds the step `name`, and before it whatever it needs that the workdir lacks."""
    if name not in table:
        raise ConfigError(f"There is no step {name!r}; there are: {', '.join(table)}.")
    step = table[name]
    needs = step.needs(run.config)
    for need in needs:
        ensure(run, need, table)
    record = read_record(run, name)
    if record is not None:
        check_record(run, step, record)
        return
    if not step.together and not processes.is_first():
        _wait_for_record(run, name)
        return
    minutes = step.minutes(run.config)
    notice(f"-- {name}: {step.about} (about {max(minutes, 0.1):.1f} min on 2 CPU cores)")
    begin = time.monotonic()
    run.folder(name).mkdir(parents=True, exist_ok=True)
    extra = step.build(run)
    if not processes.is_first():
        _wait_for_record(run, name)
        return
    inputs = {need: _record(run, need)["id"] for need in needs}
    shaped = settings(run.config, step.fields)
    seconds = time.monotonic() - begin
    content = {"settings": shaped, "inputs": inputs, "result": extra}
    files.write_json(
        run.folder(name) / "record.json",
        {
            "step": name,
            "id": files.sha256_text(json.dumps(content, sort_keys=True)),
            **content,
            "seconds": round(seconds, 1),
            "versions": versions(),
            "config": plain(run.config),
        },
    )
    notice(f"-- {name}: done in {seconds / 60:.1f} min")


def _wait_for_record(run: Run, step: str) -> None:
    """Returns when process 0 has built the step; if that fails, jax ends this process."""
    while read_record(run, step) is None:
        time.sleep(1)


def _record(run: Run, step: str) -> dict[str, Any]:
    record = read_record(run, step)
    assert record is not None, step
    return record
