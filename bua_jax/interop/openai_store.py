"""Paid answers on disk: every call to a host, what it cost and what came back, in one sqlite file.

A call is written down before it is sent, and what came back, byte for byte, as soon as it is whole. What of
that is an answer is read off those bytes each time (`interop.openai`), so that nothing cut, filtered or
malformed is ever taken for one. The file knows questions by their hashes alone, and no API key.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError

_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,   -- of the question
  url TEXT NOT NULL,
  model TEXT NOT NULL, -- that was asked for
  began REAL NOT NULL, -- seconds since 1970
  ended REAL,
  state TEXT NOT NULL, -- open; received; refused (by its status); lost: it may have been paid for
  status INTEGER,      -- of HTTP
  tokens INTEGER NOT NULL, -- as the host counts them; of what it did not, at most
  cost REAL NOT NULL,
  raw BLOB,            -- what came back
  seal TEXT            -- hash of key and raw
);
CREATE INDEX IF NOT EXISTS calls_by_key ON calls(key);
CREATE TABLE IF NOT EXISTS modes (url TEXT, model TEXT, mode TEXT, PRIMARY KEY (url, model));
"""


class Ledger(NamedTuple):
    """What all calls of a store come to; cost in the currency of `execution.api_limits`."""

    calls: int = 0
    received: int = 0
    lost: int = 0  # whose answer never came in: whether they were paid for is unknown
    tokens: int = 0
    cost: float = 0.0


class Store:
    """The calls of one file, which `opened` makes; one process sends at a time (`interop.openai_calls`)."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    # -- sending

    def begin(self, key: str, url: str, model: str, tokens: int, cost: float) -> int:
        """Writes down that a call is about to be sent, which takes at most so many tokens; its number."""
        row = (key, url, model, time.time(), tokens, cost)
        sql = "INSERT INTO calls (key, url, model, began, tokens, cost, state) VALUES (?,?,?,?,?,?,'open')"
        with self._connection:
            number = self._connection.execute(sql, row).lastrowid
        assert number is not None
        return number

    def received(self, number: int, key: str, raw: bytes, tokens: int, cost: float) -> None:
        """Keeps what came back whole."""
        self._end(number, "received", 200, tokens, cost, raw, _seal(key, raw))

    def refused(self, number: int, status: int, tokens: int) -> None:
        """A status other than 200: it cost nothing, but its question counts as tokens."""
        self._end(number, "refused", status, tokens, 0.0)

    def lost(self, number: int) -> None:
        """No whole answer came: it stays at what it may have cost."""
        with self._connection:
            self._connection.execute(
                "UPDATE calls SET state='lost', ended=? WHERE id=?", (time.time(), number)
            )

    def _end(
        self, number: int, state: str, status: int, tokens: int, cost: float, *raw: object
    ) -> None:
        columns = "state=?, status=?, tokens=?, cost=?, ended=?" + ", raw=?, seal=?" * bool(raw)
        with self._connection:
            self._connection.execute(
                f"UPDATE calls SET {columns} WHERE id=?",
                (state, status, tokens, cost, time.time(), *raw, number),
            )

    def orphans(self) -> int:
        """Calls that were open when their process ended, now lost; only for who alone sends."""
        with self._connection:
            return self._connection.execute(
                "UPDATE calls SET state='lost' WHERE state='open'"
            ).rowcount

    # -- reading

    def of_key(self, key: str) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of all that came back for a question, oldest first."""
        sql = "SELECT id, raw, seal FROM calls WHERE key=? AND state='received' ORDER BY id"
        for number, raw, seal in self._connection.execute(sql, (key,)).fetchall():
            if _seal(key, raw) == seal:
                yield number, raw
            else:
                notice(
                    f"{self._path}: the answer of call {number} was altered or damaged; not used"
                )

    def ledger(self) -> Ledger:
        """The sums over all calls."""
        sql = (
            "SELECT COUNT(*), TOTAL(state='received'), TOTAL(state='lost'), TOTAL(tokens), TOTAL(cost) "
            "FROM calls"
        )
        calls, received, lost, tokens, cost = self._connection.execute(sql).fetchone()
        return Ledger(calls, int(received), int(lost), int(tokens), cost)

    def tokens_since(self, seconds: float) -> int:
        """Tokens of the calls that began in the last `seconds`."""
        sql = "SELECT TOTAL(tokens) FROM calls WHERE began > ?"
        return int(self._connection.execute(sql, (time.time() - seconds,)).fetchone()[0])

    def mode(self, url: str, model: str) -> str:
        """How this host takes a form of answers; empty where nobody has found out."""
        sql = "SELECT mode FROM modes WHERE url=? AND model=?"
        found = self._connection.execute(sql, (url, model)).fetchone()
        return found[0] if found else ""

    def found_mode(self, url: str, model: str, mode: str) -> None:
        """Remembers it: another one would be another question."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO modes VALUES (?,?,?)", (url, model, mode)
            )


def _seal(key: str, raw: bytes) -> str:
    return hashlib.sha256(key.encode() + raw).hexdigest()[:16]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The store in a file, made where there is none, for its owner's eyes alone.

    Raises `DataError` for a file that is none or is damaged, and where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='calls'").fetchone():
                connection.executescript(_TABLES)
            yield Store(connection, path)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"config.execution.api_cache={str(path)!r} cannot be read or written as a cache of paid answers "
        f"({error}). Bring it back from a copy, give room, or name another file; a new one pays anew."
    )
