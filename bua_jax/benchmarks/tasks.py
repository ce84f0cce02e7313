"""What `python -m bua_jax.bench` measures and prints."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks import balancers, decode, packing, train
from bua_jax.benchmarks.base import compare_base_types, compare_weight_types
from bua_jax.benchmarks.events import STEPS, bench_events
from bua_jax.benchmarks.flags import check_names, parts_of, whole
from bua_jax.dialogue.rounds import ROUND_KINDS
from bua_jax.evaluation.plots import growth
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import REMAT
from bua_jax.planning import roofline

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


def measure_base(folder: Path) -> dict[str, Any]:
    """The types of a frozen base; what is found goes to `--output`, here and below."""
    rows, length = FLAGS.rows or 4, FLAGS.length or 256
    notice("measuring a step with each type of the base")
    found = compare_base_types(folder, rows=rows, length=length, repeats=FLAGS.repeats)
    title = f"{FLAGS.base or 'nano'}: {rows} rows of {length} tokens"
    _print(title, [{"base": kind, **values} for kind, values in found.items()])
    return {"types": found}


def measure_decode(folder: Path) -> dict[str, Any]:
    """Decoding, or with `--model` full predictions of a trained run."""
    if FLAGS.model:
        notice(f"measuring {FLAGS.count} predictions, ours and theirs in turn")
        with tempfile.TemporaryDirectory() as merged:
            predictions = decode.compare_predictions(
                Path(FLAGS.model), Path(merged), count=FLAGS.count, batch=32, repeats=FLAGS.repeats
            )
        alone = "no rounds shared with generation"
        _print(f"{FLAGS.count} predictions of {FLAGS.model}, {alone}", [predictions])
        return {"predictions": predictions}
    prompt, parts = FLAGS.length or 256, parts_of("decode")
    found: dict[str, Any] = {}
    if "generate" in parts:
        found["decoding"] = decode.compare_generate(
            folder,
            batches=[whole("batches", batch) for batch in FLAGS.batches],
            prompt=prompt,
            new=FLAGS.new,
            repeats=FLAGS.repeats,
            dtype=FLAGS.dtype,
            mesh=FLAGS.mesh,
        )
        what = f"{FLAGS.base or 'nano'} ({FLAGS.dtype}, mesh {FLAGS.mesh})"
        _print(f"{what}: {FLAGS.new} tokens after {prompt}", found["decoding"])
    if "types" in parts:
        notice("comparing float32 and bfloat16")
        found["types"] = decode.compare_types(folder, batch=8, prompt=prompt, new=FLAGS.new)
        _print("Tokens of the engine that a whole forward ranks first", found["types"])
    if "weights" in parts:
        batches = [whole("batches", batch) for batch in FLAGS.batches]
        found["weights"] = compare_weight_types(
            folder, batches=batches, prompt=prompt, new=FLAGS.new, repeats=FLAGS.repeats
        )
        _print(f"{FLAGS.base or 'nano'}: weights by type", found["weights"])
    if "labels" in parts:
        notice("measuring what scoring labels costs")
        found["labels"] = decode.compare_labels(
            folder, labels=FLAGS.labels, prompt=400, repeats=FLAGS.repeats
        )
        ratios = [
            {"": name, "ratio": row["ratio"], "floor": row.get("floor")}
            for name, row in found["labels"].items()
        ]
        _print(f"{FLAGS.labels} labels after 400 tokens: ratios of time", ratios)
    found["roofline_minutes"] = {
        name: roofline.roofline_minutes(PRESETS["qwen2.5-7b"], flops)
        for name, flops in decode.PEAKS.items()
    }
    title = "Roofline of 20,000 predictions with qwen2.5-7b, minutes"
    _print(title, [found["roofline_minutes"]])
    return found


def measure_train() -> dict[str, Any]:
    """A training step beside its peers, packed beside padded, by remat policy and by balancer."""
    parts = parts_of("train")
    peers = [*train.PEERS] if FLAGS.peers is None else FLAGS.peers
    check_names("peers", peers, [*train.PEERS])
    check_names("remat", [FLAGS.remat] if FLAGS.remat else [], ["none", *REMAT])
    shape = train.make_shape(
        FLAGS.base,
        rows=FLAGS.rows or 8,
        length=FLAGS.length or 512,
        share=FLAGS.supervised_share,
        microbatches=FLAGS.microbatches,
        remat=FLAGS.remat,
        merge_adapter=FLAGS.merge_adapter,
    )
    if "balancers" in parts and shape.rows < 2:
        raise ConfigError(
            "--parts=balancers weighs round kinds, of which each row has one: --rows=2"
        )
    config = shape.config
    what = f"{FLAGS.base or 'nano'} ({config.model.dtype})"
    batch = (
        f"{shape.rows} rows of {shape.length} tokens, {shape.supervised} of them supervised, "
        f"{shape.microbatches} microbatches"
    )
    found: dict[str, Any] = {
        "sizes": dataclasses.asdict(shape.sizes),
        **{name: getattr(shape, name) for name in ("rows", "length", "supervised", "microbatches")},
        "merge_adapter": config.execution.merge_adapter,
    }
    with tempfile.TemporaryDirectory() as folder:
        train.write_inputs(shape, Path(folder))
        if "peers" in parts:
            title = f"{what}: a step of {batch}"
            found |= _peers(shape, Path(folder), peers, title)
        if "packing" in parts:
            records = packing.stage2_records(shape.config, shape.sizes, FLAGS.dialogues)
            fill = packing.packing_fill(records, shape.config.seed)
            _print(f"{len(records)} stage-2 dialogues packed", fill)
            packed = packing.compare_packing(shape, records, FLAGS.repeats)
            _print(f"{what}: a stage-2 step, dialogues packed and padded", packed)
            found |= {"fill": fill, "packing": packed}
        if "remat" in parts:
            policies = train.compare_remat(shape, Path(folder), FLAGS.repeats)
            _print(f"{what}: remat policies, {batch}", policies)
            found["remat_policies"] = policies
        if "balancers" in parts:
            kinds = [n for n in (2, 5, len(ROUND_KINDS)) if n <= shape.rows]
            weighed = balancers.compare_balancers(shape, Path(folder), kinds, FLAGS.repeats)
            _print(f"{what}: balancers of round kinds, {batch}", weighed)
            found["balancers"] = weighed
    return found


def _peers(shape: train.Shape, folder: Path, peers: Sequence[str], title: str) -> dict[str, Any]:
    """Prints and returns a step beside its peers."""
    rows, facts, left_out = train.compare_peers(shape, folder, peers, FLAGS.repeats)
    how = shape.config.execution
    ours = f"ours with remat {how.remat}, {'' if how.merge_adapter else 'no '}merging"
    _print_part(f"{title}; {ours}", rows, SPEED)
    _print_part(
        "Memory of each process, compiling, and the losses of the first steps", rows, MEMORY
    )
    rate = facts["matmul_flops_per_second"]
    out.print(f"of_matmul: of {rate / 1e9:.4g} GFLOP/s, a large product of this type by JAX")
    for name, reason in left_out.items():
        out.print(f"{name} is left out: {reason}")
    return {"peers": rows, "left_out": left_out, **facts}


def measure_events(provenance: Mapping[str, Any]) -> None:
    """The steps that read events, in a process per size; writes its own file and plot.

    provenance: of this command, which stands in the file.
    """
    output = Path(FLAGS.output or "runs/bench/events.json")
    sizes = [whole("events", size) for size in FLAGS.events]
    scratch = Path(FLAGS.scratch)
    found = bench_events(sizes, output, scratch, windows=FLAGS.windows, provenance=provenance)
    rows = [
        {
            "events": f"{size['rows']:,}",
            **{f"{step} s": size["seconds"][step] for step in STEPS},
            "s per 100,000 dialogues": 1e5 * size["seconds"]["dialogues"] / size["dialogues"],
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
