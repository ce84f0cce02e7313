"""Looks at a file of events before anything is trained: columns, people, labels, cost, and what is wrong.

Columns are guessed by their names and contents and shown; --columns says otherwise. CSV of any separator and
encoding, TSV and parquet are read. Exit code 1 where a run would not work as the file is.

Examples:
  python -m bua_jax.check events.csv
  python -m bua_jax.check events.csv --columns=user=who,behaviour=what --time_zone=Europe/Berlin
  python -m bua_jax.check events.csv --save=mine --merge      # mine.py, for --config=FILE:data=mine.py
  python -m bua_jax.check events.csv --memory      # half a minute longer
  python -m bua_jax.check events.csv --json=check.json --html=check.html
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError
from bua_jax.events.spec import check_time_zone

FLAGS = flags.FLAGS
flags.DEFINE_string("input", "", "File of events; the flag's name may be left out.")
cli.define_columns()
flags.DEFINE_string("time_zone", "", "Zone that times in UTC are shown in, e.g. Asia/Shanghai.")
flags.DEFINE_string("save", "", "NAME: write NAME.py, a data config, and what it needs beside it.")
flags.DEFINE_bool("merge", False, "With --save: labels that look alike become one.")
flags.DEFINE_bool("memory", False, "Compile the stages' steps to say what memory they take.")
flags.DEFINE_string("json", "", "JSON file to write.")
flags.DEFINE_string("html", "", "HTML page to write.")


def main() -> None:
    if not FLAGS.input:
        raise ConfigError("--input is missing: python -m bua_jax.check events.csv.")
    from bua_jax.evaluation.report import Report, write_report
    from bua_jax.planning.check import check, picture, sections
    from bua_jax.planning.report import print_table

    for flag in ("json", "html"):
        files.check_output(getattr(FLAGS, flag), FLAGS.input, flag=f"--{flag}")
    check_time_zone(FLAGS.time_zone)
    path, asked = Path(FLAGS.input), (cli.columns(), FLAGS.config, FLAGS.time_zone)
    found = check(path, *asked, memory=FLAGS.memory)
    tables = sections(found)
    said = [f"PROBLEM: {text}" for text in found["problems"]] + found["notes"]
    for table in tables:
        print_table(table.title, table.header, table.rows, most=60, rest="--html and --json")
    for line in said:
        out.print(line)
    if FLAGS.json:
        files.write_json(Path(FLAGS.json), found)
    if FLAGS.html:
        title, shown = f"Check of {path.name}", [picture(found)]
        write_report(Path(FLAGS.html), Report(title, verdict=said, tables=tables, pictures=shown))
    _go_on(found)
    if found["problems"]:
        sys.exit(1)


def _go_on(found: dict[str, Any]) -> None:
    """Writes the config with --save, and says the command that trains."""
    if FLAGS.save:
        from bua_jax.planning.saved import save

        config, workdir = cli.config_with(f"data={FLAGS.save}.py"), f"runs/{Path(FLAGS.save).name}"
        for path in save(found, Path(FLAGS.save), merge=FLAGS.merge):
            out.print(f"wrote {path}")
        given = f"--config={':'.join(config)}", f"--workdir={workdir}", *cli.given()
        out.print(cli.command("curriculum", *given))
    elif not found["problems"]:
        out.print(cli.command("fit", FLAGS.input, *cli.given("columns", "time_zone")))


if __name__ == "__main__":
    cli.run(main, config="configs/quickstart.py", argument="input")
