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
from bua_jax.experiments.run import finished, folder_of, provenance, read_steps, records_of, run_of
from bua_jax.pipeline.steps import RECORD
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.writers import METRICS

KEPT = ".tar.xz"


def show(
    experiment: Experiment,
    cells: Sequence[Cell],
    every: Sequence[Cell],
    workdir: Path,
    command: str,
    folder: str,
) -> None:
    """Prints and writes what the finished `cells` say, and publishes it into `folder` if it is named.

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
    if folder:
        check_whole(said, [cell.name for cell in every])
        for path in (*write(said, Path(folder)), all_claims.write(Path(folder))):
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
    cells = said["cells"]
    if missing := [name for name in expected if name not in cells]:
        raise DataError(
            f"{len(missing)} of {len(expected)} cells are not built, for example {missing[0]}: a table is "
            "published whole. Run the same command without --rows and --seeds, and mend what failed."
        )
    for name, cell in cells.items():
        unknown = [c for c in cell["commits"] if c == "None" or c.endswith("+")]
        if unknown := unknown or [c for c in cell["code"] if c == "None"]:
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


def check_asked(
    experiment: Experiment, archive: str, folder: str, rows: Sequence[str], seeds: Sequence[str]
) -> None:
    """To be asked before anything is built: `--keep` (archive), `--publish` (folder), `--rows`, `--seeds`.

    Raises `ConfigError` for what could not be written, or would replace another experiment's pages.
    """
    if archive:
        if not archive.endswith(KEPT):
            raise ConfigError(f"--keep={archive}: expected a name that ends in {KEPT}.")
        if rows or seeds or folder:
            raise ConfigError("--keep takes all finished cells and stops: give it alone.")
        files.check_output(archive, flag="--keep")
    if not folder:
        return
    if experiment.scale.name == "tiny":
        raise ConfigError("The scale tiny learns nothing: it is not published. Use :scale=laptop.")
    files.check_folder(folder, f"--publish={folder}")
    path = Path(folder) / f"{experiment.name}.json"
    there = files.read_json(path) if path.is_file() else {}
    title = there.get("title") if isinstance(there, dict) else "no table"
    if title not in (None, experiment.title):
        raise ConfigError(
            f"--publish={folder}: {path} is of another experiment ({title!r}, not {experiment.title!r}). "
            "Give this one another name, or choose another folder."
        )


def keep(experiment: Experiment, workdir: Path, path: str) -> None:
    """Writes an archive of the experiment's finished cells, and says how many they are.

    Unpacked (`tar -xf`) into a folder, they are finished there; archives of other seeds make one table. The
    trials of a row go with the seed that they are of. Raises `DataError` where no cell is finished, and
    `WriteError`.
    """
    every = cells(tuning.settled(experiment, workdir))
    done = finished(every, workdir)
    if not done:
        raise DataError(
            f"No cell of {experiment.name} is finished in {workdir}, so that there is nothing to keep: run "
            "the same command without --keep first."
        )
    tried = {cell.row.name for cell in done if cell.seed == experiment.scale.seeds[0]}
    trials = (c for name in sorted(tried) for c in tuning.trials(experiment, [name]))
    kept = [*done, *finished([*trials], workdir)]
    names = {name for cell in kept for name in _files_of(cell, workdir)}
    with files.atomic_write(path) as temporary, tarfile.open(temporary, "w:xz") as archive:
        for name in sorted(names):
            archive.add(workdir / name, str(name), filter=_of_nobody)
    out.print(f"{path}: {len(done)} of {len(every)} cells", markup=False)


def _files_of(cell: Cell, workdir: Path) -> Iterator[Path]:
    """Below the workdir: all that the cell is read from, and the records of its other steps."""
    run, read = run_of(cell, workdir), read_steps(cell)
    for step in records_of(cell, run):
        folder = run.folder(step)
        kept = [folder / RECORD]
        if step in STAGE_TABLE:
            kept += [folder / METRICS] if step in read else []
        elif step in read:
            kept = [one for one in folder.iterdir() if one.is_file()]
        yield from (one.relative_to(workdir) for one in kept)


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the account that built it; with the time, which pages show."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
