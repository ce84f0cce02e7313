"""Measures this machine: a frozen base's types (base), decoding (decode), training (train), data of any
size (events).

Examples:
  python -m bua_jax.bench base --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf
  python -m bua_jax.bench decode --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf --batches=1,8,32
  python -m bua_jax.bench decode --model=runs/quickstart --count=256
  python -m bua_jax.bench decode --base=qwen2.5-7b --parts=generate --dtype=bfloat16 --mesh=8 --batches=256
  python -m bua_jax.bench train --base=smollm2-135m --peers=eager,supervised
  python -m bua_jax.bench train --parts=remat --rows=4 --microbatches=2
  python -m bua_jax.bench events --events=1000000,5000000 --output=runs/bench/events.json

`--base` is a Hugging Face directory or a GGUF file; nano if none is given; for `decode` and `train` also a
preset's name, whose weights are then random. What is compared takes turns, so that what else the machine
does falls on all.

`decode` has three parts. generate: random prompts decoded (`--dtype`, `--mesh`), on a CPU beside transformers
(extra `parity`) and, in float32, llama.cpp (extra `llama-cpp`, which is compiled when it is installed).
types: how often float32 and bfloat16 choose the same token. labels: what scoring them costs. With `--model`
it is full predictions of a trained run instead, beside transformers on the same weights.

`train` has three parts; its weights are always random. peers: a LoRA step on random tokens, one dialogue per
row, beside transformers + PEFT: plain (eager), with torch.compile (compiled), and with logits at supervised
positions only (supervised, supervised_compiled); and beside tunix, in float32 and if google-tunix is
installed (no extra of ours does that). Each is a process of its own, and the losses of the first steps must
agree. packing: how full rows are, and stage-2 dialogues per second, packed and padded. remat: memory and time
of each policy.

`events` runs simulated files through anonymise, data and dialogues, each size in a process of its own;
sizes that `--output` holds are not measured again, and a plot is written beside it.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.table import Table

from bua_jax import cli
from bua_jax.alignment.parts import base_folder
from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.environment import versions
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks import decode, train
from bua_jax.benchmarks.base import compare_base_types
from bua_jax.benchmarks.events import STEPS, bench_events
from bua_jax.evaluation.plots import growth
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import REMAT

TASKS = ("base", "decode", "train", "events")
PARTS = {"train": ("peers", "packing", "remat"), "decode": ("generate", "types", "labels")}
SPEED = (
    "step",
    "seconds",
    "tokens_per_second",
    "supervised_per_second",
    "of_matmul",
    "of_peak",
    "ratio",
    "lowest",
    "highest",
)
MEMORY = (
    "step",
    "loaded_mib",
    "peak_mib",
    "device_peak_mib",
    "compile_seconds",
    "compilations",
    "losses",
)
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "base",
    "",
    "Hugging Face directory, .gguf file or NAME@REVISION; decode, train: or a preset; empty: nano.",
)
flags.DEFINE_integer("rows", None, "Rows of a batch (base: 4, train: 8).", lower_bound=1)
flags.DEFINE_integer(
    "length",
    None,
    "Tokens of a row (base: 256, train: 512), or of decode's prompt (256).",
    lower_bound=2,
)
flags.DEFINE_list("batches", ["1", "8", "32"], "decode: rows decoded together.")
flags.DEFINE_integer("new", 64, "decode: tokens written per row.", lower_bound=2)
flags.DEFINE_integer("labels", 37, "decode: labels scored.", lower_bound=1)
flags.DEFINE_string("model", "", "decode: workdir of a trained run, for full predictions.")
flags.DEFINE_integer("count", 256, "decode: predictions of --model.", lower_bound=1)
flags.DEFINE_list(
    "parts",
    None,
    "What is measured, by default all. "
    + "; ".join(f"{task}: {', '.join(parts)}" for task, parts in PARTS.items())
    + ".",
)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "decode: weights and cache of generate."
)
flags.DEFINE_string(
    "mesh", "1", "decode: devices that generate runs on: N (fsdp=N) or DATAxFSDPxTENSOR."
)
flags.DEFINE_list("peers", [*train.PEERS], "train: what ours is compared with.")
flags.DEFINE_float("supervised_share", 0.25, "train: of a row's tokens.")
flags.DEFINE_integer(
    "microbatches", 1, "train: gradient accumulation, on all sides.", lower_bound=1
)
flags.DEFINE_enum("remat", None, ["none", *REMAT], "train: ours; by default the model config's.")
flags.DEFINE_bool("merge_adapter", None, "train: ours; by default the model config's.")
flags.DEFINE_integer(
    "dialogues", 2000, "train: dialogues that packing is measured on.", lower_bound=1
)
flags.DEFINE_integer(
    "repeats", 5, "Rounds in which all that is compared takes a turn.", lower_bound=1
)
flags.DEFINE_list("events", ["1000000"], "events: rows of the files that are measured.")
flags.DEFINE_integer("windows", 100_000, "events: training windows of the dialogues.")
flags.DEFINE_string(
    "scratch", "runs/bench/events", "events: folder of the files, removed when done."
)
flags.DEFINE_string(
    "output", "", "JSON file to write; events: runs/bench/events.json if not given."
)


def _print(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return value if isinstance(value, str) else f"{value:.4g}"


def _print_part(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    _print(title, [{name: row[name] for name in names} for row in rows])


def _check_names(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    wrong = [name for name in given if name not in known]
    if wrong:
        raise ConfigError(f"--{flag} has {', '.join(wrong)}; it takes some of {', '.join(known)}.")


def _parts(task: str) -> Sequence[str]:
    given = PARTS[task] if FLAGS.parts is None else FLAGS.parts
    _check_names("parts", given, PARTS[task])
    return given


def _base(folder: Path) -> dict[str, Any]:
    rows, length = FLAGS.rows or 4, FLAGS.length or 256
    found = compare_base_types(folder, rows=rows, length=length, repeats=FLAGS.repeats)
    title = f"{FLAGS.base or 'nano'}: {rows} rows of {length} tokens"
    _print(title, [{"base": kind, **values} for kind, values in found.items()])
    return {"types": found}


def _decode(folder: Path) -> dict[str, Any]:
    if FLAGS.model:
        with tempfile.TemporaryDirectory() as merged:
            predictions = decode.compare_predictions(
                Path(FLAGS.model), Path(merged), count=FLAGS.count, batch=32, repeats=FLAGS.repeats
            )
        alone = "no rounds shared with generation"
        _print(f"{FLAGS.count} predictions of {FLAGS.model}, {alone}", [predictions])
        return {"predictions": predictions}
    prompt, parts = FLAGS.length or 256, _parts("decode")
    found: dict[str, Any] = {}
    if "generate" in parts:
        found["decoding"] = decode.compare_generate(
            folder,
            batches=[_whole("batches", batch) for batch in FLAGS.batches],
            prompt=prompt,
            new=FLAGS.new,
            repeats=FLAGS.repeats,
            dtype=FLAGS.dtype,
            mesh=FLAGS.mesh,
        )
        what = f"{FLAGS.base or 'nano'} ({FLAGS.dtype}, mesh {FLAGS.mesh})"
        _print(f"{what}: {FLAGS.new} tokens after {prompt}", found["decoding"])
    if "types" in parts:
        found["types"] = decode.compare_types(folder, batch=8, prompt=prompt, new=FLAGS.new)
        _print("Tokens of the engine that a whole forward ranks first", found["types"])
    if "labels" in parts:
        found["labels"] = decode.compare_labels(
            folder, labels=FLAGS.labels, prompt=400, repeats=FLAGS.repeats
        )
        ratios = [{"": name, "ratio": row["ratio"]} for name, row in found["labels"].items()]
        _print(f"{FLAGS.labels} labels after 400 tokens: ratios of time", ratios)
    found["roofline_minutes"] = {
        name: decode.roofline_minutes(PRESETS["qwen2.5-7b"], flops)
        for name, flops in decode.PEAKS.items()
    }
    title = "Roofline of 20,000 predictions with qwen2.5-7b, minutes"
    _print(title, [found["roofline_minutes"]])
    return found


def _train() -> dict[str, Any]:
    parts = _parts("train")
    _check_names("peers", FLAGS.peers, [*train.PEERS])
    shape = train.make_shape(
        FLAGS.base,
        rows=FLAGS.rows or 8,
        length=FLAGS.length or 512,
        share=FLAGS.supervised_share,
        microbatches=FLAGS.microbatches,
        remat=FLAGS.remat,
        merge_adapter=FLAGS.merge_adapter,
    )
    model = shape.config.model
    what = f"{FLAGS.base or 'nano'} ({model.dtype})"
    batch = (
        f"{shape.rows} rows of {shape.length} tokens, {shape.supervised} of them supervised, "
        f"{shape.microbatches} microbatches"
    )
    found: dict[str, Any] = {
        "sizes": dataclasses.asdict(shape.sizes),
        **{name: getattr(shape, name) for name in ("rows", "length", "supervised", "microbatches")},
        "merge_adapter": model.merge_adapter,
    }
    with tempfile.TemporaryDirectory() as folder:
        train.write_inputs(shape, Path(folder))
        if "peers" in parts:
            rows, facts, left_out = train.compare_peers(
                shape, Path(folder), FLAGS.peers, FLAGS.repeats
            )
            ours = f"ours with remat {model.remat}, {'' if model.merge_adapter else 'no '}merging"
            _print_part(f"{what}: a step of {batch}; {ours}", rows, SPEED)
            _print_part(
                "Memory of each process, compiling, and the losses of the first steps", rows, MEMORY
            )
            rate = facts["matmul_flops_per_second"]
            out.print(
                f"of_matmul: of {rate / 1e9:.4g} GFLOP/s, a large product of this type by JAX"
            )
            for name, reason in left_out.items():
                out.print(f"{name} is left out: {reason}", markup=False)
            found |= {"peers": rows, "left_out": left_out, **facts}
        if "packing" in parts:
            records = train.stage2_records(shape.config, shape.sizes, FLAGS.dialogues)
            fill = train.packing_fill(records, shape.config.seed)
            _print(f"{len(records)} stage-2 dialogues packed", fill)
            packing = train.compare_packing(shape, records, FLAGS.repeats)
            _print(f"{what}: a stage-2 step, dialogues packed and padded", packing)
            found |= {"fill": fill, "packing": packing}
        if "remat" in parts:
            policies = train.compare_remat(shape, Path(folder), FLAGS.repeats)
            _print(f"{what}: remat policies, {batch}", policies)
            found["remat_policies"] = policies
    return found


def _whole(flag: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--{flag} holds {text!r}; give whole numbers such as 1000000,5000000.")
    return int(text)


def _events() -> None:
    output = Path(FLAGS.output or "runs/bench/events.json")
    sizes = [_whole("events", size) for size in FLAGS.events]
    found = bench_events(sizes, output, Path(FLAGS.scratch), windows=FLAGS.windows)
    rows = [
        {
            "events": f"{size['rows']:,}",
            **{f"{step} s": size["seconds"][step] for step in STEPS},
            "total s": sum(size["seconds"].values()),
            "CPU s": sum(size["cpu_seconds"].values()),
            "peak GiB": max(size["peak_gib"].values()),
        }
        for size in found
    ]
    _print(f"{FLAGS.windows:,} training windows", rows)
    panels = {
        quantity: {step: [size[key][step] for size in found] for step in STEPS}
        for quantity, key in (
            ("CPU seconds", "cpu_seconds"),
            ("peak memory (GiB)", "peak_gib"),
        )
    }
    with files.atomic_write(output.with_suffix(".png")) as temporary:
        temporary.write_bytes(growth([size["rows"] for size in found], panels))


def main(task: str) -> None:
    if task == "events":
        _events()
        return
    if task == "train":
        found = _train()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            if task == "decode" and FLAGS.base in PRESETS:
                folder = Path(scratch)
                decode.write_random(folder, FLAGS.base, FLAGS.dtype)
            else:
                folder = base_folder(ConfigDict({"name": "nano", "path": FLAGS.base}))
            found = _base(folder) if task == "base" else _decode(folder)
    if FLAGS.output:
        record = {"base": FLAGS.base or "nano", **found, "versions": versions()}
        files.write_json(Path(FLAGS.output), record)


if __name__ == "__main__":
    task = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in TASKS else "base"
    if task == "train":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers use the device too
    cli.run(lambda: main(task))
