"""Measures this machine: what the types of a frozen base cost (base), how fast it decodes (decode).

Examples:
  python -m bua_jax.bench base --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf
  python -m bua_jax.bench decode --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf --batches=1,8,32
  python -m bua_jax.bench decode --model=runs/quickstart --count=256

`--base` is a Hugging Face directory or a GGUF file; nano if none is given. `decode` decodes random prompts
and scores labels with it, and with `--model` full predictions of a trained run, beside transformers on the
same weights (extra `parity`). What is compared takes turns, so that what else the machine does falls on all.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.table import Table

from bua_jax import cli, files
from bua_jax.console import out
from bua_jax.environment import versions
from bua_jax.models.presets import PRESETS
from bua_jax.pipeline import bench_decode
from bua_jax.pipeline.bench_base import compare_base_types
from bua_jax.pipeline.model import base_folder

FLAGS = flags.FLAGS
flags.DEFINE_string("base", "", "Hugging Face directory, .gguf file or NAME@REVISION; empty: nano.")
flags.DEFINE_integer("rows", 4, "base: rows of a batch.", lower_bound=1)
flags.DEFINE_integer("length", 256, "base: tokens of a row; decode: of a prompt.", lower_bound=2)
flags.DEFINE_list("batches", ["1", "8", "32"], "decode: rows decoded together.")
flags.DEFINE_integer("new", 64, "decode: tokens written per row.", lower_bound=2)
flags.DEFINE_integer("labels", 37, "decode: labels scored.", lower_bound=1)
flags.DEFINE_string("model", "", "decode: workdir of a trained run, for full predictions.")
flags.DEFINE_integer("count", 256, "decode: predictions of --model.", lower_bound=1)
flags.DEFINE_integer(
    "repeats", 5, "Rounds in which all that is compared takes a turn.", lower_bound=1
)
flags.DEFINE_string("output", "", "JSON file to write.")
TASKS = ("base", "decode")


def _print(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(v if isinstance(v, str) else f"{v:.4g}" for v in row.values()))
    out.print(table)


def _base(folder: Path) -> dict[str, Any]:
    found = compare_base_types(folder, rows=FLAGS.rows, length=FLAGS.length, repeats=FLAGS.repeats)
    title = f"{FLAGS.base or 'nano'}: {FLAGS.rows} rows of {FLAGS.length} tokens"
    _print(title, [{"base": kind, **values} for kind, values in found.items()])
    return {"types": found}


def _decode(folder: Path) -> dict[str, Any]:
    if FLAGS.model:
        with tempfile.TemporaryDirectory() as merged:
            predictions = bench_decode.compare_predictions(
                Path(FLAGS.model), Path(merged), count=FLAGS.count, batch=32, repeats=FLAGS.repeats
            )
        alone = "no rounds shared with generation"
        _print(f"{FLAGS.count} predictions of {FLAGS.model}, {alone}", [predictions])
        return {"predictions": predictions}
    decoding = bench_decode.compare_generate(
        folder,
        batches=[int(batch) for batch in FLAGS.batches],
        prompt=FLAGS.length,
        new=FLAGS.new,
        repeats=FLAGS.repeats,
    )
    _print(f"{FLAGS.base or 'nano'}: {FLAGS.new} tokens after {FLAGS.length}", decoding)
    labels = bench_decode.compare_labels(
        folder, labels=FLAGS.labels, prompt=400, repeats=FLAGS.repeats
    )
    _print(
        f"{FLAGS.labels} labels after 400 tokens: ratios of time",
        [{"": name, "ratio": row["ratio"]} for name, row in labels.items()],
    )
    roofline = {
        name: bench_decode.roofline_minutes(PRESETS["qwen2.5-7b"], flops)
        for name, flops in bench_decode.PEAKS.items()
    }
    _print("Roofline of 20,000 predictions with qwen2.5-7b, minutes", [roofline])
    return {"decoding": decoding, "labels": labels, "roofline_minutes": roofline}


def main(task: str) -> None:
    folder = base_folder(ConfigDict({"name": "nano", "path": FLAGS.base}))
    found = _base(folder) if task == "base" else _decode(folder)
    if FLAGS.output:
        record = {"base": FLAGS.base or "nano", **found, "versions": versions()}
        files.write_json(Path(FLAGS.output), record)


if __name__ == "__main__":
    task = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in TASKS else "base"
    cli.run(lambda: main(task))
