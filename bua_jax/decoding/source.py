"""Where the engine's jobs come from: a list, or a queue that more may join while it runs."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Make = Callable[[], Generator[Any, Any, Any]]
"""Begins a job (`engine.Job`)."""


class Source(Protocol):
    """What the engine asks between two calls of its programs."""

    def take(self, idle: bool) -> tuple[Any, Make] | None:
        """(key, job) for a free row, or None. idle: no row has a job; it may wait, and None is the end."""

    def gone(self, key: Any) -> bool:
        """Whether nobody wants that job's result any more: its row is freed."""

    def heard(self, key: Any, tokens: list[int]) -> None:
        """Is told what a row has written of an answer that is not whole yet."""


@dataclass(frozen=True)
class Listed:
    """Jobs that are there from the beginning; `left`: those that are not taken yet."""

    left: Iterator[tuple[int, Make]]

    def take(self, idle: bool) -> tuple[int, Make] | None:
        """The next one."""
        return next(self.left, None)

    def gone(self, key: int) -> bool:
        """Never."""
        return False

    def heard(self, key: int, tokens: list[int]) -> None:
        """Nobody listens."""
