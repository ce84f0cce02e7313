"""How a folder that is built in several goes was begun and gone on with: its `started.json`.

A go is what a process does between its start and its end. What is half built (it or a part of it has
checkpoints, or it has slices of a result file, also all of them) goes on as it was begun: with the same
fields and inputs, and, unless it is to be mixed, executed in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError, MismatchError

STARTED = "started.json"
PARTIAL = ".partial"  # what a file's name ends in while only some of its slices are written
RESULT = "result.arrow"  # a file with all of its slices, which no record names yet


@dataclass(frozen=True)
class Go:
    """what: parts (settings, inputs, sources) of what the folder is to be, each by name; as far as known.

    how: the execution, versions and hardware. compared: what of it gives other results, by the name that
    errors say.
    """

    what: Mapping[str, Mapping[str, Any]]
    how: Mapping[str, Any]
    compared: Mapping[str, Any]
    mix: bool = False  # whether goes may differ in `compared`


def step_of(folder: Path) -> int:
    """The newest training step that a half-built folder holds; 0 if there is none to go on from."""
    found = folder / "checkpoints"
    steps = [path.name for path in found.iterdir()] if found.is_dir() else []
    return max((int(name) for name in steps if name.isdecimal()), default=0)


def _half_built(folder: Path) -> str:
    """What a folder holds that can be gone on with; empty if there is nothing."""
    if step := step_of(folder):
        return f"step {step}"
    parts = sorted(path.parent for path in folder.glob("*/checkpoints"))  # trained one by one
    steps = [f"step {step} of {part.name}" for part in parts if (step := step_of(part))]
    slices = (*sorted(folder.glob(f"*{PARTIAL}")), *folder.glob(RESULT))
    return next(iter((*steps, *(path.name for path in slices))), "")


def check(folder: Path, go: Go) -> list[dict[str, Any]]:
    """The goes before this one, from which it can go on; none where nothing is half built.

    Raises `MismatchError` naming both values or for another version's note, `DataError` for a damaged one.
    """
    held, path = _half_built(folder), folder / STARTED
    if not held or not path.is_file():
        return []
    try:
        before = files.read_sealed(path)
    except DataError as error:
        raise DataError(f"{error} Begin anew: rm -r {folder}") from error
    if lacking := sorted({*go.what, "goes"} - before.keys()):
        raise MismatchError(
            f"{folder} is half built ({held}) by another version: its note does not say {lacking[0]}. Go on "
            f"with that version, or begin anew: rm -r {folder}"
        )
    for part, values in go.what.items():
        for name, value in values.items():
            if (had := before[part].get(name)) != value:
                raise MismatchError(
                    f"{folder} is half built ({held}) with {name}={had!r}, but now it is {value!r}. "
                    f"Go on with {had!r}, start another run with --workdir=runs/NAME, or begin anew: "
                    f"rm -r {folder}"
                )
    last = before["goes"][-1]["compared"]
    for name, value in go.compared.items():
        if (had := last.get(name)) != value and not go.mix:
            raise _other_numbers(folder, held, name, had, value)
    return before["goes"]


def _other_numbers(folder: Path, held: str, name: str, had: Any, value: Any) -> MismatchError:
    return MismatchError(
        f"{folder} is half built ({held}) with {name}={had!r}, but now it is {value!r}, which gives "
        f"other numbers. Go on with {had!r}, mix both with --config.execution.mix=True (the record then "
        f"says what was done with which), or begin anew: rm -r {folder}"
    )


def found_out(folder: Path, name: str, value: Any, *, mix: bool) -> None:
    """Adds to the note what is compared too but known only while it is built, such as what "auto" is here.

    Raises `MismatchError` naming both values if it was another before, unless they are mixed.
    """
    path, step = folder / STARTED, step_of(folder)
    if not path.is_file():
        return
    before = files.read_sealed(path)
    compared = [go["compared"] for go in before["goes"]]
    had = [one[name] for one in compared if name in one]
    if step and had and had[-1] != value:
        if not mix:
            raise _other_numbers(folder, f"step {step}", name, had[-1], value)
        notice(f"{folder}: goes on at step {step} with other {name} ({value}, was {had[-1]})")
        if name in compared[-1]:  # nothing else had changed, so that this go was not told apart
            before["goes"].append({**before["goes"][-1], "from_step": step})
    last = before["goes"][-1]
    last["compared"] = {**last["compared"], name: value}
    files.write_sealed(path, before)


def goes(folder: Path) -> list[dict[str, Any]]:
    """All goes so far. Raises `DataError` for a damaged note."""
    return files.read_sealed(folder / STARTED)["goes"]


def note(folder: Path, go: Go) -> list[dict[str, Any]]:
    """Writes that this go begins; returns all goes, of which it is the last. Raises what `check` does."""
    before, held, step = check(folder, go), _half_built(folder), step_of(folder)
    if held and not before:
        notice(f"{folder}: goes on at {held}; how it was begun is not recorded")
    this = {"from_step": step, "compared": dict(go.compared), **go.how}
    if before:
        changed = _changes(before[-1], this)
        if changed:
            notice(f"{folder}: goes on at {held} with other {', '.join(changed)}; all is recorded")
        else:
            this = before.pop()
    goes = [*before, this]
    files.write_sealed(folder / STARTED, {**go.what, "goes": goes})
    return goes


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`execution.remat (full, was none)` for everything that two goes have otherwise."""
    return [
        f"{part}.{name} ({value}, was {before[part].get(name)})"
        for part in now
        if part not in ("from_step", "compared")
        for name, value in now[part].items()
        if before[part].get(name) != value
    ]
