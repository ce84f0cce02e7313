"""README.md of a run's folder: what lies there, what made it, and what goes on with it.

It is for people: nothing reads it, and no hash is over it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bua_jax.basics import files
from bua_jax.basics.console import in_markdown, visible

NAME = "README.md"
MARK = "<!-- written by bua_jax, anew with every command that builds something here -->"

OF_A_RUN = {
    "report.html": "the results: tables, curves, example dialogues; for a browser",
    "metrics.json": "all numbers of the report",
    "run.json": "config and versions of the last command that was not refused",
}
OF_A_STEP = {
    "record.json": "written last, so that a step with it is finished: its config, inputs, hashes, seconds",
    "trained.safetensors, encoder.safetensors": "weights that were trained",
    "events.parquet, windows.parquet, stage1.parquet ...": "events, histories, dialogues",
    "result.arrow": "what a method said about each case",
    "metrics.jsonl, tensorboard/": "losses by step; tensorboard --logdir=. draws them",
    "checkpoints/, best/, tokens_*": "to resume training; `python -m bua_jax.clean .` removes those of "
    "finished steps",
}


def page(
    name: str,
    command: str,
    facts: Mapping[str, str],
    steps: Sequence[tuple[str, str, bool]],
) -> str:
    """The page as Markdown.

    command: as a shell reads it; facts: what else is known of it; steps: (folder, about, whether finished).
    """
    left = sum(not done for _, _, done in steps)
    state = f"{left} of {len(steps)} steps are left to build." if left else "All is built."
    lines = [
        MARK,
        f"# {in_markdown(name)}",
        "",
        f"{state} This command made it; given again it skips what is finished and goes on where it was cut:",
        "",
        "    " + " ".join(visible(command).split("\n")),
    ]
    known = {in_markdown(one): in_markdown(said) for one, said in facts.items()}
    done = {f"`{at}/`": about if ready else f"{about} (to build)" for at, about, ready in steps}
    for title, rows in (
        ("made with | ", known),
        ("file | is", _code(OF_A_RUN)),
        ("step | is", done),
        ("file of a step | is", _code(OF_A_STEP)),
    ):
        lines += ["", f"| {title} |", "|---|---|"]
        lines += [f"| {one} | {said} |" for one, said in rows.items()]
    return "\n".join(lines) + "\n"


def _code(rows: Mapping[str, str]) -> dict[str, str]:
    return {f"`{one}`": said for one, said in rows.items()}


def write_page(folder: Path, text: str) -> None:
    """Writes the page into a run's folder, unless a README.md of somebody else lies there."""
    path = folder / NAME
    if path.is_file() and not path.read_bytes().startswith(MARK.encode()):
        return
    files.write_text(path, text)
