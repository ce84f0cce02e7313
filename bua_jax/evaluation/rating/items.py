"""What people rate: a person's history, what is said to come next, and texts of several sources about it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.errors import DataError
from bua_jax.evaluation.rating.families import TOLD
from bua_jax.events.json_lines import json_lines

_FIELDS = ("id", "history", "predicted", "texts")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)")
_MARKS = re.compile(
    r"^[-=_*\s|:]+$|^```\w*$"  # rules between paragraphs and below heads, fences
    r"|^(?:\s*(?:>|(?:#{1,6}|[-*+•]|\d+[.)])(?=\s)))+"  # quotes, heads and items of lists, also within
    r"|</?[a-z][^<>\n]*>|[*`]+|~~|(?<!\S)#{1,6}(?!\S)"
    r"|(?<!\w)_{1,2}(?=\S)|(?<=\S)_{1,2}(?!\w)",
    re.MULTILINE | re.IGNORECASE,
)
_BARS = re.compile(r"\s*\|\s*")  # of a table
LEAST_SOURCES = 2
_LONGER = 1.5  # times, from which the length of a source's texts tells whose they are


@dataclass(frozen=True)
class Item:
    """One question to a judge; `texts` are by source, `history` has a line for each day."""

    id: str
    history: tuple[str, ...]
    predicted: str
    texts: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A line of a file of items."""
        return {
            "id": self.id,
            "history": list(self.history),
            "predicted": self.predicted,
            "texts": self.texts,
        }


def read_items(path: Path) -> list[Item]:
    """The items of JSON lines: {"id", "history": [line, ...], "predicted", "texts": {source: text}}.

    All have the same sources, at least two of them. Raises `DataError` naming line and field.
    """
    items: list[Item] = []
    for number, value in json_lines(path):
        where = f"{path}, line {number}"
        item = _item(where, value)
        if any(item.id == other.id for other in items):
            raise DataError(f"{where}: the id {item.id!r} stands twice. Give each item its own.")
        if items and item.texts.keys() != items[0].texts.keys():
            raise DataError(
                f"{where}, field 'texts': sources {_named(item.texts)}, expected those of the first line, "
                f"{_named(items[0].texts)}."
            )
        items.append(item)
    if not items:
        raise DataError(f"{path} holds no item.")
    return items


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Writes what `read_items` reads."""
    lines = (json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in items)
    files.write_text(path, "".join(lines))


def _named(texts: dict[str, str]) -> str:
    return ", ".join(sorted(texts))


def _item(where: str, value: Any) -> Item:
    if not isinstance(value, dict) or sorted(value) != sorted(_FIELDS):
        raise DataError(f"{where}: expected an object with the fields {', '.join(_FIELDS)}.")
    for field in ("id", "predicted"):
        if not isinstance(value[field], str) or not value[field].strip():
            raise DataError(f"{where}, field {field!r}: value {value[field]!r}, expected text.")
    history, texts = value["history"], value["texts"]
    if not (isinstance(history, list) and history and all(isinstance(one, str) for one in history)):
        raise DataError(f"{where}, field 'history': expected a list of lines of text.")
    if not isinstance(texts, dict) or len(texts) < LEAST_SOURCES:
        raise DataError(f"{where}, field 'texts': expected the texts of two sources or more.")
    for source, text in texts.items():
        if not isinstance(text, str) or not plain(text):
            raise DataError(f"{where}, field 'texts': {source!r} has no text.")
    return Item(value["id"], tuple(history), value["predicted"], texts)


def plain(text: str) -> str:
    """A text without what only shows who wrote it: Markdown, line breaks, spaces."""
    bare = _BARS.sub(" ", _MARKS.sub("", _LINK.sub(r"\1", text)))
    return " ".join(bare.split())


def check_tells(items: Sequence[Item]) -> None:
    """Raises `DataError` for a text that names a model, unless the person's own history has that word."""
    for item in items:
        known = " ".join((*item.history, item.predicted)).casefold()
        for source, text in item.texts.items():
            told = [m.group() for m in TOLD.finditer(text) if m.group().casefold() not in known]
            if told:
                raise DataError(
                    f"Item {item.id!r}: the text of {source!r} says {told[0]!r}, which tells a judge whose "
                    "it is. Write it without."
                )


def uneven(items: Sequence[Item]) -> str:
    """What to know of texts whose lengths tell their source, or nothing."""
    words = {
        source: median(len(plain(item.texts[source]).split()) for item in items)
        for source in items[0].texts
    }
    short, long = min(words, key=lambda s: words[s]), max(words, key=lambda s: words[s])
    if words[long] <= _LONGER * words[short]:
        return ""
    return (
        f"Texts of {long!r} have {words[long]:g} words in the median, those of {short!r} {words[short]:g}: "
        "judges may tell them apart by that."
    )
