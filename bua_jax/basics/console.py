"""What a person sees: progress bars with an ETA, notices, and errors as one paragraph.

Labels, paths and texts of models are printed as they are: no markup is read in them, and what a
terminal would obey is spelled out.
"""

import contextlib
import errno
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bua_jax.basics.errors import BuaError, Interrupted

T = TypeVar("T")


_OBEYED = ("Cc", "Cs")  # Unicode categories: control characters, surrogates
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder what follows


def visible(text: str) -> str:
    """`text` with its control characters, lone surrogates and marks of direction as escapes.

    Line feeds and tabs stay.
    """

    def shown(c: str) -> str:
        obeyed = c in _TURNING or (unicodedata.category(c) in _OBEYED and c not in "\n\t")
        return c.encode("unicode_escape").decode() if obeyed else c

    return "".join(map(shown, text))


def in_markdown(text: str) -> str:
    """`text` as Markdown, also in a cell of a table, that shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|$&])", r"\\\1", " ".join(visible(text).split()))


class _Plain(Console):
    """A console that prints strings as `visible` text without markup; wraps nothing in files and pipes."""

    said, drawing = 0.0, False  # when it last printed (monotonic), and whether it shows a bar

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = 160

    def print(self, *objects: Any, **options: Any) -> None:
        self.said = time.monotonic()
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # all strings pass here, cells too
        return super().render_str(visible(text), **options)


out = _Plain(stderr=False)
err = _Plain(stderr=True)


SOON, EVERY, LATE = 2.0, 30.0, 35.0
"""Seconds after which something is said of what goes on; between two lines of it where nothing else is said;
and after which a step speaks, of which nothing more exact has been said."""


@contextlib.contextmanager
def _regularly(say: Callable[[], None], first: float) -> Iterator[None]:
    """While the block runs `say` is called when nothing else is said for half a minute, and no bar is shown.

    first: after fewer seconds than that it is called in any case.
    """
    done = threading.Event()

    def work() -> None:
        every, pause, due = max(first, EVERY), first, first < EVERY
        while not done.wait(pause):
            quiet = time.monotonic() - err.said
            if due or (quiet >= every and not err.drawing):
                say()
                quiet = 0.0
            due, pause = False, max(every - quiet, every / 20)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Lines(Progress):
    """In a bar's place where no terminal is: a line every half minute."""

    def line(self) -> None:
        for task in self.tasks:
            total = "" if task.total is None else f" of {task.total:.0f}"
            left = task.time_remaining
            eta = "" if left is None else f", {left / 60:.1f} min left"
            notice(f"{task.description}: {task.completed:.0f}{total}{eta}")


@contextlib.contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar with count, elapsed time and ETA; in a log a line every half minute."""
    if not err.is_terminal:
        with _Lines(console=err, disable=True) as lines, _regularly(lines.line, EVERY):
            yield lines
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    err.drawing = True
    try:
        with Progress(*columns, console=err) as display:
            yield display
    finally:
        err.drawing = False


@contextlib.contextmanager
def waiting(what: str, first: float | None = None) -> Iterator[None]:
    """Says what takes longer than `first` (two) seconds, and every half minute that it still does.

    For what nobody can say how far it is: compiling, hashing; a whole step, where nothing in it says more.
    """
    begin, soon = time.monotonic(), SOON if first is None else first
    with _regularly(lambda: notice(f"{what}: {time.monotonic() - begin:.0f} s so far"), soon):
        yield


def first_waited(call: Callable[..., T], what: str) -> Callable[..., T]:
    """`call`, of whose first time `waiting` says what it is: of a jitted function that is compiling."""
    called = False

    def wrapped(*arguments: Any) -> T:
        nonlocal called
        with contextlib.nullcontext() if called else waiting(what):
            called = True
            return call(*arguments)

    return wrapped


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterates over `items` behind a progress bar."""
    with bar() as display:
        yield from display.track(items, total=total, description=description)


def notice(message: str) -> None:
    """Prints one line to stderr; stdout stays clean for results."""
    err.print(message)


def mute() -> None:
    """From now on nothing is printed but the error that ends the process."""
    out.quiet = err.quiet = True


def _say_unraisable(what: Any) -> None:
    """Shows an error of a thread that nobody can catch.

    But for reads of a damaged checkpoint that were given up and still report to the loop that asked for them.
    """
    if not (isinstance(what.exc_value, RuntimeError) and "loop is closed" in str(what.exc_value)):
        sys.__unraisablehook__(what)


_STORAGE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def run_verb(main: Callable[[], None]) -> None:
    """Runs a verb: a `BuaError` becomes one paragraph on stderr and exit code 2, Ctrl-C exit code 130.

    So does an error of storage that nobody has named better.
    """
    sys.unraisablehook = _say_unraisable
    try:
        main()
    except Interrupted as stop:
        err.quiet = False
        err.print(str(stop))
        sys.exit(stop.exit_code)
    except BuaError as error:
        err.quiet = False
        err.print(f"{type(error).__name__}: {error}", style="red")
        sys.exit(2)
    except BrokenPipeError:  # whoever read has seen enough: --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as shells say it of SIGPIPE
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        err.quiet = False
        where = f" {error.filename}" if error.filename else ""
        err.print(
            f"{type(error).__name__}:{where}: {error.strerror}. Free disk space, or give a place that "
            "can be read and written; what was finished is as it was.",
            style="red",
        )
        sys.exit(2)
    except KeyboardInterrupt:
        notice(
            "Interrupted. Steps, checkpoints and parts that were finished are on disk; the same command "
            "goes on after them."
        )
        sys.exit(130)
