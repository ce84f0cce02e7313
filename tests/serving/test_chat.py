"""OpenAI's protocol, asked by the client that asks teachers (`interop/openai.py`), and by hand."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import BaseModel

from bua_jax.interop.openai import Chat
from bua_jax.interop.openai_host import Host, Limits
from bua_jax.models import aligned
from bua_jax.serving import chat
from bua_jax.serving.app import Office
from bua_jax.serving.guard import TOKEN
from tests.support.serving import listening

SECRET = "s3cret-of-16-or-more"
HEADERS = {"authorization": f"Bearer {SECRET}"}
QUESTION = {"role": "user", "content": "Key behaviours of the person?"}


@pytest.fixture(scope="module")
def office(office: Office) -> Office:
    """With an adapter that is heard: that of the reduced quickstart has hardly learnt anything."""
    parts, rng = office.bua.parts, np.random.default_rng(0)
    adapter = jax.tree.map(
        lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype),
        parts.variables["adapter"],
    )
    loud = replace(parts, variables={**parts.variables, "adapter": adapter})
    return replace(office, bua=replace(office.bua, parts=loud))


@pytest.fixture(scope="module")
def url(office: Office) -> Iterator[str]:
    chats = chat.Chats(office)
    try:
        with listening(office, SECRET, chat.routes(chats)) as address:
            yield f"{address}/v1"
    finally:
        chats.close()


def ask(url: str, **body: Any) -> httpx.Response:
    said = {"model": "base", "messages": [QUESTION], "max_tokens": 6, **body}
    return httpx.post(f"{url}/chat/completions", json=said, headers=HEADERS, timeout=300)


def greedy(office: Office, model: str, question: str, count: int) -> str:
    """By one forward over everything for each token, without a cache, a stop or the engine."""
    bua, tokenizer = office.bua, office.bua.parts.tokenizer
    variables = dict(bua.parts.variables)
    if model == "base":
        del variables["adapter"]
    text = f"user\n{question}", "\n", "assistant\n"
    user, line, assistant = map(tokenizer.encode, text)
    tokens = [tokenizer.im_start, *user, tokenizer.im_end, *line, tokenizer.im_start, *assistant]

    @jax.jit
    def best(padded: jax.Array, at: jax.Array) -> jax.Array:
        positions, segments = jnp.arange(64)[None], jnp.ones((1, 64), jnp.int32)
        embedded = aligned.embed(bua.parts.model, variables, padded)
        states = aligned.hidden(bua.parts.model, variables, embedded, positions, segments)
        return jnp.argmax(aligned.unembed(bua.parts.model, variables, states)[0, at])

    begin = len(tokens)
    for _ in range(count):
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(best(padded, len(tokens) - 1)))
        if tokens[-1] == tokenizer.im_end:
            break
    return tokenizer.decode(tokens[begin:])


@pytest.mark.parametrize("model", chat.MODELS)
def test_answers_are_greedy(office: Office, url: str, model: str) -> None:
    answer = ask(url, model=model)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["choices"][0]["message"]["content"] == greedy(office, model, QUESTION["content"], 6)
    assert said["model"] == model
    usage = said["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] <= 6


def test_base_and_adapter_are_two_models(url: str) -> None:
    said = [ask(url, model=model, max_tokens=30).json()["choices"] for model in chat.MODELS]
    assert said[0] != said[1]
    names = httpx.get(f"{url}/models", headers=HEADERS).json()["data"]
    assert [one["id"] for one in names] == list(chat.MODELS)


class Said(BaseModel):
    """The form that a teacher is asked for."""

    word: str


def test_our_own_client_can_ask_it(url: str, tmp_path: Path, monkeypatch) -> None:
    """It sends its token, tries its ways to ask for JSON until one is taken, and reads the answers.

    nano writes no JSON, so that an answer has a text and no value.
    """
    monkeypatch.setenv(TOKEN, SECRET)
    host = Host(url, "base", TOKEN, "test")
    limits = Limits(requests_per_minute=60_000, timeout=300)
    options = {"max_tokens": 6, "temperature": 0.0}
    client = Chat(host, tmp_path / "cache", "127.0.0.1", limits, options)
    answers = client.ask(["Who is it?", "Where?"], Said)
    assert [one.model for one in answers] == ["base", "base"]
    assert all(one.text and one.value is None for one in answers)
    assert {one.finish for one in answers} <= {"length", "stop"}


def test_an_answer_can_be_streamed(url: str) -> None:
    """The pieces are the whole, in the protocol's events."""
    whole = ask(url, max_tokens=30).json()["choices"][0]
    answer = ask(url, max_tokens=30, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    choices = [json.loads(one)["choices"][0] for one in events]
    text = "".join(one["delta"].get("content", "") for one in choices)
    assert text == whole["message"]["content"]
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == [
        whole["finish_reason"]
    ]
    assert len(choices) > 3  # it came in pieces


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "gpt"}, 404, "There is no model 'gpt' here: base, adapter"),
        ({"messages": []}, 400, "messages is missing"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "one of system, user, assistant"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "content is text"),
        ({"messages": [{"role": "user", "content": "a " * 9000}]}, 400, "there is room for"),
        ({"temperature": 0.7}, 400, "answers are greedy"),
        ({"n": 2}, 400, "one answer"),
        ({"max_tokens": -1}, 400, "a whole number from 1"),
        ({"max_tokens": 0}, 400, "a whole number from 1"),
        ({"stream": "false"}, 400, "expected true or false"),
        ({"presence_penalty": 1}, 400, "presence_penalty is not supported"),
        ({"tools": [{}]}, 400, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
    ],
)
def test_what_is_refused(url: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = ask(url, **body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_what_is_no_json_is_refused(url: str) -> None:
    half = b'{"model": "base", "messages": [{"role": "user", "content": "\\ud800"}]}'
    for raw in (b"{", b"[1]", b'{"model": 1, "model": 2}', half):
        answer = httpx.post(f"{url}/chat/completions", content=raw, headers=HEADERS)
        assert answer.status_code == 400


def test_what_changes_nothing_is_taken(url: str) -> None:
    assert ask(url, presence_penalty=0, logprobs=False, tools=[], stop=None).status_code == 200


def test_who_leaves_is_counted(office: Office, url: str, monkeypatch) -> None:
    """Between its arrival and its answer, which is held back until it has gone."""
    arrived = threading.Event()

    async def held(*_: Any) -> None:
        arrived.set()
        await asyncio.sleep(60)

    async def leave() -> None:
        async with httpx.AsyncClient(headers=HEADERS) as client:
            said = {"model": "base", "messages": [QUESTION]}
            asked = asyncio.create_task(client.post(f"{url}/chat/completions", json=said))
            assert await asyncio.to_thread(arrived.wait, 30)
            asked.cancel()

    before = office.metrics.gone["chat"]
    monkeypatch.setattr(chat, "event_of", held)
    asyncio.run(leave())
    end = time.monotonic() + 30
    while office.metrics.gone["chat"] == before and time.monotonic() < end:
        time.sleep(0.01)
    assert office.metrics.gone["chat"] == before + 1
