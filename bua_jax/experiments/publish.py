"""Where tables and pictures go: the experiment's folder, whole ones into the documentation.

And what finished cells answered, into one archive: enough to publish from, without what was trained for it.
"""

import csv
import io
import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation.report import write_report
from bua_jax.experiments import all_claims, curves, pages, report, report_page, tuning
from bua_jax.experiments.experiment import Cell, Experiment, cells
from bua_jax.experiments.run import finished, folder_of, provenance, run_of
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import RECORD, order
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.writers import METRICS

KEPT = ".tar.xz"


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


def print_cell(experiment: Experiment, cell: Cell, workdir: Path, argument: str) -> None:
    """What a finished cell was built from, and the command that builds it. Raises as `provenance`."""
    command = command_of(argument, workdir, [cell.row.name], [str(cell.seed)])
    built = provenance(cell, workdir, experiment.scale.config)
    out.print_json(data={"command": command, **built})


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


def keep(experiment: Experiment, workdir: Path, path: Path) -> None:
    """Writes an archive of the experiment's finished cells and trials, and says how many they are.

    Unpacked (`tar -xf`) into a folder, they are finished there; archives of other seeds make one table.

    Raises `ConfigError` for a path that does not end as it is packed, `DataError` where no cell is finished,
    and `WriteError`.
    """
    if not path.name.endswith(KEPT):
        raise ConfigError(f"--keep={path}: expected a name that ends in {KEPT}.")
    every = [*tuning.trials(experiment), *cells(tuning.settled(experiment, workdir))]
    done = finished(every, workdir)
    if not done:
        raise DataError(f"No cell of {experiment.name} is finished in {workdir}: nothing to keep.")
    names = {name for cell in done for name in _files_of(cell, workdir)}
    with files.atomic_write(path) as temporary, tarfile.open(temporary, "w:xz") as archive:
        for name in sorted(names):
            archive.add(workdir / name, str(name), filter=_of_nobody)
    out.print(f"{path}: {len(done)} of {len(every)} cells", markup=False)


def _files_of(cell: Cell, workdir: Path) -> Iterator[Path]:
    """Below the workdir: answers, the data and windows that they are about; of other steps the records."""
    run = run_of(cell, workdir)
    about = {need for asked in cell.steps for need in STEPS[asked].needs(cell.config)}
    whole = {*cell.steps, *(need for need in about if need.split("/")[0] in ("data", "windows"))}
    for step in dict.fromkeys(
        one for asked in cell.steps for one in order(asked, cell.config, STEPS)
    ):
        folder = run.folder(step)
        kept = [folder / RECORD]
        if step in STAGE_TABLE:
            kept += [folder / METRICS] if step in cell.steps else []
        elif step in whole:
            kept = [one for one in folder.iterdir() if one.is_file()]
        yield from (one.relative_to(workdir) for one in kept)


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the account that built it; with the time, which pages show."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
