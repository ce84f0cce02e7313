"""Finished runs beside each other: metrics, differences with intervals, and what differs in their configs.

Differences are paired: the same people are drawn for both runs, which takes runs tested on the same windows.

Examples:
  python -m bua_jax.compare runs/quickstart runs/other
  python -m bua_jax.compare runs/a runs/b runs/c --method=bua_stage2 --html=compare.html
  python -m bua_jax.compare runs/a runs/b --latex=table.tex --json=compare.json
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", [], "Folders, compared with the first; the flag's name may be left out.")
flags.DEFINE_string("method", "bua", "Row of the table that is compared.")
flags.DEFINE_string("json", "", "JSON file to write.")
flags.DEFINE_string("html", "", "HTML page to write, with the curves of the validation losses.")
flags.DEFINE_string("latex", "", "LaTeX table to write (booktabs).")


def main() -> None:
    if len(FLAGS.runs) < 2:
        raise ConfigError("Give two or more runs: python -m bua_jax.compare runs/a runs/b.")
    from bua_jax.evaluation.findings import of_curves
    from bua_jax.evaluation.plots import curves
    from bua_jax.evaluation.report import Picture, Report, write_report
    from bua_jax.evaluation.tables import booktabs, caution
    from bua_jax.experiments.compare import compare, finished, sections
    from bua_jax.pipeline.report import curves_of
    from bua_jax.planning.report import print_table

    for name in ("json", "html", "latex"):
        files.check_output(getattr(FLAGS, name), flag=f"--{name}")
    folders = [Path(folder) for folder in FLAGS.runs]
    found = compare(folders, FLAGS.method)
    shown = sections(found)
    for table in shown:
        print_table(table.title, table.header, table.rows)
    unpaired = "" if found["paired"] else "Runs tested on other windows have no differences."
    notes = [*filter(None, (unpaired, caution(found)))]
    for line in notes:
        notice(line)
    if FLAGS.json:
        files.write_json(Path(FLAGS.json), found)
    if FLAGS.latex:
        files.write_text(Path(FLAGS.latex), booktabs(shown[0].header, shown[0].rows))
    if FLAGS.html:
        losses = {folder.name: curves_of(finished(folder).run) for folder in folders}
        pictures = [
            Picture(f"Losses of {name}", curves(one, "loss (nats)"), of_curves(one))
            for name, one in losses.items()
        ]
        title = " and ".join(found["runs"])
        page = Report(title, warnings=notes, tables=shown, pictures=pictures)
        write_report(Path(FLAGS.html), page)


if __name__ == "__main__":
    cli.run(main, argument="runs")
