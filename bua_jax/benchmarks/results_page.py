"""What `bench` measured as docs/results/speeds.md, from its files in docs/results/speeds; no number is typed.

Each file holds what was found with the command, date, machine and versions that it comes from:

python -m bua_jax.bench train --parts=balancers --output=docs/results/speeds/balancers.json
python -m bua_jax.benchmarks.results_page
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bua_jax.basics import files, interrupts
from bua_jax.basics.console import out, run_verb
from bua_jax.evaluation.tables import markdown

LEAD = """# Results: speeds

What `python -m bua_jax.bench` measured, file by file. A command wrote this page from the files in
`docs/results/speeds`; do not edit it. [Benchmarks](../benchmarks.md) says what is compared and what the
columns are. The load is how many processes ran or waited in the minute before a measurement began.
"""
_OF_THE_RUN = {"command", "date", "load", "cores", "versions", "settings"}


def page(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """speeds.md from what the files hold, by their names."""
    return "\n".join([LEAD, *(part for name in measured for part in _parts(name, measured[name]))])


def _parts(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    versions = said["versions"]
    packages = ("python", "jax", "torch", "transformers", "peft")
    yield f"## {name}\n"
    yield f"```bash long\n{said['command']}\n```\n"
    facts = {
        "commit": versions["git"],
        "date": said["date"],
        "machine": f"{versions['devices'] or 'cpu'}, {said['cores']} cores, load {said['load']}",
        "versions": ", ".join(f"{one} {versions[one]}" for one in packages if versions[one]),
    }
    found = {key: value for key, value in said.items() if key not in _OF_THE_RUN}
    facts |= {
        key: _cell(value) for key, value in found.items() if not isinstance(value, dict | list)
    }
    yield markdown(("of the measurement", ""), [[key, value] for key, value in facts.items()])
    for key, value in found.items():
        if rows := _rows(value):
            names = list(dict.fromkeys(column for row in rows for column in row))
            body = [[_cell(row.get(column)) for column in names] for row in rows]
            yield f"`{key}`:\n"
            yield markdown(names, body)


def _rows(value: Any) -> list[dict[str, Any]]:
    """The rows of what is shown as a table: a list of rows, rows by name, or one row."""
    if isinstance(value, list):
        return [_flat(row) for row in value if isinstance(row, dict)]
    if not isinstance(value, dict) or not value:
        return []
    if all(isinstance(row, dict) for row in value.values()):
        return [{"": name, **_flat(row)} for name, row in value.items()]
    return [_flat(value)]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """{"seconds": {"data": 1}} -> {"seconds data": 1}"""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        below = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key} {name}".strip(): one for name, one in below.items()}
    return flat


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{float(f'{value:.3g}'):,g}"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What the files of a folder hold, by their names. Raises `DataError` for a damaged one."""
    return {path.stem: files.read_json(path) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages")
    folder = parser.parse_args().docs / "results"
    files.write_text(folder / "speeds.md", page(read(folder / "speeds")))
    out.print(f"{folder / 'speeds.md'}")


if __name__ == "__main__":
    interrupts.as_usual()
    run_verb(main)
