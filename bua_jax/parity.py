"""Whether others compute the same: transformers + PEFT, any framework, another machine.

Examples:
  python -m bua_jax.parity --model=runs/quickstart --output=runs/parity
  python -m bua_jax.parity export --model=runs/quickstart --output=runs/step
  python -m bua_jax.parity check --input=runs/step/answer.json --folder=runs/step
  python -m bua_jax.parity machines --runs=runs/here,runs/there --seeds=runs/seed1,runs/seed2

The first holds a training step of a run, and that of transformers + PEFT (float32), against float64; it
writes parity.json, the batch, the reference. `export` writes a folder with check.py (numpy alone): run it in
a copy, with another framework's arrays; `check` reads its answer. `machines`: where two runs of one config
part, and whether metrics differ more than those of seeds. Exit code 1: something is above its tolerance.
"""

import sys
from typing import Any

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("action", "", "export, check, machines, or nothing; the name may be left out.")
flags.DEFINE_string("model", "", "Workdir of a trained run; default runs/curriculum.")
flags.DEFINE_string("output", "", "Folder to write.")
flags.DEFINE_integer("dialogues", 8, "Validation dialogues to compare on.", lower_bound=1)
flags.DEFINE_float("tolerance", None, "Of all quantities, not each its own.", lower_bound=0.0)
flags.DEFINE_string("input", "", "check: the answer.json that check.py wrote.")
flags.DEFINE_string("folder", "", "check: the folder that was exported.")
flags.DEFINE_list("runs", [], "machines: two workdirs.")
flags.DEFINE_list("seeds", [], "machines: workdirs that differ from the first in the seed alone.")


def main() -> None:
    actions = {"": _compare, "export": _export, "check": _check, "machines": _machines}
    if FLAGS.action not in actions:
        raise ConfigError(f"There is no action {FLAGS.action!r}: export, check, machines, or none.")
    needed = {"check": ("input", "folder"), "machines": ("runs",)}.get(FLAGS.action, ("output",))
    for name in needed:
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is needed; see --help for what it is.")
    files.check_folder(FLAGS.output or ".", f"--output={FLAGS.output}")
    from bua_jax.planning.report import print_table

    tables, wrong = actions[FLAGS.action]()
    for table in tables:
        print_table(table.title, table.header, table.rows)
    sys.exit(wrong)


def _compare() -> tuple[list[Any], bool]:
    from bua_jax.agreement import run

    model, how = FLAGS.model or "runs/curriculum", (FLAGS.dialogues, FLAGS.tolerance)
    return run.judged(model, FLAGS.output, *how)


def _export() -> tuple[list[Any], bool]:
    from bua_jax.agreement.export import export_step

    export_step(FLAGS.model or "runs/curriculum", FLAGS.output, dialogues=FLAGS.dialogues)
    return [], False


def _check() -> tuple[list[Any], bool]:
    from bua_jax.agreement import export

    return export.judged(FLAGS.input, FLAGS.folder)


def _machines() -> tuple[list[Any], bool]:
    from bua_jax.agreement import machines

    return machines.asked(FLAGS.runs, FLAGS.seeds)


if __name__ == "__main__":
    cli.run(main, argument="action")
