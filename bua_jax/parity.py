"""Compares a trained run with transformers + PEFT: hidden states, logits, losses, gradients.

Examples:
  python -m bua_jax.parity --model=runs/quickstart --output=runs/parity
  python -m bua_jax.parity --model=runs/quickstart --output=runs/parity --dialogues=32 --tolerance=1e-3

On validation dialogues of the run: transformers in float32 on the CPU, this package in the run's dtype on
jax's default device (JAX_PLATFORMS=cpu for the CPU). Prints a table, writes parity.json,
and batch.safetensors with reference.safetensors, by which any other framework can be checked. The exit
code is 1 if a difference is above the tolerance. Needs the extra `parity`.
"""

import sys
from pathlib import Path

from absl import flags
from rich.table import Table

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
flags.DEFINE_string("output", "", "Folder to write.")
flags.DEFINE_integer("dialogues", 8, "Validation dialogues to compare on.", lower_bound=1)
flags.DEFINE_float("tolerance", 1e-3, "Largest difference that passes.", lower_bound=0.0)


def main() -> None:
    from bua_jax.basics.environment import versions
    from bua_jax.pipeline.parity import compare

    if not FLAGS.output:
        raise ConfigError("--output is needed: a folder, for example --output=runs/parity.")
    files.check_folder(FLAGS.output, f"--output={FLAGS.output}")
    found = compare(FLAGS.model, FLAGS.output, dialogues=FLAGS.dialogues)
    table = Table(title=f"bua_jax against transformers + PEFT, {FLAGS.dialogues} dialogues")
    for column in ("what", "difference", ""):
        table.add_column(column, justify="right" if column == "difference" else "left")
    passed = {name: value <= FLAGS.tolerance for name, value in found.items()}
    for name, value in found.items():
        table.add_row(name, f"{value:.2e}", "ok" if passed[name] else "above the tolerance")
    out.print(table)
    record = {"tolerance": FLAGS.tolerance, "differences": found, "versions": versions()}
    files.write_json(Path(FLAGS.output) / "parity.json", record)
    if not all(passed.values()):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
