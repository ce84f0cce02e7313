"""`/v1/chat/completions` in OpenAI's protocol: the base alone, or with the run's adapter.

So that what asks a teacher over HTTP (`interop/openai.py`) can ask this machine, offline. Answers are greedy.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bua_jax.alignment.ask import Bua
from bua_jax.decoding import rounds
from bua_jax.decoding.cache import prepare
from bua_jax.decoding.engine import Engine, Job, Turn
from bua_jax.dialogue.prompts import Tokenizer
from bua_jax.interop.openai import strict_json
from bua_jax.serving.app import LATE, Office, body_of, event_of, unless_gone
from bua_jax.serving.desk import Desk, Event, Ticket
from bua_jax.serving.limits import Refused
from bua_jax.serving.metrics import Metrics

MODELS = ("base", "adapter")
"""The base's own weights, and those with the run's adapter; neither sees a history's soft tokens."""
ROLES = ("system", "user", "assistant")
ROWS, SLOTS, MOST = 8, 4096, 512
"""Chats that are answered together; tokens of a chat with its answer; of an answer, at most."""
_TAKEN = ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "n")
_WITHOUT_EFFECT = ("top_p", "seed", "user", "stream_options")
"""Fields that change nothing of a greedy answer."""
_OFF = ("presence_penalty", "frequency_penalty", "logprobs", "tools", "stop", "logit_bias")
"""Fields that change nothing where they are 0, false or empty."""


@dataclass(frozen=True)
class ChatTask:
    """One chat; tokens: all of it up to the first token of the answer, of which `most` are wanted."""

    tokenizer: Tokenizer
    tokens: Sequence[int]
    most: int
    parts: Sequence[str] = ("answer",)

    def job(self) -> Job:
        """One turn."""
        reply = yield Turn(self.tokens)
        return (
            self.cut(reply.tokens) if len(reply.tokens) >= self.most else self._said(reply.tokens)
        )

    def text(self, tokens: Sequence[int]) -> str:
        """What was written."""
        return self.tokenizer.decode(tokens)

    def cut(self, tokens: Sequence[int]) -> dict[str, Any]:
        """The answer that ends at its limit."""
        return self._said(tokens[: self.most], "length")

    def _said(self, tokens: Sequence[int], finish: str = "stop") -> dict[str, Any]:
        return {"text": self.text(tokens), "finish": finish, "tokens": len(tokens)}


@dataclass(frozen=True)
class Chats:
    """The desks of the models, each made when it is first asked; they wait as the office's desk does."""

    office: Office
    desks: dict[str, Desk] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def desk(self, name: str) -> Desk:
        """The desk of one of `MODELS`."""
        with self._lock:
            if name not in self.desks:
                mesh = self.office.bua.decoder.mesh
                engine = _engine(self.office.bua, name)
                self.desks[name] = Desk(engine, self.office.limits.waiting, mesh)
            return self.desks[name]

    def close(self) -> None:
        """Ends their threads."""
        for desk in self.desks.values():
            desk.close()


def _engine(bua: Bua, name: str) -> Engine:
    decoder, config = bua.decoder, bua.parts.model.llm.config
    slots = min(SLOTS, config.max_positions)
    with rounds.on_mesh(decoder):
        weights = decoder.weights
        if name == "base":
            rest = {k: value for k, value in decoder.variables.items() if k != "adapter"}
            weights = prepare(decoder.model, rest, decoder.weight_dtype)
        batch, most = min(ROWS, bua.batch), min(MOST, slots // 2)
        stop, kind = decoder.tokenizer.im_end, decoder.cache_dtype
        return Engine(decoder.model, weights, stop, batch, slots, most, kind)


# ----------------------------------------------------------------------------------------- questions


def task_of(tokenizer: Tokenizer, body: Mapping[str, Any], engine: Engine) -> ChatTask:
    """The chat of a request that was checked. Raises `Refused` where it is too long."""
    tokens: list[int] = []
    for message in body["messages"]:
        role, text = message["role"], _text_of(message["content"])
        said = [*tokenizer.encode(f"{role}\n"), *tokenizer.encode(text)]
        tokens += [tokenizer.im_start, *said, tokenizer.im_end, *tokenizer.encode("\n")]
    tokens += [tokenizer.im_start, *tokenizer.encode("assistant\n")]
    limits = (body.get(name) for name in ("max_completion_tokens", "max_tokens"))
    asked = next((one for one in limits if one is not None), engine.max_new)
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise Refused(400, f"max_tokens is {asked!r}, expected a whole number from 1.")
    if len(tokens) + engine.max_new + 1 > engine.slots:
        room = engine.slots - engine.max_new - 1
        raise Refused(400, f"The chat has {len(tokens)} tokens, and there is room for {room}.")
    return ChatTask(tokenizer, tokens, min(asked, engine.max_new))


def _check(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages is missing: expected a list of objects with role and content.")
    for message in messages:
        known = isinstance(message, dict) and message.get("role") in ROLES
        if not known or "content" not in message:
            raise Refused(400, f"A message has content and a role, one of {', '.join(ROLES)}.")
    for name, value in body.items():
        nothing = value is None or (name in _OFF and not value)
        nothing = nothing or (name == "response_format" and value == {"type": "text"})
        if name not in (*_TAKEN, *_WITHOUT_EFFECT) and not nothing:
            raise Refused(400, f"{name} is not supported here.")
    if body.get("stream") not in (None, True, False):
        raise Refused(400, f"stream is {body['stream']!r}, expected true or false.")
    if body.get("temperature"):
        raise Refused(400, f"temperature is {body['temperature']!r}: answers are greedy, send 0.")
    if body.get("n") not in (None, 1):
        raise Refused(400, f"n is {body['n']!r}: there is one answer to a chat.")


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) else [None]
    if any(not isinstance(p, dict) or not isinstance(p.get("text"), str) for p in parts):
        raise Refused(400, "content is text, or a list of parts with text.")
    return "".join(part["text"] for part in parts)


# ------------------------------------------------------------------------------------------- answers


def _head(name: str, kind: str) -> dict[str, Any]:
    said = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time())}
    return {**said, "model": name}


def _whole(name: str, task: ChatTask, said: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": said["text"]}
    read, written = len(task.tokens), said["tokens"]
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    choice = {"index": 0, "message": message, "finish_reason": said["finish"]}
    return {**_head(name, "chat.completion"), "choices": [choice], "usage": usage}


def _ended(metrics: Metrics, ticket: Ticket, event: Event) -> None:
    metrics.ended("chat", time.monotonic() - ticket.begun, failed=bool(event.error))


async def _chunks(
    name: str, first: Event, ticket: Ticket, deadline: float, metrics: Metrics
) -> AsyncIterator[str]:
    """Server-sent events, each with what is new of the text."""
    head, sent, event = _head(name, "chat.completion.chunk"), "", first

    def chunk(delta: Mapping[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"

    try:
        yield chunk({"role": "assistant", "content": ""})
        while True:
            text = event.text if not event.last else (event.answer or {}).get("text", sent)
            if text.startswith(sent) and text != sent:
                yield chunk({"content": text[len(sent) :]})
                sent = text
            if event.last:
                break
            event = await event_of(ticket, deadline)
        ticket.drop()
        _ended(metrics, ticket, event)
        if event.error:
            yield f"data: {json.dumps({'error': {'message': event.error}})}\n\n"
        else:
            yield chunk({}, event.answer["finish"])
        yield "data: [DONE]\n\n"
    finally:
        metrics.gone["chat"] += not ticket.gone
        ticket.drop()


def _asked(chats: Chats, raw: bytes) -> tuple[str, bool, ChatTask, Desk]:
    """(model, whether the answer is streamed, task, desk) of a request. Raises `Refused`."""
    try:
        body: Any = strict_json(raw)
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused(400, "The request holds half a character (a lone surrogate).") from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request is not JSON.") from error
    if not isinstance(body, dict):
        raise Refused(400, "The request is no JSON object.")
    name: Any = body.get("model")
    if name not in MODELS:
        raise Refused(404, f"There is no model {name!r} here: {', '.join(MODELS)}.")
    _check(body)
    desk = chats.desk(name)
    task = task_of(chats.office.bua.parts.tokenizer, body, desk.engine)
    return name, bool(body.get("stream")), task, desk


def routes(chats: Chats) -> list[Route]:
    """The protocol's routes."""
    office = chats.office

    async def completions(request: Request) -> Response:
        raw = await body_of(request, office.limits)
        name, stream, task, desk = await run_in_threadpool(_asked, chats, raw)
        (ticket,) = desk.submit([task], watched=stream)
        deadline = asyncio.get_running_loop().time() + office.limits.seconds
        try:
            event = await unless_gone(request, event_of(ticket, deadline))
        except BaseException:
            ticket.drop()
            office.metrics.gone["chat"] += 1
            raise
        if stream and not event.error:
            lines = _chunks(name, event, ticket, deadline, office.metrics)
            return StreamingResponse(lines, media_type="text/event-stream")
        ticket.drop()
        _ended(office.metrics, ticket, event)
        if event.error:
            raise Refused(504 if event.error == LATE else 500, event.error)
        return JSONResponse(_whole(name, task, event.answer))

    async def models(request: Request) -> Response:
        data = [{"id": name, "object": "model", "owned_by": "bua_jax"} for name in MODELS]
        return JSONResponse({"object": "list", "data": data})

    return [
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
    ]
