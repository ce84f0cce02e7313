"""Drafts summaries with the stage-2 model, scores them, and turns low-scored ones into stage-3 dialogues.

Examples:
  python -m bua_jax.reflect --workdir=runs/stage2
  python -m bua_jax.reflect --workdir=runs/stage2 --show=2

The config is that of the run in --workdir, if there is one, unless --config names another. What is not there
yet is built.
"""

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()
flags.DEFINE_bool("dry_run", False, "Say what would be built, and stop.")
flags.DEFINE_integer("show", 0, "Print that many stage-3 dialogues.", lower_bound=0)


def main() -> None:
    from bua_jax.dialogue.store import read_dialogues, show
    from bua_jax.pipeline.chain import build, show_outline, start

    config, workdir = cli.config_of(cli.workdir()), cli.workdir()
    if FLAGS.dry_run:
        return show_outline(config, workdir, "reflect", several=False)
    run = start(config, workdir, take_over=FLAGS.take_over)
    build(run, "reflect")
    if FLAGS.show:
        show(read_dialogues(run.folder("reflect") / "stage3.parquet"), FLAGS.show)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py")
