"""The table of a run: methods by metrics, for the terminal, the README and the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from bua_jax.basics.console import notice, out

METRICS = ("rec_w", "prec_w", "overall", "head", "medium", "tail", "log_loss", "hr@3", "ece")
SIDES = {"event": "behaviour", "timestamp": "slot", "location": "place"}
"""What of generated days is compared with real ones, and the field of a day that holds its ids."""
MEASURES = ("bleu", "tvd", "jsd", "js_distance")
DAY_METRICS = tuple(f"{side}_{measure}" for side in SIDES for measure in MEASURES)
LOWER_IS_BETTER = ("log_loss", "ece", *(m for m in DAY_METRICS if not m.endswith("_bleu")))
# Table 1 of the paper, Honor: private data and a 7B model. Never a target that a run has met.
PAPER = {
    "sasrec": (0.546, 0.535, 0.291, 0.420, 0.340, 0.222),
    "behavegpt": (0.567, 0.551, 0.206, 0.442, 0.354, 0.027),
    "bua": (0.644, 0.642, 0.471, 0.538, 0.489, 0.446),
}


class Meaning(NamedTuple):
    """Of a column: what it is, and an arrow to where better is; empty where neither is."""

    text: str
    arrow: str = ""


_UP, _DOWN = " ↑", " ↓"
MEANING = {
    "rec_w": Meaning("share of windows whose next behaviour was predicted right", _UP),
    "prec_w": Meaning("precision per behaviour, weighted by how often it occurs", _UP),
    "overall": Meaning("recall per behaviour, averaged: every behaviour counts alike", _UP),
    "head": Meaning("the same over behaviours of more than 5 % of the training events", _UP),
    "medium": Meaning("the same over behaviours of 1 to 5 % of the training events", _UP),
    "tail": Meaning("the same over behaviours of less than 1 % of the training events", _UP),
    "log_loss": Meaning("mean negative log-probability of the true behaviour, nats", _DOWN),
    "hr@3": Meaning("share of windows whose true behaviour is among the three likeliest", _UP),
    "ece": Meaning("expected calibration error: how far confidence and accuracy lie apart", _DOWN),
    "rec_w 95 %": Meaning("the middle 95 % of rec_w over resampled test people"),
    "BLEU": Meaning("how far generated days repeat the runs of events of real ones, 0 to 1", _UP),
    "TVD": Meaning("total variation between generated and real distributions; 0: equal", _DOWN),
    "JSD (nats)": Meaning("Jensen-Shannon divergence of them in nats; 0: equal", _DOWN),
    "JS distance": Meaning("the root of that divergence", _DOWN),
    "copied from training": Meaning("share of generated days that are a training day"),
    "distinct": Meaning("share of generated days that are different from each other"),
    "self-BLEU": Meaning("BLEU of each day against the others: high where they repeat"),
    "last event right, %": Meaning("answers that name the window's last event", _UP),
    "top behaviour right, %": Meaning("answers that name a most frequent behaviour first", _UP),
    "counts exact, %": Meaning("counts of the reference that the answer gives exactly", _UP),
    "a behaviour twice, %": Meaning("answers that list a behaviour twice", _DOWN),
    "McNemar p": Meaning("probability of so uneven flips by chance (exact McNemar test)"),
    "precision": Meaning("claims of a text about a person that the log bears out", _UP),
    "recall": Meaning("the log's strongest facts that a text states", _UP),
    "abstention": Meaning("texts without a claim, averaged over the six aspects"),
    "persona_precision": Meaning("claims about who a simulated person is that are true", _UP),
    "persona_recall": Meaning("of who a simulated person is, what a text states", _UP),
    "flips": Meaning("claims that an edit of the log makes false, and that are not repeated", _UP),
    "stays": Meaning("claims that an edit of the log leaves true, and that are repeated", _UP),
    "follows": Meaning("flips + stays - 1: 0 for who repeats all, and for who guesses anew", _UP),
    "spearman": Meaning(
        "rank correlation of strength and metric; -1: it falls at every step", _DOWN
    ),
}
"""What columns are (docs/experiments.md says more)."""


MEANING |= {
    f"{side}_{measure}": Meaning(f"{MEANING[title].text} ({side})", MEANING[title].arrow)
    for side in SIDES
    for measure, title in zip(MEASURES, ("BLEU", "TVD", "JSD (nats)", "JS distance"), strict=True)
}


def metric_of(header: str) -> str:
    """The key of `MEANING` that a column's header begins with; empty where there is none."""
    found = (name for name in MEANING if header == name or header.startswith(f"{name} "))
    return max(found, key=len, default="")


FEW_PEOPLE = 20
"""Below so many test people a bootstrap over them gives intervals that are too narrow."""


def main_row(rows: Mapping[str, Any]) -> str:
    """The method that a page is about: BUA, or the last row where it has none."""
    return "bua" if "bua" in rows else list(rows)[-1]


def scope(metrics: Mapping[str, Any]) -> str:
    """What a method was scored on: windows, and the people they are of where that was counted."""
    people, what = metrics.get("people"), metrics.get("what", "test windows")
    return f"{metrics['n']:,} {what}" + ("" if people is None else f" of {people:,} people")


def caution(metrics: Mapping[str, Any]) -> str:
    """A warning about intervals that rest on few people, or nothing."""
    people = metrics.get("people")
    if people is None or people >= FEW_PEOPLE:
        return ""
    return (
        f"The intervals resample only {people} test people: with fewer than {FEW_PEOPLE} they are too "
        "narrow, and differences between methods mean little."
    )


FAR_FROM_ENCODER = 0.5
"""Nats of log-loss by which a model may be worse than the encoder that it reads through."""


def unread(prediction: Mapping[str, Mapping[str, Any]], classes: int, encoder: str) -> list[str]:
    """Warnings about BUA's rows that say less than guessing, or much less than the encoder's own row.

    Then the base cannot read the labels, whatever the other metrics are. encoder: the method that the
    run's encoder is by itself.
    """
    guessing, found = math.log(classes), []
    own = prediction.get(encoder, {}).get("log_loss")
    for name, row in prediction.items():
        loss = row.get("log_loss")
        if not name.startswith("bua") or loss is None:
            continue
        than = ""
        if loss > guessing:
            than = f"the {guessing:.2f} of guessing among {classes} labels"
        elif own is not None and loss > own + FAR_FROM_ENCODER:
            than = f"the {own:.2f} of its own encoder ({encoder}) by more than {FAR_FROM_ENCODER}"
        if than:
            found.append(
                f"The log-loss of {name} is {loss:.2f} nats, above {than}: the base has not learnt to read "
                "these labels. Give it more dialogues (windows.train, epochs), labels in words that it "
                "knows, or a larger base (docs/nano.md)."
            )
    return found


def verdict(against: Mapping[str, Mapping[str, float]], ours: str = "BUA") -> str:
    """Which methods `ours` is above, level with and below, by the intervals of the differences."""
    sides: dict[str, list[str]] = {"above": [], "not told apart from": [], "below": []}
    for name, pair in against.items():
        side = (
            "above" if pair["low"] > 0 else "below" if pair["high"] < 0 else "not told apart from"
        )
        sides[side].append(f"`{name}`")
    said = (f"{side} {', '.join(names)}" for side, names in sides.items() if names)
    return f"By these intervals {ours} is {'; '.join(said)}." if against else ""


def cell(value: float | None, metric: str) -> str:
    """Percent with one decimal; log-loss in nats, and what is said of days, with three."""
    if value is None:
        return "-"
    whole = metric == "log_loss" or metric in DAY_METRICS
    return f"{value:.3f}" if whole else f"{100 * value:.1f}"


def rows(prediction: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row per method: name, metrics, interval of rec_w, training windows."""
    table = []
    for name, metrics in prediction.items():
        interval = metrics.get("rec_w_interval")
        shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "-"
        values = [cell(metrics.get(metric), metric) for metric in METRICS]
        table.append([name, *values, shown, f"{metrics.get('training_windows', 0):,}"])
    return table


HEADER = ("method", *METRICS, "rec_w 95 %", "training windows")


def rich_table(prediction: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """For the terminal."""
    table = Table(title=title)
    for name in HEADER:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows(prediction):
        table.add_row(*row)
    return table


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *body]]
    return "\n".join(lines) + "\n"


def plain_markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose cells may hold any signs, which are shown as they are."""
    signs = str.maketrans({"|": r"\|", "<": "&lt;", "\\": r"\\"})
    columns, *rows = [[cell.translate(signs) for cell in row] for row in [header, *body]]
    return markdown(columns, rows)


_TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "%_&#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def commented(lines: Sequence[str]) -> str:
    """Lines of LaTeX that are not set."""
    return "".join(f"% {line}\n" for line in lines)


def booktabs(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX table (package booktabs), its texts escaped."""
    lines = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\toprule"]
    for number, row in enumerate([columns, *rows]):
        cells = [cell.translate(_TEX) for cell in row]
        if cells[0][:1] in ("[", "*"):  # which would be an argument of the line's end before it
            cells[0] = "{}" + cells[0]
        lines.append(" & ".join(cells) + r" \\")
        if number == 0:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def generation_rows(generation: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """One row per method and kind: method, kind, BLEU, TVD, JSD, JS distance."""
    return [
        [method, kind, *(f"{values[m]:.3f}" for m in MEASURES)]
        for method, kinds in generation.items()
        for kind, values in kinds.items()
    ]


GENERATION_HEADER = ("method", "of", "BLEU", "TVD", "JSD (nats)", "JS distance")


def oracle_rows(table: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per number of given rounds; see `evaluation.oracle.flips`."""
    return [
        [row["rounds"], cell(row["accuracy"], "rec_w"), *map(str, (row["r2w"], row["w2r"]))]
        + [f"{row['p']:.3g}"]
        for row in table
    ]


ORACLE_HEADER = ("understanding rounds", "rec_w", "right to wrong", "wrong to right", "McNemar p")


def originality_rows(table: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """One row per side; see `evaluation.sequences.originality`."""
    columns = ("copied", "distinct", "self_bleu")
    return [[name, *(f"{values[c]:.3f}" for c in columns)] for name, values in table.items()]


ORIGINALITY_HEADER = ("days", "copied from training", "distinct", "self-BLEU")


def truth_rows(table: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """One row per method that wrote texts; see `evaluation.truth.truth`."""
    columns = ("last", "top", "counts", "repeated")
    return [[name, *(f"{100 * values[c]:.1f}" for c in columns)] for name, values in table.items()]


TRUTH_HEADER = (
    *("answers of", "last event right, %", "top behaviour right, %"),
    *("counts exact, %", "a behaviour twice, %"),
)


UNDERSTOOD = ("precision", "recall", "abstention", "persona_precision", "persona_recall")
UNDERSTANDING_HEADER = ("texts of", *UNDERSTOOD)


def understanding_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """One row per kind of text, each metric with its interval; see `understanding.score.scored`."""
    return [
        [name, *(_with_interval(row["metrics"][metric], metric) for metric in UNDERSTOOD)]
        for name, row in table.get("rows", {}).items()
    ]


def _with_interval(one: Mapping[str, float | None], metric: str) -> str:
    value, low, high = (cell(one[key], metric) for key in ("value", "low", "high"))
    return value if one["value"] is None else f"{value} ({low} to {high})"


LADDER_HEADER = ("spoilt", "metric", "as it is", "all spoilt", "spearman", "others moved")


def ladder_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """One row per corruption; see `understanding.ladder.climb`."""
    return [
        [
            name,
            one["falls"].replace("_", " "),
            *(cell(one["values"][end], one["falls"]) for end in (0, -1)),
            "-" if one["spearman"] is None else f"{one['spearman']:.2f}",
            ", ".join(one["strayed"]).replace("_", " ") or "none",
        ]
        for name, one in table.get("ladder", {}).get("rungs", {}).items()
    ]


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Prints the tables of metrics.json."""
    scored = metrics["prediction"][main_row(metrics["prediction"])]
    out.print(rich_table(metrics["prediction"], f"Prediction, {scope(scored)}"))
    for said in (*filter(None, [caution(scored)]), *metrics.get("warnings", ())):
        notice(said)
    for name, pair in scored.get("against", {}).items():
        low, high = 100 * pair["low"], 100 * pair["high"]
        out.print(
            f"bua - {name}: {100 * pair['difference']:+.1f} points (95 % {low:+.1f} to {high:+.1f})"
        )
    if "texts" in metrics:
        out.print(markdown(TRUTH_HEADER, truth_rows(metrics["texts"])))
    if rows_of_texts := understanding_rows(metrics.get("understanding", {})):
        out.print(markdown(UNDERSTANDING_HEADER, rows_of_texts))
    body = generation_rows(metrics["generation"])
    if body:
        out.print(markdown(GENERATION_HEADER, body))
    if "originality" in metrics:
        originals = originality_rows(metrics["originality"])
        out.print(markdown(ORIGINALITY_HEADER, originals))
    if "oracle" in metrics:
        out.print(markdown(ORACLE_HEADER, oracle_rows(metrics["oracle"])))
    out.print(metrics["signature"])
