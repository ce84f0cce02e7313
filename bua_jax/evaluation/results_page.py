"""A run's results as a page of docs/results, written from its metrics and records; no number is typed.

NAME.json holds the metrics with the command, commit, date, machine and seeds that they come from, NAME.md
and NAME.svg show them, and the README shows some of their rows between its markers. The date is that of
the evaluation's record, the command is what gives the recorded config.

python -m bua_jax.evaluation.results_page --run=runs/quickstart --config=configs/quickstart.py
"""

import argparse
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics import files, interrupts
from bua_jax.basics.console import out, run_verb
from bua_jax.basics.errors import DataError, MismatchError
from bua_jax.evaluation import tables

SHORT = ("majority", "markov_counts", "lightgbm", "sasrec", "behavegpt", "bua")
"""The README's rows."""
SHORT_HEADER = ("method", "rec_w (95 %)", "tail", "log-loss", "HR@3", "BUA minus it (95 %)")
_SEEDS = ("seed", "windows.seed", "data.seed", "data.split_seed")
_PACKAGES = ("python", "jax", "flax", "lightgbm", "sacrebleu")

# ------------------------------------------------------------------------------- what a run says


def collect(run: Path, argument: str, name: str) -> dict[str, Any]:
    """What NAME.json holds of a run whose evaluation is finished.

    argument: the config file that it was started with, FILE[:KEY=VALUE,...]. Raises `DataError` where the
    run lacks a record or metrics.json is not what its evaluation wrote, `MismatchError` for a config file
    with other fields.
    """
    records = _records(run / "evaluation")
    record, metrics = records[0], run / "evaluation" / "metrics.json"
    if files.sha256_of(metrics) != record["files"].get(metrics.name):
        raise DataError(
            f"{metrics} is not what the evaluation wrote. Write it again with: "
            f"python -m bua_jax.evaluate --workdir={run}"
        )
    found = files.read_json(metrics)
    for row in found["prediction"].values():
        row.pop("classes", None)
    values = configs.settings(ConfigDict(record["config"]), record["config"])
    machines = {
        tuple(one["hardware"].items()): one["hardware"] for one in records if "hardware" in one
    }
    written = (run / "evaluation" / "record.json").stat().st_mtime
    return {
        "command": command_of(values, argument, name),
        "commits": sorted({str(one["versions"]["git"]) for one in records}),
        "date": datetime.fromtimestamp(written, UTC).date().isoformat(),
        "machines": list(machines.values()),
        "minutes": round(sum(one["seconds"] for one in records) / 60, 1),
        "seeds": {name: values[name] for name in _SEEDS if name in values},
        "versions": {name: record["versions"].get(name) for name in ("bua_jax", *_PACKAGES)},
        "data": values["data.name"],
        "metrics": found,
    }


def _records(folder: Path) -> list[dict[str, Any]]:
    """The record of a step, then those of all that it was built from, each once."""
    left, found = [folder], {}
    while left:
        here = left.pop().resolve()
        if here in found:
            continue
        path = here / "record.json"
        if not path.is_file():
            raise DataError(
                f"There is no {path}: expected a run whose evaluation is finished. Build it with: "
                "python -m bua_jax.curriculum"
            )
        found[here] = files.read_sealed(path)
        left += [here / other for other in found[here]["folders"].values()]
    return list(found.values())


def command_of(values: Mapping[str, Any], argument: str, name: str) -> str:
    """The command whose config has these values (dotted names), from a config file on.

    Raises `MismatchError` if the file's config has other fields.
    """
    path, _, given = argument.partition(":")
    shipped = configs.plain(configs.load(path, given))
    before = configs.settings(ConfigDict(shipped), shipped)
    if other := sorted(before.keys() ^ values.keys()):
        raise MismatchError(
            f"The run's config and {argument} differ in the field {other[0]}. Name the config that it was "
            "started with: --config=FILE[:KEY=VALUE,...]."
        )
    changed = {field: value for field, value in values.items() if value != before[field]}
    words = ["python", "-m", "bua_jax.curriculum", f"--config={argument}", f"--workdir=runs/{name}"]
    for field, value in changed.items():
        words.append(f"--config.{field}={tuple(value) if isinstance(value, list) else value}")
    return shlex.join(words)


# ----------------------------------------------------------------------------------- how it is shown


def page(name: str, said: Mapping[str, Any]) -> str:
    """NAME.md from what NAME.json holds."""
    metrics = said["metrics"]
    scored = metrics["prediction"][tables.main_row(metrics["prediction"])]
    parts = [
        f"# Results: {name}\n\nWhat one run measured on `{said['data']}`. A command wrote this page from "
        f"[{name}.json]({name}.json); do not edit it. [Speeds](speeds.md) are another page, "
        "[reproduction](../reproduction.md) what the paper reports.\n",
        f"```bash long\n{said['command']}\n```\n",
        tables.markdown(("of the run", ""), _facts(said)),
        *(f"**{warning}**\n" for warning in _warnings(metrics, scored)),
        f"![rec_w of every method with its interval]({name}.svg)\n",
        f"## Prediction\n\n{tables.scope(scored)}. Percent, log-loss in nats. "
        "[What the metrics mean](../experiments.md#metrics).\n",
        tables.markdown(tables.HEADER, tables.rows(metrics["prediction"])),
    ]
    if against := scored.get("against"):
        body = [[other, _difference(pair)] for other, pair in against.items()]
        parts += ["BUA's rec_w minus that of another method, in points:\n"]
        parts += [
            tables.markdown(("method", "BUA minus it (95 %)"), body),
            tables.verdict(against) + "\n",
        ]
    if oracle := metrics.get("oracle"):
        parts += ["## Reference answers given\n"]
        parts += [tables.markdown(tables.ORACLE_HEADER, tables.oracle_rows(oracle))]
    if rows := tables.truth_rows(metrics.get("texts", {})):
        parts += ["## Are the texts true?\n", tables.markdown(tables.TRUTH_HEADER, rows)]
    if rows := tables.understanding_rows(metrics.get("understanding", {})):
        parts += [
            "## What texts say of people\n\n[What is measured](../understanding.md).\n",
            tables.markdown(tables.UNDERSTANDING_HEADER, rows),
        ]
    if rows := tables.generation_rows(metrics["generation"]):
        parts += ["## Generated days\n", tables.markdown(tables.GENERATION_HEADER, rows)]
    if originality := metrics.get("originality"):
        rows = tables.originality_rows(originality)
        parts += ["## Are days copies?\n", tables.markdown(tables.ORIGINALITY_HEADER, rows)]
    parts.append(f"## Signature\n\n```text long\n{metrics['signature']}\n```\n")
    return "\n".join(parts)


def _warnings(metrics: Mapping[str, Any], scored: Mapping[str, Any]) -> list[str]:
    return [*filter(None, [tables.caution(scored)]), *metrics.get("warnings", ())]


def _facts(said: Mapping[str, Any]) -> list[list[str]]:
    machines = [
        f"{one['device']}" + (f", {one['cores']} cores" if one["cores"] else "")
        for one in said["machines"]
    ]
    return [
        ["commit", ", ".join(said["commits"])],
        ["date", said["date"]],
        ["machine", "; ".join(machines)],
        ["minutes in its steps", f"{said['minutes']}"],
        ["seeds", ", ".join(f"{field}={value}" for field, value in said["seeds"].items())],
        ["versions", ", ".join(f"{package} {v}" for package, v in said["versions"].items())],
    ]


def _difference(pair: Mapping[str, float]) -> str:
    value, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def short_table(prediction: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's rows of a run, as Markdown, and what they say of BUA."""
    against = prediction.get("bua", {}).get("against", {})
    body = []
    for name in (name for name in SHORT if name in prediction):
        row = prediction[name]
        low, high = (100 * bound for bound in row["rec_w_interval"])
        shown = [tables.cell(row.get(metric), metric) for metric in ("tail", "log_loss", "hr@3")]
        difference = _difference(against[name]) if name in against else ""
        body.append(
            [name, f"{100 * row['rec_w']:.1f} ({low:.1f} to {high:.1f})", *shown, difference]
        )
    said = tables.verdict({name: pair for name, pair in against.items() if name in SHORT})
    return tables.markdown(SHORT_HEADER, body) + "\n" * bool(said) + said + "\n" * bool(said)


def with_results(text: str, name: str, table: str) -> str:
    """`text` with a table between `<!-- results:NAME -->` and `<!-- /results:NAME -->`, if it has them."""
    begin, end = f"<!-- results:{name} -->\n", f"<!-- /results:{name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}{table}{end}", text, flags=re.DOTALL)


def picture(said: Mapping[str, Any]) -> str:
    """NAME.svg: rec_w of every method in percent, with its interval."""
    rows = {
        name: (100 * row["rec_w"], *(100 * bound for bound in row["rec_w_interval"]))
        for name, row in said["metrics"]["prediction"].items()
    }
    title = f"Next behaviours predicted right (rec_w, %) on {said['data']}, 95 % intervals"
    return intervals(rows, title, main="bua")


def write(name: str, said: Mapping[str, Any], folder: Path, readme: Path) -> None:
    """Writes NAME.json, NAME.md and NAME.svg into the folder, and renews the README's table."""
    files.write_json(folder / f"{name}.json", said)
    files.write_text(folder / f"{name}.md", page(name, said))
    files.write_text(folder / f"{name}.svg", picture(said))
    table = short_table(said["metrics"]["prediction"])
    files.write_text(readme, with_results(readme.read_text(encoding="utf-8"), name, table))


# -------------------------------------------------------------------------------------- the picture

_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.grid { stroke: #d1d9e0 } .bar { stroke: #59636e; stroke-width: 2 } .dot { fill: #59636e }
.main { stroke: #0969da; fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .grid { stroke: #3d444d } .bar { stroke: #9198a1 } .dot { fill: #9198a1 }
  .main { stroke: #4493f8; fill: #4493f8 }
}
</style>"""
_LEFT, _WIDTH, _ROW, _TOP = 150, 480, 24, 36


def intervals(rows: Mapping[str, tuple[float, float, float]], title: str, *, main: str = "") -> str:
    """A line per row: a dot at its value between the ends of its interval (value, low, high), all >= 0.

    main: the row that is set off.
    """
    most = max(10.0, *(high for _, _, high in rows.values()))
    step = next(step for step in (2, 5, 10, 20, 50, 100, most) if most / step <= 6)
    height = _TOP + _ROW * len(rows) + 28
    total = _LEFT + _WIDTH + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" role="img" '
        f'width="{total}" height="{height}">',
        _STYLE,
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
    ]

    def x(value: float) -> str:
        return f"{_LEFT + _WIDTH * value / most:.1f}"

    bottom = _TOP + _ROW * len(rows)
    for mark in range(0, int(most / step) + 1):
        at = x(mark * step)
        lines.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP - 8}" y2="{bottom}"/>')
        lines.append(
            f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{mark * step:g}</text>'
        )
    for row, (name, (value, low, high)) in enumerate(rows.items()):
        y, kind = _TOP + _ROW * row + 8, " main" if name == main else ""
        shown = escape(name)
        lines.append(f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{shown}</text>')
        lines.append(f'<line class="bar{kind}" x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"/>')
        lines.append(f'<circle class="dot{kind}" cx="{x(value)}" cy="{y}" r="5"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"


# ---------------------------------------------------------------------------------------- the verb


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--config", required=True, help="what it was started with: FILE[:KEY=VALUE]"
    )
    parser.add_argument("--name", help="of the page; default: the run's folder")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages")
    args = parser.parse_args()
    name, folder = args.name or args.run.name, args.docs / "results"
    write(name, collect(args.run, args.config, name), folder, args.docs.parent / "README.md")
    out.print(f"{folder / name}.json, .md and .svg, and the table of README.md")


if __name__ == "__main__":
    interrupts.as_usual()
    run_verb(main)
