"""Records of CSV and TSV files one by one, for files that polars refuses and to find a record's line.

A record is a line, or several where a quoted field holds line breaks.
"""

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bua_jax.basics.errors import DataError

SEPARATORS = {"csv": ",", "tsv": "\t"}
_HEADER = 2**20  # bytes
_ENCODINGS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip",
    b"(\xb5/\xfd": "zstd",
    b"PAR1": "parquet",
}


@dataclass(frozen=True)
class Record:
    """A record of a text file; `line` is its first line, from 1.

    `fields` is None where the record cannot be read: `wrong` then says what was expected, and `text`
    shows the line.
    """

    line: int
    fields: list[str] | None
    wrong: str = ""
    text: bytes = b""


class _Lines:
    """Decodes lines from `position` on, so that reading can begin anew behind a bad one."""

    def __init__(self, lines: Sequence[bytes], position: int) -> None:
        self.lines, self.position = lines, position

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.position >= len(self.lines):
            raise StopIteration
        self.position += 1
        return self.lines[self.position - 1].decode("utf-8-sig" if self.position == 1 else "utf-8")


def records(path: Path, format: str, size: int = -1) -> Iterator[Record]:
    """The records of a file, the header first. Behind a bad one reading goes on at the next line.

    size: about so many bytes are read; -1 = all. Raises `DataError` for other encodings and
    compressed files.
    """
    with open(path, "rb") as file:
        lines = file.readlines(size)
    check_encoding(path, lines[0] if lines else b"")
    position = 0
    while position < len(lines):
        source = _Lines(lines, position)
        reader = csv.reader(source, delimiter=SEPARATORS[format], strict=True)
        try:
            while True:
                position = source.position
                fields = next(reader, None)
                if fields is None:
                    return
                yield Record(position + 1, fields)
        except UnicodeDecodeError:
            yield Record(position + 1, None, "UTF-8 text", lines[position].strip()[:80])
        except csv.Error:
            wrong = (
                "quotes around the whole field and doubled inside, and none that stays open"
                if b'"' in lines[position]
                else "no bare carriage return"
            )
            yield Record(position + 1, None, wrong, lines[position].strip()[:80])
        position += 1


def check_encoding(path: str | Path, start: bytes) -> None:
    """Raises `DataError` if a file that starts with these bytes is not UTF-8 text."""
    known = [name for magic, name in _ENCODINGS.items() if start.startswith(magic)]
    if known or b"\0" in start[:4]:
        name = known[0] if known else "UTF-16 or binary"
        raise DataError(f"{path} is {name}; expected UTF-8 text. Convert or unpack it first.")


def line_of(path: Path, format: str, number: int) -> int:
    """First line of data record `number` (from 1), where earlier ones may have several."""
    try:
        found = next(itertools.islice(records(path, format), number, None), None)
    except (OSError, DataError):
        found = None
    return found.line if found else number + 1


def header(path: Path, format: str) -> list[str]:
    """Names of the columns. Raises `DataError` where that line cannot be read as such."""
    first = next(records(path, format, _HEADER), None)
    names = first.fields if first else None
    if not names:
        wrong = first is not None and first.wrong
        shown = f"{first.text!r}, expected {first.wrong}" if first and wrong else "it is empty"
        raise DataError(f"{path}, line 1 holds no names of columns: {shown}.")
    if names[0].lower().startswith("sep=") and len(names) <= 2:
        raise DataError(
            f"{path}, line 1 is {SEPARATORS[format].join(names)!r}, which tells a spreadsheet how fields are "
            "separated; expected the names of the columns. Take that line out."
        )
    return names


def separator_hint(names: Sequence[str], format: str) -> str:
    """What to say of a header's names that seem to be separated by something else; "" if they do not."""
    own = SEPARATORS[format]
    for other, remedy in _REMEDY.items():
        if other != own and own.join(names).count(other) >= len(names):
            return (
                f" It is separated by {other!r}, expected {own!r} in the format {format}. {remedy}"
            )
    return ""


_REMEDY = {
    "\t": "Set --config.data.format=tsv.",
    ",": "Set --config.data.format=csv.",
    ";": "Write it with commas (decimal commas as points), or as parquet.",
    "|": "Write it with commas, or as parquet.",
}
