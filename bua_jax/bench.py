"""Memory, error and speed of a frozen base in float32, bfloat16, int8 and nf4, on this machine.

Examples:
  python -m bua_jax.bench --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf
  python -m bua_jax.bench --rows=8 --length=512 --output=runs/bench.json

Works on a Hugging Face directory or a GGUF file; nano if none is given. The types take turns, so that
what else the machine does falls on all of them.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from rich.table import Table

from bua_jax import cli, files
from bua_jax.console import out
from bua_jax.environment import versions
from bua_jax.pipeline.bench import compare_base_types
from bua_jax.pipeline.model import base_folder

FLAGS = flags.FLAGS
flags.DEFINE_string("base", "", "Hugging Face directory, .gguf file or NAME@REVISION; empty: nano.")
flags.DEFINE_integer("rows", 4, "Rows of a batch.", lower_bound=1)
flags.DEFINE_integer("length", 256, "Tokens of a row.", lower_bound=2)
flags.DEFINE_integer("repeats", 5, "Rounds in which every type is timed once.", lower_bound=1)
flags.DEFINE_string("output", "", "JSON file to write.")


def main() -> None:
    folder = base_folder(ConfigDict({"name": "nano", "path": FLAGS.base}))
    found = compare_base_types(folder, rows=FLAGS.rows, length=FLAGS.length, repeats=FLAGS.repeats)
    table = Table(title=f"{FLAGS.base or 'nano'}: {FLAGS.rows} rows of {FLAGS.length} tokens")
    columns = list(found["float32"])
    for name in ("base", *columns):
        table.add_column(name, justify="left" if name == "base" else "right")
    for kind, values in found.items():
        table.add_row(kind, *(f"{values[name]:.4g}" for name in columns))
    out.print(table)
    if FLAGS.output:
        record = {"base": FLAGS.base or "nano", "types": found, "versions": versions()}
        files.write_json(Path(FLAGS.output), record)


if __name__ == "__main__":
    cli.run(main)
