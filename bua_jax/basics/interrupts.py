"""Ctrl-C and SIGTERM: asked once, work is saved before it stops; Ctrl-C twice stops at once."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def asked_to_stop(after: str) -> Iterator[list[str]]:
    """A list that the name of a signal joins which asks to stop; whoever works looks at it.

    `after`: what is done before stopping, said on Ctrl-C; the next Ctrl-C is a `KeyboardInterrupt`.
    Where SIGINT is ignored (nohup, a job in the background) it stays so, and in another thread than the
    main one signals are somebody else's.
    """
    asked: list[str] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # Not print: the signal may have come while it was writing.
            os.write(2, f"\nStopping after {after}; Ctrl-C again stops at once.\n".encode())

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def quiet_while_importing() -> None:
    """Until `as_usual`, Ctrl-C ends the process without a traceback; nothing is begun yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def as_usual() -> None:
    """From now on Ctrl-C is a `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def at_once() -> None:
    """From now on Ctrl-C ends the process as it is: what is left to do is leaving it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Interrupted before anything was begun.\n")
    os._exit(130)


def is_verb() -> bool:
    """Whether `python -m`, or the command `bua`, is importing this package to run a part of it."""
    return [os.path.basename(word) for word in sys.argv[:1]] in (["-m"], ["bua"])
