"""From a file of events to a trained model: looks at the file, writes a config of it, runs the whole chain.

Examples:
  python -m bua_jax.fit events.csv
  python -m bua_jax.fit events.csv --workdir=runs/mine --columns=user=who,behaviour=what --minutes=120
  python -m bua_jax.predict --model=runs/events events.csv --for=anna

A problem that `check` finds ends it. What the file is goes to WORKDIR/events.py, and a size that fits it and
this machine to WORKDIR/fit.py (with --config: that one as it is). The same command uses both again, edited or
not, and goes on where it was cut. The command that it is short for is printed.
"""

from pathlib import Path
from typing import Any

from absl import flags

from bua_jax import cli
from bua_jax.basics import config as configs
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("input", "", "File of events; the flag's name may be left out.")
flags.DEFINE_string("time_zone", "", "Zone that times in UTC are shown in, e.g. Asia/Shanghai.")
flags.DEFINE_bool("skip_bad_rows", False, "Leave bad rows out, counted and reported.")
flags.DEFINE_bool("merge", False, "Labels that look alike become one.")
flags.DEFINE_float("minutes", 20.0, "Longest time it may take, as guessed.", lower_bound=0.0)
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
    from bua_jax.planning.size import Size, check_size

    workdir = cli.workdir_for(FLAGS.input)
    own, size = workdir / "events.py", workdir / "fit.py"
    asked = Size(*cli.config_with(f"data={own}"))
    named = asked if cli.NAMED else None
    how = {name: bool(FLAGS[name].value) for name in ("skip_bad_rows", "merge")}
    if not (there := own.is_file() and size.is_file()):
        _look(own, size, named, how)
    config = configs.load(str(size))
    if there:
        check_asked(own, config.data, Path(FLAGS.input), cli.columns(), zone=FLAGS.time_zone, **how)
        check_size(size, named, FLAGS.minutes if FLAGS["minutes"].present else None)
    cli.override(config)
    out.print(cli.command("curriculum", f"--config={size}", f"--workdir={workdir}", *cli.given()))
    if FLAGS.dry_run:
        return show_outline(config, workdir, "evaluation", several=False)
    run = start(config, workdir, take_over=FLAGS.take_over)
    build(run, "evaluation")
    print_results(run)
    with files.where_writable():
        report_results(run)
    out.print(cli.command("predict", f"--model={workdir}", FLAGS.input))


def _look(own: Path, size: Path, named: Any, how: dict[str, bool]) -> None:
    """Checks the file and writes both configs. Raises `DataError` for what keeps a run from working."""
    from bua_jax.planning.check import check
    from bua_jax.planning.size import prepare

    found = check(Path(FLAGS.input), cli.columns(), FLAGS.config, FLAGS.time_zone)
    columns = [f"{c['role']}: column {c['column']!r} ({c['why']})" for c in found["columns"]]
    out.print("\n".join([*found["notes"], *columns]))
    chosen = prepare(found, own, size, named, FLAGS.minutes, **how)
    out.print(f"wrote {own} and {size}: {chosen.why}")


if __name__ == "__main__":
    cli.run(main, config="configs/quickstart.py", argument="input")
