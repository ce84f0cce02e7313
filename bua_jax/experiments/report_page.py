"""NAME.html of an experiment: the page that a run's report has, from what NAME.json holds."""

from collections.abc import Mapping
from typing import Any

from bua_jax.evaluation import findings, plots, tables
from bua_jax.evaluation.report import Forest, Interval, Picture, Report, Section
from bua_jax.experiments import curves, pages
from bua_jax.experiments.paper import FROM


def of_table(said: Mapping[str, Any]) -> Report:
    """The page of rows held against a reference."""
    ours, against = said["reference"], _against(said)
    by_seed = ("row", f"{said['main']} (95 %)", "sd of seeds", "seed: value")
    published = pages.published_rows(said)
    drawn = pages.bars(said)
    return Report(
        title=said["title"],
        verdict=_verdict(said, against),
        forests=[_forest(said, against)] if against else [],
        pictures=[Picture(", ".join(drawn), plots.bars(drawn), findings.of_bars(drawn))]
        if drawn
        else [],
        claims=[
            (f"{claim}, {metric}", held, p) for claim, metric, _, held, p in pages.claims(said)
        ],
        notes=[pages.scope(said), *pages.notes(said)],
        warnings=pages.warnings(said),
        tables=[
            Section("Rows", tuple(pages.header(said)), pages.body(said), frozenset({ours})),
            Section("By seed", by_seed, pages.spread(said), frozenset({ours})),
            *(
                Section(title, columns, rows)
                for title, columns, rows in (
                    ("What was tried", pages.TRIED, pages.tried(said)),
                    ("What it costs", pages.COST, pages.costs(said)),
                )
                if rows
            ),
        ],
        elsewhere=[
            Section(
                "The paper's numbers",
                ("row", "is", *said["columns"]),
                published,
                said=" ".join([f"{FROM}.", *pages.footnotes(said)]),
            )
        ]
        if published
        else [],
        facts={"command": said["command"], **{name: str(text) for name, text in pages.facts(said)}},
    )


def of_curves(said: Mapping[str, Any]) -> Report:
    """The page of validation losses by row."""
    claims = curves.claims(said)
    table = Section("Losses", tuple(curves.header(said)), curves.body(said))
    drawn = {row: _mean_of(by_seed) for row, by_seed in said["losses"].items()}
    return Report(
        title=said["title"],
        verdict=_of_claims([held for *_, held, _ in claims], paper=True),
        claims=[(f"{claim}, {which}", held, p) for claim, which, _, held, p in claims],
        tables=[table],
        pictures=[
            Picture("Validation losses", curves.picture(said), findings.of_curves(drawn)),
        ],
        facts={
            "command": said["command"],
            **{name: str(text) for name, text in curves.facts(said)},
        },
    )


def _against(said: Mapping[str, Any]) -> list[Interval]:
    """The reference minus each row, in points; the largest first."""
    found = []
    for name, row in said["rows"].items():
        pair = row.get("against", {}).get(said["main"])
        if pair is not None and pair["low"] is not None:
            value, low, high = (-100 * pair[key] for key in ("value", "high", "low"))
            found.append(Interval(name, value, low, high))
    return sorted(found, key=lambda line: -line.value)


def _forest(said: Mapping[str, Any], against: list[Interval]) -> Forest:
    return Forest(f"{said['reference']} minus each row, {said['main']}", "points", against)


def _verdict(said: Mapping[str, Any], against: list[Interval]) -> list[str]:
    """What the reference is above and below of, and what became of the paper's claims."""
    pairs = {line.name: {"low": line.low, "high": line.high} for line in against}
    text = tables.verdict(pairs, said["reference"]).replace("`", "")
    verdicts = [claim["verdict"] for claim in said["claims"]]
    return [*filter(None, [text]), *_of_claims(verdicts, paper=pages.of_paper(said))]


def _of_claims(verdicts: list[str], *, paper: bool) -> list[str]:
    if not verdicts:
        return []
    whose = "the paper's" if paper else "the"
    count = {name: verdicts.count(name) for name in ("held", "not held", "undecided")}
    return [
        f"Of {whose} {len(verdicts)} claims {count['held']} hold here, {count['not held']} do not, and "
        f"{count['undecided']} cannot be told at this size."
    ]


def _mean_of(by_seed: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Lines of all seeds, as `findings.of_curves` reads them."""
    return {
        f"validation {task} {seed}": [(round(100 * share), value) for share, value in points]
        for seed, by_task in by_seed.items()
        for task, points in by_task.items()
    }
