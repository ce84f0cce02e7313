"""The server's routes: histories in, JSON lines out, and what says how it is."""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bua_jax.alignment.ask import Bua
from bua_jax.basics.errors import BuaError
from bua_jax.decoding import dialogue
from bua_jax.decoding.engine import Job
from bua_jax.serving.desk import Desk, Event, Ticket
from bua_jax.serving.guard import Guard, refusal
from bua_jax.serving.limits import Limits, Refused
from bua_jax.serving.metrics import Metrics
from bua_jax.serving.questions import KINDS, Question, claims_of, encoder_shares, questions_of

LINES = "application/x-ndjson"
LATE = "There was no answer in time."


@dataclass(frozen=True)
class Office:
    """What the routes share."""

    bua: Bua
    desk: Desk
    limits: Limits
    metrics: Metrics = field(default_factory=Metrics)


@dataclass(frozen=True)
class QuestionTask:
    """A question as the desk takes it."""

    bua: Bua
    question: Question
    most: int = 0

    @functools.cached_property
    def asked(self) -> dialogue.Asked:
        """The dialogue."""
        return self.question.asked(self.bua)

    @property
    def parts(self) -> Sequence[str]:
        """The rounds, then the prediction and the day where they are asked for."""
        last = ["prediction"] * bool(self.asked.predict) + ["day"] * (self.asked.day is not None)
        return [kind for kind, _ in self.asked.rounds] + last

    def job(self) -> Job:
        """The dialogue, which ends in the line of the answer."""
        constrained = self.bua.decoding.constrained
        found = yield from dialogue.dialogue(self.bua.decoder, self.asked, constrained)
        return self.question.record(self.bua, found)

    def cut(self, tokens: Sequence[int]) -> None:
        """Is not asked: rounds end at the engine's limit."""

    def text(self, tokens: Sequence[int]) -> str:
        """What was written."""
        return self.bua.decoder.tokenizer.decode(tokens)


async def body_of(request: Request, limits: Limits) -> bytes:
    """The body. Raises `Refused` where it is too long or too slow."""
    told = request.headers.get("content-length", "0")
    size = int(told) if told.isdecimal() else 0
    found = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                found += part
                if max(size, len(found)) > limits.body:
                    raise Refused(413, f"A request may have {limits.body} bytes.")
    except TimeoutError as error:
        raise Refused(408, f"The request was not sent within {limits.body_seconds:g} s.") from error
    return bytes(found)


async def disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, awaited: Awaitable[Any]) -> Any:
    """What is awaited; where the client goes meanwhile it is cancelled, and raises `ClientDisconnect`."""
    work, left = asyncio.ensure_future(awaited), asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, left):
            task.cancel()
        await asyncio.gather(work, left, return_exceptions=True)


async def event_of(ticket: Ticket, deadline: float) -> Event:
    """The next event, or that the time is over (seconds of the loop's clock); then nobody waits any more."""
    try:
        async with asyncio.timeout_at(deadline):
            return await ticket.next()
    except TimeoutError:
        ticket.drop()
        return Event(error=LATE)


# ---------------------------------------------------------------------------------------- asking


def tasks_of(office: Office, kind: str, body: bytes) -> list[QuestionTask]:
    """The questions of a request. Raises `DataError`, and `Refused` for what no row has room for."""
    bua, room = office.bua, office.desk.engine.slots
    drawing = office.desk.engine.drawing
    assert drawing is not None
    questions = questions_of(bua, kind, body, office.limits)
    tasks = [QuestionTask(bua, question) for question in questions]
    for task in tasks:
        if dialogue.slots_of(bua.decoder, task.asked, drawing) > room:
            raise Refused(413, "A history is longer in words than the server has room for.")
    return tasks


async def _lines(
    office: Office, kind: str, tasks: Sequence[QuestionTask], tickets: Sequence[Ticket]
) -> AsyncGenerator[bytes]:
    """A line for each history, in their order; of watched ones also shares, what grows, and claims."""
    deadline = asyncio.get_running_loop().time() + office.limits.seconds
    try:
        for task, ticket in zip(tasks, tickets, strict=True):
            if ticket.watched:
                history = task.question.history
                shares = await run_in_threadpool(encoder_shares, office.bua, history)
                yield _line({"encoder": shares})
            while not (event := await event_of(ticket, deadline)).last:
                yield _line({"part": event.part, "text": event.text})
            office.metrics.ended(kind, time.monotonic() - ticket.begun, failed=bool(event.error))
            ticket.drop()
            if ticket.watched and not event.error:
                asked = office.bua, task.question.history, event.answer["understanding"]
                yield _line({"claims": await run_in_threadpool(claims_of, *asked)})
            yield _line({"error": event.error} if event.error else event.answer)
    finally:
        office.metrics.gone[kind] += sum(not ticket.gone for ticket in tickets)
        for ticket in tickets:
            ticket.drop()


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(rest) as lines:  # type: ignore[type-var]  # it is a generator
        yield first
        async for line in lines:
            yield line


def _asking(office: Office, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = await body_of(request, office.limits)
        tasks = await run_in_threadpool(tasks_of, office, kind, body)
        tickets = office.desk.submit(tasks, watched=kind == "person")
        lines = _lines(office, kind, tasks, tickets)
        first = await unless_gone(request, anext(lines))
        if first.startswith(b'{"error"') and len(tickets) == 1:
            said = json.loads(first)["error"]
            await lines.aclose()
            raise Refused(504 if said == LATE else 500, said)
        return StreamingResponse(_after(first, lines), media_type=LINES)

    return answer


# ---------------------------------------------------------------------------------------- the rest


def _metrics(office: Office) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        waiting, taken, rows = office.desk.state()
        gauges = {
            "bua_waiting": ("Histories that wait for a row.", waiting),
            "bua_rows_taken": ("Rows of the engine that answer.", taken),
            "bua_rows": ("Rows of the engine.", rows),
        }
        text = office.metrics.text(gauges)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return metrics


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = refusal(
        Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}.")
    )
    answer.headers.update(error.headers or {})
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _wrong(request: Request, error: Exception) -> Response:
    return refusal(Refused(400, str(error)))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; counted as such


def app_of(office: Office, token: str, *, loopback: bool, more: Sequence[Route] = ()) -> Guard:
    """The application. token: see `guard.token_for`; loopback: whether it answers to localhost only.

    more: routes beside those of the office, such as the page's.
    """
    asked = [Route(f"/{kind}", _asking(office, kind), methods=["POST"]) for kind in KINDS]
    routes = [*asked, Route("/healthz", _healthz), Route("/metrics", _metrics(office)), *more]
    known = {route.path for route in routes}
    errors: dict[Any, Any] = {Refused: _refused, BuaError: _wrong, ClientDisconnect: _gone}
    errors[HTTPException] = _no_route

    def counted(path: str, status: int) -> None:
        office.metrics.requests[path if path in known else "other", status] += 1

    return Guard(Starlette(routes=routes, exception_handlers=errors), token, loopback, counted)
