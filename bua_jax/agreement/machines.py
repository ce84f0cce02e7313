"""Two runs of one config on two machines: where they part, by how much, and whether it matters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.evaluation import results, tables
from bua_jax.evaluation.report import Section
from bua_jax.evaluation.results import Result
from bua_jax.experiments.compare import SHOWN, Finished, differing, finished
from bua_jax.pipeline.steps import EXECUTION, Run, inputs_of, read_record
from bua_jax.training.writers import read_scalars

_OF_TIME = ("_per_second", "input_share")  # how scalars end that no two runs share
_LEVEL = 0.05  # of the test whether two machines differ as two seeds do


def machines(one: str | Path, two: str | Path, seeds: Sequence[str | Path] = ()) -> dict[str, Any]:
    """What differs between two finished runs.

    Keys: environment (version or device -> values of both, where they differ), steps (those that both have,
    in the order in which they are built; see `_step`), metrics (of the main row: values, difference; with
    `seeds` also limit: what two runs that differ in the seed alone exceed in a share 0.05 of cases, by
    Student's t over the first run and `seeds`, and more, whether it is exceeded).

    Raises `MismatchError` where the two differ in more than `execution`, or one of `seeds` not in the seed
    alone, and as `experiments.compare.finished` does.
    """
    a, b, *others = (finished(Path(folder)) for folder in (one, two, *seeds))
    _same_config(a, b, set())
    for other in others:
        _same_config(a, other, {"seed"})
    records = [x.record for x in (a, b)]
    said = [{**r["versions"], **r.get("hardware", {})} for r in records]
    environment = {n: [x.get(n) for x in said] for n in sorted({*said[0], *said[1]})}
    return {
        "environment": {n: v for n, v in environment.items() if v[0] != v[1]},
        "steps": {step: _step(a.run, b.run, step) for step in _shared(a.run, b.run)},
        "metrics": _metrics(a, b, others),
    }


def _same_config(a: Finished, b: Finished, expected: set[str]) -> None:
    fields = {n for n in differing([a, b]) if n.split(".")[0] != EXECUTION}
    if fields != expected:
        wanted = "in the seed alone" if expected else "in nothing but execution.*"
        found = ", ".join(sorted(fields)) or "nothing"
        raise MismatchError(
            f"{a.run.workdir} and {b.run.workdir} differ in {found}, expected {wanted}. Give runs of one "
            "config (python -m bua_jax.compare is for others)."
        )


def _shared(a: Run, b: Run) -> list[str]:
    """Finished steps of both, each after those that it needs."""
    found: list[str] = []

    def walk(step: str) -> None:
        if step in found or read_record(a, step) is None:
            return
        for need in inputs_of(a, step):
            walk(need)
        if read_record(b, step) is not None:
            found.append(step)

    walk("evaluation")
    return [step for step in found if step != "evaluation"]  # its metrics are compared as such


def _step(a: Run, b: Run, step: str) -> dict[str, Any]:
    """Whether what the step wrote is the same, but for times; and where something is logged or answered:

    first, the first training step or case that differs; what, the scalar that differs most in it; by, how
    much of its value (of probabilities: by how much); most, the largest such number of all.
    """
    apart = list(_apart(*(read_scalars(run.folder(step)) for run in (a, b))))
    if step.split("/")[0] in results.COLUMNS:
        said = [results.read(run.folder(step) / results.FILE) for run in (a, b)]
        same, apart = said[0].digest == said[1].digest, list(_answered(*said))
    else:
        records = [read_record(run, step) for run in (a, b)]
        same = len({files.sha256_json(r["files"] if r else None) for r in records}) == 1
    found: dict[str, Any] = {"same": same}
    if apart:
        first = apart[0][0]
        by, what = max((share, name) for at, name, share in apart if at == first)
        found |= {"first": first, "what": what, "by": by}
        found["most"] = max(share for *_, share in apart)
    return found


def _answered(one: Result, two: Result) -> Iterator[tuple[int, str, float]]:
    """(case, what, by how much) of the answers that differ; 1 where it is no number."""
    if len(one) != len(two):
        yield 0, "cases", 1.0
        return
    found: list[tuple[int, str, float]] = []
    for name in one.table.drop_columns(["seconds"]).column_names:
        pairs = zip(one.table[name].to_pylist(), two.table[name].to_pylist(), strict=True)
        for case, (x, y) in enumerate(pairs):
            if x != y:
                number = name == "probability" and x and y
                by = float(np.abs(np.subtract(x, y)).max()) if number else 1.0
                found.append((case, name, by))
    yield from sorted(found)


def _apart(
    one: Sequence[Mapping[str, float]], two: Sequence[Mapping[str, float]]
) -> Iterator[tuple[int, str, float]]:
    """(training step, scalar, share of its value that it differs by) of all that differ, in order."""
    other = {int(record["step"]): record for record in two}
    for record in one:
        step = int(record["step"])
        for name in sorted(record.keys() & other.get(step, {}).keys()):
            x, y = record[name], other[step][name]
            if "/" in name and not name.endswith(_OF_TIME) and x != y:
                yield step, name, abs(x - y) / max(abs(x), abs(y))


def _metrics(a: Finished, b: Finished, others: Sequence[Finished]) -> dict[str, dict[str, Any]]:
    """Of the main row, by name; only what is a number in all runs."""
    row = tables.main_row(a.metrics["prediction"])
    found: dict[str, dict[str, Any]] = {}
    for name in SHOWN:
        values = [x.metrics["prediction"].get(row, {}).get(name) for x in (a, b, *others)]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            continue
        found[name] = {"values": values[:2], "difference": values[1] - values[0]}
        drawn = np.array([values[0], *values[2:]], np.float64)
        if others:
            bound = stats.t.ppf(1 - _LEVEL / 2, len(drawn) - 1) * math.sqrt(2) * drawn.std(ddof=1)
            more = abs(values[1] - values[0]) > bound
            found[name] |= {"limit": float(bound), "more": bool(more)}
    return found


def asked(runs: Sequence[str], seeds: Sequence[str]) -> tuple[list[Section], bool]:
    """What `machines` says of two runs, and whether a metric differs more than seeds do.

    Raises `ConfigError` for another number of runs.
    """
    if len(runs) != 2:
        raise ConfigError(f"--runs={','.join(runs)}: give two, --runs=runs/here,runs/there.")
    found = machines(runs[0], runs[1], seeds)
    return sections(found, runs), any(of.get("more") for of in found["metrics"].values())


def sections(found: Mapping[str, Any], names: Sequence[str]) -> list[Section]:
    """What `machines` found as tables; names: of the two runs."""
    first = next(
        (step for step, of in found["steps"].items() if not of["same"] or "first" in of), ""
    )
    said = f"The first step that differs is {first}." if first else "No step differs."
    rows = []
    for step, of in found["steps"].items():
        row = ["-"] * 4
        if "first" in of:
            row = [str(of["first"]), of["what"], f"{of['by']:.1e}", f"{of['most']:.1e}"]
        rows.append([step, "the same" if of["same"] else "differ", *row])
    header = ("step", "files", "step or case", "what", "by", "at most")
    steps = Section(f"Where they part. {said}", header, rows)
    rows = [
        [name, *(f"{v:.5g}" for v in (*of["values"], of["difference"])), *_judged(of)]
        for name, of in found["metrics"].items()
    ]
    columns = ("metric", *names, "difference", "two seeds", "more than seeds")
    metrics = Section("Whether it matters", columns, rows)
    lines = [[name, *map(str, values)] for name, values in found["environment"].items()]
    lines = lines or [["nothing", "", ""]]
    return [Section("What differs in the machines", ("what", *names), lines), steps, metrics]


def _judged(of: Mapping[str, Any]) -> tuple[str, str]:
    if "limit" not in of:
        return "-", "give --seeds"
    return f"{of['limit']:.5g}", "yes" if of["more"] else "no"
