"""What `--help` of a verb prints: what the verb says of itself, then its own flags by title."""

import itertools
import textwrap
from collections.abc import Iterable
from typing import Any

from absl import flags

WIDTH = 100  # columns of a terminal
_NAMES = 26  # columns of the flags' names

FILES, WORK, EXECUTION = "Input and output", "What it does", "Execution"
TITLES = {
    FILES: (
        *("config", "workdir", "model", "input", "columns", "output", "folder", "runs"),
        *("experiment", "json", "html", "latex", "save", "publish", "key_file", "scratch"),
    ),
    EXECUTION: (
        *("dry_run", "yes", "fresh", "take_over", "mesh", "engine", "ray_address", "ray_cpus"),
        *("ray_gpus", "ray_retries", "distributed", "coordinator", "process_count", "process_id"),
    ),
}
"""By title the flags that stand there, in this order: a name means the same in all verbs. Any other
flag is of what the verb does."""

FIELDS = (
    "Fields of the config are no flags: give one as --config.FIELD=VALUE, for example --config.seed=1, "
    "and parts as --config=FILE:model=NAME,data=NAME. docs/configs.md says what there is."
)
_KINDS = {"int": "N", "float": "X", "comma separated list of strings": "A,B"}


def _name(flag: flags.Flag[Any]) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}"
    values = getattr(flag.parser, "enum_values", None)
    kind = "|".join(values) if values else _KINDS.get(flag.parser.flag_type(), "TEXT")
    return f"--{flag.name}={kind}"


def _said(flag: flags.Flag[Any]) -> str:
    """Its help, with the default where that is something and not said already."""
    text = str(flag.help)
    default = getattr(flag, "default_unparsed", None)  # a given --config has none
    if isinstance(flag, flags.EnumFlag):
        text = text.partition(">: ")[2]  # absl repeats the values there
    if isinstance(default, list | tuple):
        default = ",".join(default)
    if default in (None, "", False, 0) or "default" in text.lower():
        return text
    return f"{text} (default: {default})"


def _entry(flag: flags.Flag[Any]) -> list[str]:
    name = f"  {_name(flag)}"
    lines = textwrap.wrap(_said(flag), WIDTH - _NAMES)
    if len(name) < _NAMES:
        name, lines = name.ljust(_NAMES) + "".join(lines[:1]), lines[1:]
    return [name, *(" " * _NAMES + line for line in lines)]


def _wrapped(about: str) -> list[str]:
    """A docstring's lines: paragraphs as wide as the page, what is indented (commands) as it is."""
    lines: list[str] = []
    for part in about.strip().split("\n\n"):
        for indented, some in itertools.groupby(part.splitlines(), lambda line: line[:1] == " "):
            whole = list(some)
            lines += whole if indented else textwrap.wrap(" ".join(whole), WIDTH)
        lines.append("")
    return lines[:-1]


def grouped(defined: Iterable[flags.Flag[Any]]) -> dict[str, list[flags.Flag[Any]]]:
    """The flags by the title that they stand under; a title without flags is left out."""
    names = {flag.name: flag for flag in defined}
    found = {
        title: [names.pop(name) for name in there if name in names]
        for title, there in TITLES.items()
    }
    order = {FILES: found[FILES], WORK: list(names.values()), EXECUTION: found[EXECUTION]}
    return {title: some for title, some in order.items() if some}


def page(about: str, defined: Iterable[flags.Flag[Any]]) -> str:
    """about: the verb's docstring; defined: its own flags, not those of libraries."""
    lines = _wrapped(about)
    for title, some in grouped(defined).items():
        lines += ["", f"{title}:", *(line for flag in some for line in _entry(flag))]
        if any(flag.name == "config" for flag in some):
            lines += textwrap.wrap(FIELDS, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, "", "--helpfull also lists the flags of libraries."])
