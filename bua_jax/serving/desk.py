"""Between the server's tasks and the engine: histories wait in one queue, a thread answers them together.

The engine's batching is continuous (`decoding/engine.py`): whose row is free takes the next history in the
queue, whoever sent it, and joins those that are being answered after `PACE` tokens at the latest.
"""

import asyncio
import contextlib
import functools
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax

from bua_jax.basics.console import err
from bua_jax.basics.errors import BuaError
from bua_jax.decoding import engine
from bua_jax.decoding.engine import Engine, Job, Reply
from bua_jax.serving.limits import Refused

PACE = 8  # tokens that rows write before the queue, and who has gone, are looked at
_REMEMBERED = 64  # answers by which the speed is estimated


class Task(Protocol):
    """What a row does for somebody."""

    @property
    def parts(self) -> Sequence[str]:
        """Names of the answers that the job waits for, in their order."""

    def job(self) -> Job:
        """The job, which returns what is told as the answer."""

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens of an answer say."""

    @property
    def most(self) -> int:
        """Tokens of an answer that are wanted at most; 0 = as many as the engine writes."""

    def cut(self, tokens: Sequence[int]) -> Any:
        """What is told as the answer once there are `most`."""


@dataclass(frozen=True)
class Event:
    """What a ticket is told. part: the answer that is being written, `text` so far; else the end of it:
    an answer, or what went wrong as `error`."""

    part: str = ""
    text: str = ""
    answer: Any = None
    error: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return not self.part


class Ticket:
    """A task in the queue or on a row; `next` is awaited by the server's task that made it."""

    def __init__(self, task: Task, *, watched: bool) -> None:
        self.task, self.watched = task, watched
        self.gone = False
        self.begun = time.monotonic()
        self.part = ""
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()

    def drop(self) -> None:
        """Nobody waits any more."""
        self.gone = True

    def tell(self, event: Event) -> None:
        """From the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Desk:
    """The queue, and the thread of an engine. `waiting` is the most that may wait."""

    def __init__(self, ready: Engine, waiting: int, mesh: Any = None) -> None:
        self.engine, self.most, self._mesh = ready, waiting, mesh
        self._queue: deque[Ticket] = deque()
        self._rows: set[Ticket] = set()
        self._finished: deque[float] = deque(maxlen=_REMEMBERED)
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------ the server's side

    def submit(self, tasks: Sequence[Task], *, watched: bool = False) -> list[Ticket]:
        """All tasks join the queue, or none: raises `Refused` where they would be too many."""
        with self._changed:
            waiting = self._waiting()
            if waiting + len(tasks) > self.most:
                said = (
                    f"{waiting} histories wait already, of {self.most} that may. Try again later."
                )
                raise Refused(503, said, self._seconds_for(waiting))
            if not waiting and not self._rows:
                self._finished.clear()  # what nobody waited for is no speed
            tickets = [Ticket(task, watched=watched) for task in tasks]
            self._queue.extend(tickets)
            self._changed.notify()
        return tickets

    def state(self) -> tuple[int, int, int]:
        """(histories that wait, rows that are taken, rows)."""
        with self._changed:
            return self._waiting(), sum(not one.gone for one in self._rows), self.engine.batch

    def close(self) -> None:
        """The thread ends; what waits is told so."""
        with self._changed:
            self._closed = True
            for ticket in (*self._queue, *self._rows):
                ticket.tell(Event(error="The server ends."))
                ticket.drop()
            self._queue.clear()
            self._changed.notify()
        self._thread.join(timeout=30)

    def _waiting(self) -> int:
        return sum(not ticket.gone for ticket in self._queue)

    def _seconds_for(self, waiting: int) -> int:
        """In how many seconds half of the queue is answered, by the last answers; 1 to 60."""
        if len(self._finished) < 2:
            return 5
        each = (self._finished[-1] - self._finished[0]) / (len(self._finished) - 1)
        return int(min(60, max(1, each * waiting / 2)))

    # ------------------------------------------------------------------------------ the engine's side

    def take(self, idle: bool) -> tuple[Ticket, Any] | None:
        """The next ticket and its job; waits for one if `idle`. None once the desk is closed."""
        with self._changed:
            while True:
                while self._queue:
                    ticket = self._queue.popleft()
                    if not ticket.gone:
                        self._rows.add(ticket)
                        return ticket, functools.partial(_told, ticket)
                if not idle or self._closed:
                    return None
                self._changed.wait()

    def gone(self, key: Ticket) -> bool:
        """Whether nobody waits for it; then it has no row any more."""
        if key.gone:
            with self._changed:
                self._rows.discard(key)
        return key.gone

    def heard(self, key: Ticket, tokens: list[int]) -> None:
        """Tells a watched ticket what its row has written so far, and ends what is long enough."""
        if key.task.most and len(tokens) >= key.task.most:
            self._answered(key, Event(answer=key.task.cut(tokens)))
            key.drop()
            return
        if key.watched and key.part:
            text = key.task.text(tokens).rstrip("\ufffd")  # a character may not be whole yet
            key.tell(Event(key.part, text))

    def _work(self) -> None:
        context = jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext()
        with context:
            while not self._closed:
                try:
                    for ticket, event in engine.serve(self.engine, self, PACE):
                        self._answered(ticket, event)
                except Exception as error:
                    self._failed(error)

    def _answered(self, ticket: Ticket, event: Event) -> None:
        with self._changed:
            self._rows.discard(ticket)
            self._finished.append(time.monotonic())
        ticket.tell(event)

    def _failed(self, error: Exception) -> None:
        """The engine begins anew without those that it was at; with half the rows where memory ran out."""
        err.print("".join(traceback.format_exception(error)))
        with self._changed:
            for ticket in self._rows:
                ticket.tell(Event(error=FAILED))
                ticket.drop()
            self._rows.clear()
            if "RESOURCE_EXHAUSTED" in str(error) and self.engine.batch > 1:
                self.engine = replace(self.engine, batch=self.engine.batch // 2)


FAILED = "The server failed at this; its log says why."


def _told(ticket: Ticket) -> Generator[Any, Any, Event]:
    """The ticket's job, which tells it of whole answers; what goes wrong in it is its own alone."""
    parts: Iterator[str] = iter(ticket.task.parts)
    try:
        job = ticket.task.job()
        turn = next(job)
        while True:
            ticket.part = next(parts)
            answer = yield turn
            if ticket.watched and isinstance(answer, Reply):
                ticket.tell(Event(ticket.part, ticket.task.text(answer.tokens)))
            turn = job.send(answer)
    except StopIteration as end:
        return Event(answer=end.value)
    except BuaError as error:
        return Event(error=str(error))
    except Exception as error:
        err.print("".join(traceback.format_exception(error)))
        return Event(error=FAILED)
