"""A plan, or the check of a file, on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bua_jax.basics.console import notice, out
from bua_jax.evaluation.report import Report


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    most: int | None = None,
    rest: str = "",
) -> None:
    """Prints a table whose first column is to the left; of more rows than `most`, that `rest` has them."""
    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    for row in rows[:most]:
        table.add_row(*row)
    out.print(table)
    if most is not None and len(rows) > most:
        out.print(f"and {len(rows) - most:,} more, which {rest} have")


def print_report(report: Report | None) -> None:
    """The tables of a page, and what it warns of; of none nothing."""
    if report is None:
        return
    for line in report.verdict:
        out.print(line)
    for table in report.tables:
        print_table(table.title, table.header, table.rows)
    for warning in report.warnings:
        notice(warning)


def _gib(size: float | None) -> str:
    return "too much" if size is None else f"{size / 2**30:.2f}"


def print_plan(plan: Mapping[str, Any]) -> None:
    """Prints what `planning.plan.make_plan` found."""
    _print_setting(plan)
    _print_memory(plan["memory"])
    _print_collectives(plan["collectives"])
    _print_times(plan)
    most = plan.get("largest_batch")
    if most:
        word = "" if most["certain"] else "at least "
        out.print(
            f"Largest batch: {word}{most['rows_per_device']} rows per device, {most['rows']} rows per "
            f"step, about {most['dialogues']:.0f} dialogues"
        )
    target = plan["target"]
    out.print(
        f"Peak {target['peak'] / 1e12:.0f} TFLOP/s, memory {target['bandwidth'] / 1e9:.0f} GB/s, "
        f"interconnect {target['wire'] / 1e9:.0f} GB/s one way. Source: {target['source']}"
    )
    for note in plan["notes"]:
        notice(f"note: {note}")


def _print_setting(plan: Mapping[str, Any]) -> None:
    target, packing = plan["target"], plan["packing"]
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


def _print_memory(memory: Mapping[str, Any]) -> None:
    shown = {k: v for k, v in memory.items() if k not in ("capacity", "limit", "fits")}
    rows = [(name, _gib(size)) for name, size in shown.items()]
    share = memory["limit"] / memory["capacity"]
    rows += [
        ("capacity", _gib(memory["capacity"])),
        (f"limit ({share:.0%})", _gib(memory["limit"])),
    ]
    title = f"Memory of a device, GiB: {'fits' if memory['fits'] else 'does NOT fit'}"
    print_table(title, ("what", "GiB"), rows)


def _print_collectives(found: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        "Collectives of a step, per device (loops counted by their length)",
        ("kind", "devices", "instructions", "executions", "GiB", "GiB sent", "largest, MiB"),
        [
            (
                row["kind"],
                *(str(row[k]) for k in ("devices", "instructions", "executions")),
                _gib(row["bytes"]),
                _gib(row["wire"]),
                f"{row['largest'] / 2**20:.1f}",
            )
            for row in found
        ],
    )


def _print_times(plan: Mapping[str, Any]) -> None:
    flops, seconds, hours = plan["flops"], plan["seconds"], plan["hours_per_epoch"]
    print_table(
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
