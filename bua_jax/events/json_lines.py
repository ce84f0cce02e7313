"""Values of a JSON-lines file: UTF-8, a value to a line, lines end with a line feed only."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bua_jax.basics.errors import DataError
from bua_jax.events.records import check_encoding


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value, use null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} stands twice in one object")
    return found


def _value(line: bytes) -> Any:
    found = json.loads(line.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
    if b"\\u" in line:  # by which half of a character may stand there, that no file can hold
        json.dumps(found, ensure_ascii=False).encode()
    return found


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of each line of a file; see `json_values`."""
    with open(path, "rb") as file:
        yield from json_values(path, file)


def json_values(called: str | Path, lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of each line that is not empty. A byte order mark is skipped.

    called: where the lines come from, for errors. Raises `DataError` naming that and the line: other
    encodings, compressed files, malformed lines, names
    that stand twice in an object, NaN and infinities, values that are nested too deep or too long.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            check_encoding(called, line)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = _value(line)
        except json.JSONDecodeError as error:
            wrong = f"not valid JSON ({error.msg}, column {error.colno})"
        except UnicodeDecodeError as error:
            wrong = f"not UTF-8 text (byte {error.start + 1})"
        except UnicodeEncodeError as error:
            wrong = f"half a character ({error.object[error.start : error.end]!a})"
        except RecursionError:
            wrong = "nested too deep"
        except ValueError as error:  # of the hooks above, and of numbers with too many digits
            wrong = str(error).partition(";")[0]
        else:
            yield number, value
            continue
        raise DataError(f"{called}, line {number}: {wrong}. Expected one JSON object per line.")
