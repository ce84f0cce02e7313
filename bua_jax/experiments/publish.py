"""Where tables and pictures go: the experiment's folder, and whole ones into the documentation."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics.console import out
from bua_jax.basics.errors import DataError
from bua_jax.experiments import curves, pages, report
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.experiments.run import folder_of


def show(
    experiment: Experiment,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    workdir: Path,
    command: str,
    folder: Path | None,
) -> None:
    """Prints and writes what the finished `cells` say, and publishes it into `folder` if there is one.

    Raises `DataError` where a published table would not be whole; what was asked to be written in the
    workdir is.
    """
    if experiment.curves:
        said = curves.collect(experiment, cells, workdir, command)
        out.print(curves.page(said), markup=False)
    else:
        said = report.collect(experiment, cells, workdir, command)
        out.print(pages.page(said), markup=False)
    write = curves.write if experiment.curves else pages.write
    for path in write(said, folder_of(experiment, workdir)):
        out.print(str(path), markup=False)
    if folder is not None:
        check_whole(said, [cell.name for cell in every])
        for path in write(said, folder):
            out.print(f"published: {path}", markup=False)


def check_whole(said: Mapping[str, Any], expected: Sequence[str]) -> None:
    """Raises `DataError` for what must not be published.

    expected: names of all cells, which must all be there, each from a commit that can be found again.
    """
    if missing := [name for name in expected if name not in said["cells"]]:
        raise DataError(
            f"{len(missing)} cells are not built, for example {missing[0]}: a table is published whole. Run "
            "the same command without --publish, --rows and --seeds first."
        )
    for name, cell in said["cells"].items():
        if unknown := [c for c in cell["commits"] if c == "None" or c.endswith("+")]:
            raise DataError(
                f"The cell {name} was built at the commit {unknown[0]!r}, which cannot be found again: build "
                "it from a checkout without changes, in another --workdir."
            )


def command_of(argument: str, rows: Sequence[str], seeds: Sequence[int]) -> str:
    """The command that builds the cells; rows, seeds: where they were chosen."""
    words = [
        "python",
        "-m",
        "bua_jax.experiment",
        f"--experiment={argument}",
        "--workdir=runs/paper",
    ]
    words += [f"--rows={','.join(rows)}"] if rows else []
    words += [f"--seeds={','.join(map(str, seeds))}"] if seeds else []
    return shlex.join(words)
