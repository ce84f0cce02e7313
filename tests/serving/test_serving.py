"""The server on a loopback port, with the model of a reduced quickstart."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy.special import softmax

from bua_jax.alignment.ask import Bua
from bua_jax.alignment.encoder import load_encoder
from bua_jax.basics.errors import CheckpointError, ConfigError
from bua_jax.events.histories import MIN_EVENTS, example_lines, histories_of, read_histories
from bua_jax.events.schema import History
from bua_jax.models.encoders import build
from bua_jax.models.encoders.base import encode_events
from bua_jax.pipeline.answers import records
from bua_jax.pipeline.finished import events_of
from bua_jax.serving import guard, server
from bua_jax.serving.app import Office, QuestionTask
from bua_jax.serving.desk import FAILED, Desk
from bua_jax.serving.questions import KINDS, limit_of
from tests.support.runs import verb
from tests.support.serving import closing, listening, wait_for_no_rows


@pytest.fixture(scope="module")
def lines(quickstart: Path) -> list[str]:
    return [
        json.dumps({**json.loads(line), "id": f"person {i}"}) + "\n"
        for i, line in enumerate(example_lines(events_of(quickstart), 12))
    ]


@pytest.fixture(scope="module")
def url(office: Office) -> Iterator[str]:
    with listening(office) as address:
        yield address


@pytest.fixture(scope="module")
def expected(office: Office, lines: list[str], tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    """Of each verb what it writes about the lines, without ids."""
    bua, path = office.bua, tmp_path_factory.mktemp("lines") / "histories.jsonl"
    path.write_text("".join(lines))
    read = {kind: read_histories(path, bua.catalogue, limit_of(bua, kind))[1] for kind in KINDS}
    options = {"temperature": 1.0, "top_p": 0.95, "seed": 42}
    return {
        "predict": records(bua.predict(read["predict"])),
        "describe": records(bua.describe_all(read["describe"])),
        "generate": records(bua.generate(read["generate"], **options)),
        "person": records(bua.generate(read["person"], predictions=True, **options)),
    }


def histories_in(office: Office, lines: list[str]) -> list[History]:
    """As predictions read them."""
    limit = office.bua.windows.prediction_history
    text = [line.encode() for line in lines]
    return histories_of("here", text, office.bua.catalogue, limit)[1]


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Texts, days and signatures are the same; probabilities within 1e-4, as between other batches."""
    given = {name: value for name, value in answer.items() if name not in ("id", "probabilities")}
    assert given == {name: value for name, value in expected.items() if name != "probabilities"}
    assert answer.get("probabilities") == pytest.approx(expected.get("probabilities"), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_verb(url: str, lines, expected, kind: str) -> None:
    answer = httpx.post(f"{url}/{kind}", content="".join(lines), timeout=300)
    assert answer.headers["content-type"] == "application/x-ndjson"
    told = [json.loads(line) for line in answer.text.splitlines()]
    found = [one for one in told if "id" in one]
    assert [one["id"] for one in found] == [f"person {i}" for i in range(len(lines))]
    for one, other in zip(found, expected[kind], strict=True):
        same(one, other)


def test_200_requests_at_once_lose_none(url: str, office: Office, lines) -> None:
    """Of 200 clients each has the answer to its own history, which shares batches with those of others."""
    records_of = [json.loads(line) for line in lines[:10]]
    short = [json.dumps({**one, "events": one["events"][-MIN_EVENTS:]}) for one in records_of]
    alone = records(office.bua.describe_all(histories_in(office, short)))

    async def ask_all() -> list[httpx.Response]:
        many = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=many) as client:
            asked = (client.post("/describe", content=short[i % 10]) for i in range(200))
            return await asyncio.gather(*asked)

    for i, answer in enumerate(asyncio.run(ask_all())):
        assert answer.status_code == 200, answer.text
        found = json.loads(answer.text)
        assert found["id"] == f"person {i % 10}"
        same(found, alone[i % 10])
    assert office.desk.state()[:2] == (0, 0)
    assert len({json.dumps(one) for one in alone}) > 5  # an answer of another would be seen


def test_what_is_written_can_be_watched(url: str, lines, office: Office, quickstart: Path) -> None:
    """/person tells the texts as they grow, and ends with the line of `generate --predictions`."""
    with httpx.stream("POST", f"{url}/person", content=lines[0], timeout=300) as answer:
        encoder, *told, claims, last = map(json.loads, answer.iter_lines())
    (history,) = histories_in(office, lines[:1])
    config, params, _ = load_encoder(quickstart / "encoder")
    fields, n = history.encoder_fields()[None], len(history)
    read = encode_events(
        build(config), params, fields, np.ones((1, n), np.int32), np.arange(n)[None]
    )
    own = softmax(np.asarray(read.logits[0, -1], np.float64))
    assert list(encoder["encoder"].values()) == pytest.approx(own, abs=1e-5)  # float32
    parts = list(dict.fromkeys(one["part"] for one in told))
    assert parts == [*last["understanding"], "day"]
    for kind, text in last["understanding"].items():
        grown = [one["text"] for one in told if one["part"] == kind]
        assert grown[-1] == text
        assert all(text.startswith(one) for one in grown)
        assert "".join(words for words, _ in claims["claims"][kind]) == text
    assert {"prediction", "probabilities", "weekday", "events"} <= last.keys()


# ------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "holds no history"),
        (b'{"id": ', 400, "line 1: not valid JSON"),
        (b"[1]\n", 400, 'expected an object with "id" and "events"'),
        (b"\xff\xfe1", 400, "UTF-16"),
        (b'{"events": []}', 400, "the number of events is 0, expected at least 10"),
        (b"{}\n" * 513, 413, "may hold 512 histories"),
        (b'{"events": [' + b'{"behaviour": "x"},' * 5001, 413, "may have 5000 events"),
        (b'{"events": [' + b'{"location": "{{{{"},' * 5001, 400, "not valid JSON"),
        (b'{"id": "\\ud800", "events": []}', 400, "half a character"),
        (b" " * (4 * 2**20 + 1), 413, "may have 4194304 bytes"),
    ],
)
def test_what_is_refused(url: str, body: bytes, status: int, said: str) -> None:
    answer = httpx.post(f"{url}/predict", content=body, timeout=60)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_body_without_a_length_is_cut_off_too(url: str) -> None:
    parts = (b" " * 2**20 for _ in range(5))
    assert httpx.post(f"{url}/predict", content=parts).status_code == 413


def with_limits(office: Office, **limits: Any) -> Office:
    """The same engine behind another queue."""
    changed = replace(office.limits, **limits)
    desk = Desk(office.desk.engine, changed.waiting, office.bua.decoder.mesh)
    return Office(office.bua, desk, changed)


def test_a_body_must_come_in_time(office: Office) -> None:
    with closing(with_limits(office, body_seconds=0.2)) as other, listening(other) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\n"
            slow.sendall(head.encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_full_queue_says_when_to_come_again(office: Office, lines) -> None:
    """More than may wait is refused whole; what was taken is answered."""
    with closing(with_limits(office, waiting=3)) as other, listening(other) as url:
        three = "".join(lines[:3])

        async def both() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=300) as client:
                first = asyncio.create_task(client.post(f"{url}/generate", content=three))
                while not sum(other.desk.state()[:2]):
                    await asyncio.sleep(0.005)
                other.desk.most = 0
                second = await client.post(f"{url}/predict", content=lines[4])
                return [await first, second]

        taken, refused = asyncio.run(both())
        assert (taken.status_code, len(taken.text.splitlines())) == (200, 3)
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "wait already" in refused.json()["error"]["message"]


def test_an_answer_must_come_in_time(office: Office, lines) -> None:
    with closing(with_limits(office, seconds=0.01)) as other, listening(other) as url:
        answer = httpx.post(f"{url}/predict", content=lines[0], timeout=60)
        assert (answer.status_code, "in time" in answer.text) == (504, True)
        wait_for_no_rows(other)


def test_who_goes_away_frees_its_rows(office: Office, url: str, lines, expected) -> None:
    many = "".join(lines)

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=300) as client:
            asked = asyncio.create_task(client.post(f"{url}/generate", content=many))
            while not office.desk.state()[1]:
                await asyncio.sleep(0.005)
            asked.cancel()

    asyncio.run(leave())
    wait_for_no_rows(office)
    assert office.metrics.gone["generate"] > 0
    answer = httpx.post(f"{url}/predict", content=lines[0], timeout=300)
    same(json.loads(answer.text), expected["predict"][0])


def test_what_fails_is_its_own_and_says_nothing_of_the_inside(
    office: Office, url: str, lines, expected, monkeypatch
) -> None:
    """Neither path nor stack leaves, whatever goes wrong; others are answered, and so is the next."""
    real = QuestionTask.job

    def job(self: QuestionTask):
        said = yield from real(self)
        if self.question.id == "person 1":
            raise RuntimeError(f"a secret in {__file__}")
        if self.question.id == "person 2":
            raise CheckpointError("The log-probabilities are not finite.")
        return said

    monkeypatch.setattr(QuestionTask, "job", job)
    gone, failed = office.metrics.gone["predict"], office.metrics.failed["predict"]
    answer = httpx.post(f"{url}/predict", content="".join(lines[:4]), timeout=300)
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [one.get("error") for one in found] == [
        None,
        FAILED,
        "The log-probabilities are not finite.",
        None,
    ]
    same(found[3], expected["predict"][3])
    alone = httpx.post(f"{url}/predict", content=lines[1], timeout=300)
    assert (alone.status_code, alone.json()["error"]["message"]) == (500, FAILED)
    assert office.metrics.gone["predict"] == gone  # whoever was told has not left
    assert office.metrics.failed["predict"] == failed + 3


def test_an_engine_that_fails_begins_anew(office: Office, lines, monkeypatch) -> None:
    from bua_jax.decoding import programs

    real, calls = programs.decode, []

    def decode(*args: Any, **options: Any):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError(f"broken at {__file__}")
        return real(*args, **options)

    monkeypatch.setattr(programs, "decode", decode)
    with closing(with_limits(office)) as other, listening(other) as url:
        first, second = (
            httpx.post(f"{url}/describe", content=lines[0], timeout=300) for _ in range(2)
        )
        assert (first.status_code, first.json()["error"]["message"]) == (500, FAILED)
        assert second.status_code == 200


# ------------------------------------------------------------------------------------------ who may ask


def test_off_loopback_a_token_is_demanded(monkeypatch) -> None:
    monkeypatch.delenv(guard.TOKEN, raising=False)
    assert guard.token_for("127.0.0.1") == ""
    with pytest.raises(ConfigError, match=r"--host=0.0.0.0 .* set the environment variable"):
        guard.token_for("0.0.0.0")
    monkeypatch.setenv(guard.TOKEN, "short")
    with pytest.raises(ConfigError, match="at least 16 characters"):
        guard.token_for("127.0.0.1")
    monkeypatch.setenv(guard.TOKEN, "s3cret-of-16-or-more")
    assert guard.token_for("0.0.0.0") == "s3cret-of-16-or-more"


def test_the_verb_refuses_in_one_paragraph(quickstart: Path, monkeypatch) -> None:
    monkeypatch.delenv(guard.TOKEN, raising=False)
    done = verb("serve", f"--model={quickstart}", "--host=0.0.0.0")
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: --host=0.0.0.0 can be reached")
    assert "Traceback" not in done.stderr


def test_who_shows_no_token_is_told_nothing(office: Office, lines) -> None:
    token = "s3cret-of-16-or-more"
    with listening(office, token) as url:
        for shown in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {token}"}):
            for path in ("/predict", "/person", "/metrics", "/nothing"):
                assert httpx.post(f"{url}{path}", headers=shown).status_code == 401
        assert httpx.get(f"{url}/healthz").text == "ok\n"
        shown = {"authorization": f"Bearer {token}"}
        assert httpx.post(f"{url}/describe", content=lines[0], headers=shown, timeout=99).is_success
        assert httpx.get(f"{url}/metrics", headers=shown).is_success


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "elsewhere.example"},
        {"host": "["},
        {"host": "[::1"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://["},
    ],
)
def test_pages_of_others_may_not_ask(url: str, lines, headers: dict[str, str]) -> None:
    assert httpx.post(f"{url}/predict", content=lines[0], headers=headers).status_code == 403


def test_metrics_are_in_prometheus_format(url: str, lines) -> None:
    """As its own client reads them."""
    before = time.monotonic()
    httpx.post(f"{url}/describe", content=lines[0], timeout=300)
    took = time.monotonic() - before
    httpx.get(f"{url}/people/anna")
    families = {
        one.name: one.samples
        for one in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    }
    routes = {sample.labels["route"] for sample in families["bua_requests"]}
    assert {"/describe", "other"} <= routes
    assert not any("anna" in route for route in routes)
    counts = {
        sample.labels["le"]: sample.value
        for sample in families["bua_answer_seconds"]
        if sample.name.endswith("_bucket") and sample.labels["kind"] == "describe"
    }
    assert list(counts.values()) == sorted(counts.values())
    assert counts["+Inf"] >= 1
    assert took < 300
    (rows,) = families["bua_rows"]
    assert rows.value >= 1


def test_what_there_is_not_is_refused_like_anything_else(url: str) -> None:
    for answer, status in (
        (httpx.get(f"{url}/nothing"), 404),
        (httpx.get(f"{url}/predict"), 405),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["allow"] == "POST"


def test_a_queue_may_be_shorter_than_the_rows(office: Office) -> None:
    with closing(with_limits(office, waiting=2)) as other:
        assert office.desk.engine.batch > 2
        asyncio.run(server.warm(other))


def test_nothing_of_the_machine_is_in_an_answer(url: str, lines) -> None:
    asked = [
        httpx.get(f"{url}/nothing"),
        httpx.get(f"{url}/predict"),
        httpx.post(f"{url}/predict", content=lines[0].replace("Monday", "Someday")),
        httpx.get(f"{url}/metrics"),
    ]
    for answer in asked:
        said = str(answer.headers) + answer.text
        assert not re.search(r"Traceback|\.py\b|/home|/work|/tmp|uvicorn|starlette", said)


def test_the_model_that_is_asked_is_the_runs(office: Office, quickstart: Path) -> None:
    assert isinstance(office.bua, Bua)
    assert office.desk.engine.batch == office.bua.batch
