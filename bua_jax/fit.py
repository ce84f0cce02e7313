"""From a file of events to a trained model: looks at the file, writes a config of it, runs the whole chain.

Examples:
  python -m bua_jax.fit events.csv
  python -m bua_jax.fit events.csv --workdir=runs/mine --columns=user=who,behaviour=what
  python -m bua_jax.predict --model=runs/events events.csv --for=anna

A problem that `check` finds ends it. The config is written to WORKDIR/events.py, which the same command uses
again, and goes on where it was cut. The command that it is short for is printed.
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics import config as configs
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError, DataError

FLAGS = flags.FLAGS
flags.DEFINE_string("input", "", "File of events; the flag's name may be left out.")
flags.DEFINE_string("time_zone", "", "Zone that times in UTC are shown in, e.g. Asia/Shanghai.")
flags.DEFINE_bool("skip_bad_rows", False, "Leave bad rows out, counted and reported.")
flags.DEFINE_bool("merge", False, "Labels that look alike become one.")
flags.DEFINE_bool("dry_run", False, "Say what would be built, and stop.")
cli.define_columns()
cli.define_take_over()


def main() -> None:
    if not FLAGS.input:
        raise ConfigError("--input is missing: python -m bua_jax.fit events.csv.")
    from bua_jax.basics import files
    from bua_jax.pipeline.chain import build, show_outline, start
    from bua_jax.pipeline.report import print_results, report_results
    from bua_jax.planning.saved import check_asked

    workdir = cli.workdir_for(FLAGS.input)
    own, columns = workdir / "events.py", cli.columns()
    path, argument = cli.config_with(f"data={own}")
    if not (there := own.is_file()):
        _look(workdir / "events", columns)
    config = configs.load(path, argument)
    if there:
        how = {name: bool(FLAGS[name].value) for name in ("skip_bad_rows", "merge")}
        check_asked(own, config.data, Path(FLAGS.input), columns, zone=FLAGS.time_zone, **how)
    cli.override(config)
    given = f"--config={path}:{argument}", f"--workdir={workdir}", *cli.given()
    out.print(cli.command("curriculum", *given))
    if FLAGS.dry_run:
        show_outline(config, workdir, "evaluation", several=False)
        return
    run = start(config, workdir, take_over=FLAGS.take_over)
    build(run, "evaluation")
    print_results(run)
    with files.where_writable():
        report_results(run)
    out.print(cli.command("predict", f"--model={workdir}", FLAGS.input))


def _look(name: Path, columns: dict[str, str]) -> None:
    """Checks the file and writes its config. Raises `DataError` for what keeps a run from working."""
    from bua_jax.planning.check import check
    from bua_jax.planning.saved import save

    found = check(Path(FLAGS.input), columns, FLAGS.config, FLAGS.time_zone)
    columns_said = [f"{c['role']}: column {c['column']!r} ({c['why']})" for c in found["columns"]]
    out.print("\n".join([*found["notes"], *columns_said]))
    if found["first_bad"] and not FLAGS.skip_bad_rows:
        raise DataError(found["first_bad"])
    if problems := [said for said in found["problems"] if said != found["first_bad"]]:
        raise DataError(f"{problems[0]} `bua check {FLAGS.input}` shows all that the file holds.")
    found["config"] |= {"on_bad_row": "skip"} if FLAGS.skip_bad_rows else {}
    save(found, name, merge=FLAGS.merge)
    out.print(f"wrote {name}.py; about {sum(found['minutes'].values()):.0f} minutes on 2 CPU cores")


if __name__ == "__main__":
    cli.run(main, config="configs/quickstart.py", argument="input")
