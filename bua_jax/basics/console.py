"""What a person sees: progress bars with an ETA, notices, and errors as one paragraph."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bua_jax.basics.errors import BuaError

T = TypeVar("T")


def _console(stderr: bool) -> Console:
    """A console that wraps nothing where its output is a file or a pipe."""
    console = Console(stderr=stderr, soft_wrap=True, highlight=False)
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, soft_wrap=True, highlight=False, width=160)
    )


out = _console(stderr=False)
err = _console(stderr=True)


def bar() -> Progress:
    """A progress bar with count, elapsed time and ETA; disappears in logs that are not terminals."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterates over `items` behind a progress bar."""
    with bar() as display:
        yield from display.track(items, total=total, description=description)


def notice(message: str) -> None:
    """Prints one line to stderr; stdout stays clean for results."""
    err.print(message, markup=False)


def mute() -> None:
    """From now on nothing is printed but the error that ends the process."""
    out.quiet = err.quiet = True


def run_verb(main: Callable[[], None]) -> None:
    """Runs a verb: a `BuaError` becomes one paragraph on stderr and exit code 2."""
    try:
        main()
    except BuaError as error:
        err.quiet = False
        err.print(f"{type(error).__name__}: {error}", markup=False, style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        notice("Interrupted. Finished work is on disk; run the same command again to resume.")
        sys.exit(130)
