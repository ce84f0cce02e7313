"""Plans a stage on hardware that is not there: memory, collectives, FLOPs, time, the largest batch.

Examples:
  python -m bua_jax.plan --config=configs/stage2.py:model=qwen2.5-7b,mesh=8 --target=a100-40g:8
  python -m bua_jax.plan --config=configs/stage2.py:model=qwen2.5-7b,mesh=8 --target=v5e:2x4 --json=plan.json
  python -m bua_jax.plan --config=configs/stage1.py:model=qwen2.5-0.5b --target=h100:1 --trials=0

The stage's training step is compiled for its shapes alone, by the target's own compiler: a100-40g,
a100-80g and h100 with a number of GPUs (extra `plan-gpu`), v4, v5e and v5p with a slice's topology (extra
`plan-tpu`). Without it the CPU compiler does it, for as many fake devices: temporaries are then an estimate.
No weights are loaded and no data is read: what a batch looks like is assumed, printed, and set by flags.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.console import notice, out
from bua_jax.basics.environment import versions

FLAGS = flags.FLAGS
flags.DEFINE_string("target", "a100-40g:1", "DEVICE:SHAPE, for example a100-40g:8 or v5e:2x4.")
flags.DEFINE_integer(
    "rows", 0, "Rows per step; 0: what the config's batch of dialogues fills.", lower_bound=0
)
flags.DEFINE_float(
    "dialogue_tokens", 0, "Mean tokens of a dialogue; 0: the stage's, measured.", lower_bound=0
)
flags.DEFINE_float(
    "supervised_share",
    0,
    "Supervised share of the densest dialogue's tokens; 0: the stage's.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_integer("trials", 4, "Compilations to find the largest batch; 0: none.", lower_bound=0)
flags.DEFINE_string("json", "", "JSON file to write.")
_GB = 2**30


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _gib(size: float | None) -> str:
    return "too much" if size is None else f"{size / _GB:.2f}"


def _print(plan: dict[str, Any]) -> None:
    target, packing, memory = plan["target"], plan["packing"], plan["memory"]
    mesh = " x ".join(f"{name} {size}" for name, size in plan["mesh"].items())
    out.print(
        f"{plan['stage']} of {plan['model']} on {target['name']} ({target['title']}), mesh {mesh}: "
        f"{plan['dtype']}, remat {plan['remat']}, attention {plan['attention']}, "
        f"{plan['microbatches']} microbatches; compiled for {plan['compiler']}"
    )
    assumed = plan["dialogues"]
    out.print(
        f"Assumed: {assumed['tokens']:.0f} tokens per dialogue, rows {packing['fill']:.0%} full, room for "
        f"{assumed['supervised']:.0%} supervised tokens and {assumed['events']:.2f} events per token. "
        f"So {packing['rows_per_batch']} rows of {packing['row_length']} tokens hold "
        f"{plan['batch_dialogues']:.0f} dialogues; {packing['steps_per_epoch']:.0f} steps per epoch."
    )
    shown = {k: v for k, v in memory.items() if k not in ("capacity", "limit", "fits")}
    rows = [(name, _gib(size)) for name, size in shown.items()]
    share = memory["limit"] / memory["capacity"]
    rows += [
        ("capacity", _gib(memory["capacity"])),
        (f"limit ({share:.0%})", _gib(memory["limit"])),
    ]
    _table(
        f"Memory of a device, GiB: {'fits' if memory['fits'] else 'does NOT fit'}",
        ("what", "GiB"),
        rows,
    )
    _table(
        "Collectives of a step, per device (loops counted by their length)",
        ("kind", "devices", "instructions", "executions", "GiB", "GiB sent", "largest, MiB"),
        [
            (
                row["kind"],
                *(str(row[k]) for k in ("group", "instructions", "executions")),
                _gib(row["bytes"]),
                _gib(row["wire"]),
                f"{row['largest'] / 2**20:.1f}",
            )
            for row in plan["collectives"]
        ],
    )
    flops, seconds, hours = plan["flops"], plan["seconds"], plan["hours_per_epoch"]
    _table(
        f"Lower bounds of time: {flops['model']:.3g} FLOPs of a step, {flops['executed']:.3g} with remat",
        ("bound by", "s per step", "h per epoch", f"h for {plan['epochs']:g} epochs"),
        [
            (
                name,
                f"{value:.3g}",
                *(f"{hours[name] * n:.3g}" if name in hours else "" for n in (1, plan["epochs"])),
            )
            for name, value in seconds.items()
        ],
    )
    most = plan.get("largest_batch")
    if most:
        word = "" if most["certain"] else "at least "
        out.print(
            f"Largest batch: {word}{most['rows_per_device']} rows per device, {most['rows']} rows per "
            f"step, about {most['dialogues']:.0f} dialogues"
        )
    out.print(
        f"Peak {target['peak'] / 1e12:.0f} TFLOP/s, memory {target['bandwidth'] / 1e9:.0f} GB/s, "
        f"interconnect {target['wire'] / 1e9:.0f} GB/s one way. Source: {target['source']}"
    )
    for note in plan["notes"]:
        notice(f"note: {note}")


def main() -> None:
    # Imported late: a GPU's driver must not make jax look for devices before their number is set.
    import dataclasses

    from bua_jax.planning import plan

    given = {"tokens": FLAGS.dialogue_tokens, "supervised": FLAGS.supervised_share}
    given = {name: value for name, value in given.items() if value}
    assumed = plan.ASSUMED.get(FLAGS.config.step)
    found = plan.make_plan(
        FLAGS.config,
        FLAGS.target,
        dialogues=dataclasses.replace(assumed, **given) if assumed else None,
        rows=FLAGS.rows,
        trials=FLAGS.trials,
    )
    _print(found)
    if FLAGS.json:
        files.write_json(Path(FLAGS.json), {**found, "versions": versions()})


if __name__ == "__main__":
    cli.run(main, config="configs/stage2.py")
