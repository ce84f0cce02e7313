"""Builds a table of the paper, or one of your own: rows times seeds, with intervals and the paper's claims.

Examples:
  python -m bua_jax.experiment --experiment=configs/experiments/table14.py:scale=tiny --workdir=runs/tiny
  python -m bua_jax.experiment --experiment=configs/experiments/table4.py --rows=Ours --seeds=1,2 --dry_run
  python -m bua_jax.experiment --experiment=configs/experiments/table4.py --show=Ours/3
  python -m bua_jax.experiment --experiment=configs/experiments/table4.py --keep=cells.tar.xz
  python -m bua_jax.experiment --experiment=configs/experiments/table4.py --publish=docs/results
  python -m bua_jax.experiment --replay=runs/mine   # what other balancers would have done

scale= is tiny, laptop (the default) or paper, which is planned only. The same command goes on after any
interruption; several processes may run it on one disk. A failed cell is passed over, with exit code 1.
"""

import sys

from absl import flags

from bua_jax import cli
from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", "", "Experiment file[:scale=tiny|laptop|paper].")
flags.DEFINE_string("workdir", "runs/paper", "Folder that all experiments may share.")
flags.DEFINE_bool("dry_run", False, "Say what would be built, and stop.")
flags.DEFINE_list("rows", [], "Only these rows.")
flags.DEFINE_list("seeds", [], "Only these seeds.")
flags.DEFINE_string("show", "", "Say what a cell (ROW/SEED) was built from, and stop.")
flags.DEFINE_string("keep", "", "Write an archive of finished cells' answers (.tar.xz), and stop.")
flags.DEFINE_string("publish", "", "Folder for the page and its json, of a whole table.")
flags.DEFINE_string("replay", "", "Ask balancers about this run's gradients, and stop.")
cli.define_take_over()


def main() -> None:
    if FLAGS.replay:
        from bua_jax.experiments.replay import write_pages

        print(write_pages(cli.as_workdir(FLAGS.replay), FLAGS.experiment), end="")
        return
    if not FLAGS.experiment:
        raise ConfigError("Name it: --experiment=configs/experiments/table4.py[:scale=tiny].")
    file = configs.resolve(FLAGS.experiment.partition(":")[0])  # before seconds of imports
    from bua_jax.experiments import plan, publish, run, tuning
    from bua_jax.experiments.experiment import cells, chosen, load, named
    from bua_jax.planning.estimate import on_the_papers_machine

    workdir, only = cli.as_workdir(FLAGS.workdir), (FLAGS.rows, FLAGS.seeds)
    loaded = load(FLAGS.experiment)
    publish.check_asked(loaded, FLAGS.keep, FLAGS.publish, *only)
    if FLAGS.keep:
        publish.keep(loaded, workdir, FLAGS.keep)
        return
    asked = tuning.settled(loaded, workdir)
    every, trials = cells(asked), tuning.trials(asked, FLAGS.rows)
    plan.check_cells(asked, [*every, *trials], workdir)
    if FLAGS.show:
        publish.print_cell(asked, named(every, FLAGS.show), workdir, FLAGS.experiment)
        return
    elsewhere = on_the_papers_machine if asked.scale.planned else None
    planned = plan.print_plan([*trials, *chosen(every, *only)], workdir, elsewhere)
    if FLAGS.dry_run:
        return
    if asked.scale.planned:
        raise ConfigError("This scale is planned only: add --dry_run, or choose scale=laptop.")
    plan.check_commit(planned, file, publish=bool(FLAGS.publish))
    asked, failed = tuning.build(asked, *only, workdir, take_over=FLAGS.take_over)
    run.say_failed(failed)
    every = cells(asked)  # with what was taken of what was tried
    if done := run.finished(every, workdir):
        command = publish.command_of(FLAGS.experiment, workdir, [], [])
        publish.show(asked, done, every, workdir, command, FLAGS.publish)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    cli.run(main)
