"""Where tables and pictures go: the experiment's folder, and whole ones into the documentation."""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics.console import out
from bua_jax.basics.errors import DataError
from bua_jax.evaluation.report import write_report
from bua_jax.experiments import all_claims, curves, pages, report, report_page
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.experiments.run import folder_of, provenance


def show(
    experiment: Experiment,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    workdir: Path,
    command: str,
    folder: Path | None,
) -> None:
    """Prints and writes what the finished `cells` say, and publishes it into `folder` if there is one.

    Raises `DataError` where a published table would not be whole; the workdir's own is written before.
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
    shown = report_page.of_curves if experiment.curves else report_page.of_table
    own = folder_of(experiment, workdir) / f"{experiment.name}.html"
    write_report(own, shown(said))
    out.print(str(own), markup=False)
    if folder is not None:
        check_whole(said, [cell.name for cell in every])
        for path in (*write(said, folder), all_claims.write(folder)):
            out.print(f"published: {path}", markup=False)


def shown(experiment: Experiment, cell: Cell, workdir: Path, argument: str) -> dict[str, Any]:
    """What a finished cell was built from, and the command that builds it. Raises as `provenance`."""
    command = command_of(argument, workdir, [cell.row.name], [str(cell.seed)])
    return {"command": command, **provenance(cell, workdir, experiment.scale.config)}


def check_whole(said: Mapping[str, Any], expected: Sequence[str]) -> None:
    """Raises `DataError` for what must not be published.

    expected: names of all cells, which must all be there, of one version of the code, each from a commit
    that can be found again.
    """
    if said["scale"] == "tiny":
        raise DataError("The scale tiny learns nothing: it is not published. Use :scale=laptop.")
    cells = said["cells"]
    if missing := [name for name in expected if name not in cells]:
        raise DataError(
            f"{len(missing)} of {len(expected)} cells are not built, for example {missing[0]}: a table is "
            "published whole. Run the same command without --rows and --seeds, and mend what failed."
        )
    for name, cell in cells.items():
        if unknown := [c for c in cell["commits"] if c == "None" or c.endswith("+")]:
            raise DataError(
                f"The cell {name} was built at the commit {unknown[0]!r}, which cannot be found again: build "
                "it from a checkout without changes, in another --workdir."
            )
    if len({code for cell in cells.values() for code in cell["code"]}) > 1:
        commits = sorted({commit for cell in cells.values() for commit in cell["commits"]})
        raise DataError(
            f"Cells were built by several versions of the code (commits {', '.join(commits)}), which may "
            "differ for that alone: build the table by one of them, in another --workdir."
        )


def command_of(argument: str, workdir: Path, rows: Sequence[str], seeds: Sequence[str]) -> str:
    """The command that builds the cells; rows, seeds: where they were chosen.

    Paths of one's own machine are cut to their last part.
    """
    path, colon, scale = argument.partition(":")
    path = Path(path).name if Path(path).is_absolute() else path
    where = workdir.name if workdir.is_absolute() else workdir
    words = ["python", "-m", "bua_jax.experiment", f"--experiment={path}{colon}{scale}"]
    words += [f"--workdir={where}"]
    words += [f"--rows={_comma_separated(rows)}"] if rows else []
    words += [f"--seeds={_comma_separated(seeds)}"] if seeds else []
    return shlex.join(words)


def _comma_separated(values: Sequence[str]) -> str:
    """As absl reads a list."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
