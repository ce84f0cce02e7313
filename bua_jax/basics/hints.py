"""What somebody may have meant: the nearest folder of a run."""

import difflib
import re
from pathlib import Path

from bua_jax.basics.errors import MismatchError

_MOST = 5  # runs that are named
_RUN, _STEP = "run.json", "*/record.json"  # what a run's folder has: one of them


def nearest_run(folder: Path, kind: str = "") -> str:
    """` Did you mean FOLDER?` for a folder that is not there: of the runs in runs/ and beside it.

    kind: a path in it that the folder meant must have, as a pattern; by default that of any run.
    """
    patterns = (kind,) if kind else (_RUN, _STEP)
    there = {
        path.name: str(path)
        for place in (Path("runs"), folder.parent)  # of two of a name the one beside it
        if place.is_dir()
        for path in sorted(place.glob("*/"))
        if any(any(path.glob(pattern)) for pattern in patterns)
    }
    near = difflib.get_close_matches(folder.name, there, n=1, cutoff=0.5)
    return f" Did you mean {there[near[0]]}?" if near else ""


def nearest_file(path: Path) -> str:
    """` Did you mean FILE?` for a file that is not there: of those beside it, by the stem too."""
    there = [p for p in path.parent.glob("*") if p.is_file()]
    stems = difflib.get_close_matches(path.stem, {p.stem for p in there}, n=1, cutoff=0.6)
    near = difflib.get_close_matches(path.name, [p.name for p in there if p.stem in stems], n=1)
    return f" Did you mean {path.with_name(near[0])}?" if near else ""


def unfinished_near(folder: Path) -> str:
    """The run beside a folder that is new whose name is nearly the same and which is not finished; or "".

    Names that differ in digits alone (seed1, seed2) are meant.
    """
    if folder.exists() or not folder.parent.is_dir():
        return ""

    def letters(name: str) -> str:
        return re.sub(r"\d", "", name)

    there = [
        path.name
        for path in sorted(folder.parent.glob("*/"))
        if letters(path.name) != letters(folder.name)
        and any(any(path.glob(pattern)) for pattern in (_RUN, _STEP))
        and not (path / "evaluation" / "record.json").is_file()
    ]
    near = difflib.get_close_matches(folder.name, there, n=1, cutoff=0.8)
    return str(folder.parent / near[0]) if near else ""


def _trained() -> str:
    """Which trained runs there are in runs/, or how to make one."""
    there = sorted(str(path.parent.parent) for path in Path("runs").glob("*/stage2/record.json"))
    if there:
        return f" There are {', '.join(there[:_MOST])}."
    return " Train one first: python -m bua_jax.fit events.csv."


def no_run(folder: Path) -> MismatchError:
    """What is said of a folder of a trained run that is not there."""
    hint = nearest_run(folder, "stage2/record.json") or _trained()
    return MismatchError(f"There is no folder {folder}, expected that of a trained run.{hint}")
