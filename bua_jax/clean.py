"""Frees disk in folders of runs: lists what nothing needs any more, and removes it with --yes.

Examples:
  python -m bua_jax.clean runs/quickstart
  python -m bua_jax.clean runs/quickstart --yes
  python -m bua_jax.clean runs --compiled       # all runs in it; and programs compiled for any run

What goes: checkpoints, moments and token records of finished steps, and what killed processes left. What
stays: all that a later step, `predict`, `convert`, `evaluate`, reports or resuming an unfinished step reads.
Refuses while a process works in the folder.
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.basics.hints import nearest_run

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "", "Of a run, or of runs; the flag's name may be left out.")
flags.DEFINE_bool("compiled", False, "Also the compiled programs that jax keeps for all runs.")
flags.DEFINE_bool("yes", False, "Remove it.")
cli.define_take_over()


def main() -> None:
    if not FLAGS.folder:
        raise ConfigError("--folder is missing: python -m bua_jax.clean runs/NAME.")
    folder = Path(FLAGS.folder)
    if not folder.is_dir():
        raise MismatchError(f"There is no folder {folder}.{nearest_run(folder)}")
    from bua_jax.experiments import clean
    from bua_jax.planning.report import print_table

    found = clean.removable(folder, take_over=FLAGS.take_over)
    programs = clean.compiled() if FLAGS.compiled else []
    if not (found or programs):
        out.print(f"Nothing in {folder} can go.")
        return
    every = [*found, *programs]
    rows = [[str(one.path), f"{one.size / 1e6:.1f}", one.about] for one in every]
    total = sum(one.size for one in every) / 1e6
    rows.append(["in all", f"{total:.1f}", "is removed" if FLAGS.yes else "--yes removes it"])
    print_table(f"What can go of {folder}", ("what", "MB", "it is"), rows)
    if FLAGS.yes:
        clean.remove(found, take_over=FLAGS.take_over)
        if programs:
            clean.remove_compiled()


if __name__ == "__main__":
    cli.run(main, argument="folder")
