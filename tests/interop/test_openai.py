"""A chat over HTTP against a host that misbehaves: what is asked again, kept, counted and refused."""

import asyncio
import contextlib
import json
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import create_model

from bua_jax.basics.errors import ApiError, ConfigError, DataError
from bua_jax.interop import openai, openai_calls
from bua_jax.interop.openai import body_of
from bua_jax.interop.openai_host import Host, Limits
from bua_jax.interop.openai_store import Store, opened
from tests.programs.ask_api import KEY, LIMITS, Said, chat
from tests.support.api import Do, completion, serving

SECRET = "sk-a-key-that-nobody-may-see"
GOOD = '{"word": "yes"}'


def always(question: str) -> str:
    return GOOD


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are sent from this process, which saves a second; the lock and the job's end stay out."""

    def said(job: Any) -> Iterator[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        monkeypatch.setattr(openai_calls, "say", lambda **what: lines.append(what))

        async def send() -> None:
            with opened(Path(job["cache"])) as store:
                await openai_calls.send(json.loads(json.dumps(job)), store, asyncio.Event())

        asyncio.run(send())
        yield from lines

    monkeypatch.setattr(openai, "_said", said)


def within(**limits: Any) -> Limits:
    return Limits(**{**LIMITS.__dict__, **limits})


def rows(cache: Path, what: str = "state") -> list[Any]:
    with contextlib.closing(sqlite3.connect(cache)) as found:
        return [row[0] for row in found.execute(f"SELECT {what} FROM calls ORDER BY id")]


# ---------------------------------------------------------------------------------- what is asked again


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_asked_again(here: None, tmp_path: Path, status: int) -> None:
    with serving(lambda body, n: Do() if n else Do("refuse", status=status), always) as api:
        one = chat(api.url, tmp_path / "c").ask(["q"], Said)[0]
    assert one.value == Said(word="yes")
    assert api.done() == ["refuse", "answer"]
    asked = openai.tokens_of(body_of(Host("", "fake"), {}, "q", Said, "json_object"))[0]
    counted, answered = rows(tmp_path / "c", "tokens")
    assert abs(counted - asked) <= 10  # the body has max_tokens too
    assert answered == 18


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 418, 422])
def test_what_will_not_pass_is_not(here: None, tmp_path: Path, status: int) -> None:
    with (
        serving(lambda body, n: Do("refuse", status=status, text="no such thing"), always) as api,
        pytest.raises(ApiError, match=f"127.0.0.1 answered with status {status} .no such thing") as why,
    ):  # fmt: skip
        chat(api.url, tmp_path / "c", limits=within(concurrency=1)).ask(["q", "p"], Said)
    assert why.value.status == status
    assert len(api.calls) == 1
    assert rows(tmp_path / "c") == ["refused"]


def test_a_time_out_is_asked_again_and_counts_as_paid_for(here: None, tmp_path: Path) -> None:
    limits = within(timeout=0.2, price_in=1e6, price_out=1e6)
    with serving(lambda body, n: Do() if n else Do("stall"), always) as api:
        assert chat(api.url, tmp_path / "c", limits=limits).ask(["q"], Said)[0].value
    assert api.done() == ["stall", "answer"]
    assert rows(tmp_path / "c") == ["lost", "received"]
    tokens, cost = rows(tmp_path / "c", "tokens"), rows(tmp_path / "c", "cost")
    assert tokens[0] > 18 + 20  # the question, and an answer of 20 tokens at most
    assert cost == tokens  # at 1 each


def test_a_host_that_trickles_is_cut_off(here: None, tmp_path: Path) -> None:
    """The limit is of the whole answer, not of the pause between two bytes."""
    begin = asyncio.run(_trickled(tmp_path / "c"))
    assert begin < 2


async def _trickled(cache: Path) -> float:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        begin, bodies = loop.time(), {"k": (0, {"max_tokens": 1})}
        job = {
            "host": {"url": url, "model": "m"},
            "limits": {"timeout": 0.3, "tries": 1},
            "bodies": bodies,
        }
        with opened(cache) as store:
            await openai_calls.send(job, store, asyncio.Event())
            assert store.ledger().lost == 1
        return loop.time() - begin


def test_a_broken_connection_is_not_asked_again_before_the_next_run(
    here: None, tmp_path: Path
) -> None:
    with serving(lambda body, n: Do() if n else Do("cut"), always) as api:
        one = chat(api.url, tmp_path / "c", limits=within(concurrency=1))
        with pytest.raises(ApiError, match=r"broke .* Run the same command again"):
            one.ask(["q", "p"], Said)
        assert api.done() == ["cut"]
        assert rows(tmp_path / "c") == ["lost"]
        api.plan = lambda body, n: Do()
        assert all(said.value for said in one.ask(["q", "p"], Said))
    with pytest.raises(ApiError, match="broke or was not made"):  # nobody is there
        one.ask(["other"], Said)
    assert rows(tmp_path / "c") == ["lost", "received", "received", "refused"]
    assert rows(tmp_path / "c", "tokens")[-1] == 0


def test_a_host_is_left_alone_as_long_as_it_says(here: None, tmp_path: Path) -> None:
    """By all questions, also those that it has not refused."""

    def plan(body: dict[str, Any], n: int) -> Do:
        return Do("refuse", status=429, retry_after="0.6") if len(api.calls) < 1 else Do()

    with serving(plan, always) as api:
        chat(api.url, tmp_path / "c", limits=within(requests_per_minute=300)).ask([*"qp"], Said)
        assert [at - api.times[0] >= 0.6 for at in api.times] == [False, True, True]
        api.plan = lambda body, n: Do("refuse", status=503, retry_after="3600")
        with pytest.raises(ApiError, match="left alone for 3600 s"):
            chat(api.url, tmp_path / "c").ask(["r"], Said)


def test_how_long_a_host_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        openai_calls.time, "time", lambda: 1_445_412_480.0
    )  # Wed, 21 Oct 2015 07:28
    for said, seconds in (
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:29:30 GMT", 90.0),
        ("Wed, 21 Oct 2015 07:20:00 GMT", 0.0),
        ("soon", 0.0),
    ):
        assert openai_calls.retry_after(httpx.Headers({"Retry-After": said})) == seconds
    assert openai_calls.retry_after(httpx.Headers()) == 0.0


# ---------------------------------------------------------------------------------- how fast, how much


def test_so_many_at_once(here: None, tmp_path: Path) -> None:
    with serving(lambda body, n: Do(after=0.05), always) as api:
        chat(api.url, tmp_path / "c", limits=within(concurrency=3)).ask([*"abcdefghi"], Said)
    assert (api.most, len(api.calls)) == (3, 9)


def test_so_many_a_minute(here: None, tmp_path: Path) -> None:
    with serving(lambda body, n: Do(), always) as api:
        chat(api.url, tmp_path / "c", limits=within(requests_per_minute=600)).ask([*"abcde"], Said)
    assert 0.35 < api.times[-1] - api.times[0] < 2  # four tenths of a second, and 0.05 of a clock's


def test_so_many_tokens_a_minute(here: None, tmp_path: Path) -> None:
    """Of 1000 tokens a second and 60,000 at once, the third question of 20,300 waits for 900."""
    with serving(lambda body, n: Do(), always) as api:
        one = chat(
            api.url,
            tmp_path / "c",
            limits=within(tokens_per_minute=60_000),
            options={"max_tokens": 20_200},
        )
        one.ask([*"abc"], Said)
    assert api.times[1] - api.times[0] < 0.4
    assert 0.6 < api.times[2] - api.times[0] < 2


def test_tokens_have_a_ceiling_that_counts_those_asked_again(here: None, tmp_path: Path) -> None:
    with serving(lambda body, n: Do("refuse", status=500), always) as api:
        limits = within(tokens=1000, tries=1000, backoff=0.0)
        one = chat(api.url, tmp_path / "c", limits=limits)
        with pytest.raises(ConfigError, match=r"api_limits\.tokens=1000 is reached.*Raise it"):
            one.ask(["q"], Said)
        spent, each = sum(rows(tmp_path / "c", "tokens")), rows(tmp_path / "c", "tokens")[0]
        assert 1000 - each - 20 < spent <= 1000
        calls = len(api.calls)
        assert calls == len(rows(tmp_path / "c"))
        with pytest.raises(
            ConfigError, match="is reached"
        ):  # another process is under the same one
            one.ask(["another"], Said)
    assert len(api.calls) == calls


def test_cost_has_a_ceiling(here: None, tmp_path: Path) -> None:
    """An answer costs 11 * 2 + 7 * 10 = 92 millionths; a call may cost 20 * 10 and its question's."""
    limits = within(cost=1e-3, price_in=2.0, price_out=10.0, concurrency=1)
    with serving(lambda body, n: Do(), always) as api:
        one = chat(api.url, tmp_path / "c", limits=limits)
        with pytest.raises(ConfigError, match=r"api_limits\.cost=0\.001 is reached"):
            one.ask([str(i) for i in range(50)], Said)
    costs = rows(tmp_path / "c", "cost")
    assert costs == pytest.approx([92e-6] * len(costs))
    assert 2 <= len(costs) <= 8
    assert sum(costs) <= 1e-3


# -------------------------------------------------------------------------------------- what is kept


def test_a_way_to_ask_for_json_is_found_once(here: None, tmp_path: Path) -> None:
    def plan(body: dict[str, Any], n: int) -> Do:
        form = body.get("response_format", {}).get("type", "none")
        forms.append(form)
        known = {"json_schema": Do("refuse", status=400), "json_object": Do("refuse", status=422)}
        return known.get(form, Do())

    forms: list[str] = []
    with serving(plan, always) as api:
        one = chat(api.url, tmp_path / "c", mode="", limits=within(concurrency=1))
        assert all(said.value for said in one.ask(["q", "p"], Said))
        assert forms == ["json_schema", "json_object", "none", "none"]
        assert one.ask(["q", "r"], Said)[1].value
        assert forms[4:] == ["none"]
        api.plan = lambda body, n: Do("refuse", status=400, text="no model fake")
        with pytest.raises(ApiError, match=r"status 400 .no model fake"):
            chat(api.url, tmp_path / "d", mode="").ask(["q"], Said)
    assert len(api.calls) == 8


def test_a_question_is_paid_for_once(here: None, tmp_path: Path) -> None:
    with serving(lambda body, n: Do(), lambda q: json.dumps({"word": q.split("\n")[0]})) as api:
        one = chat(api.url, tmp_path / "c")
        assert [said.value.word for said in one.ask(["a", "b", "a"], Said) if said.value] == [
            *"aba"
        ]
        assert len(api.calls) == 2
        assert [said.value.word for said in one.ask(["b", "c"], Said) if said.value] == [*"bc"]
        assert len(api.calls) == 3  # one more question, one more call
        chat(api.url, tmp_path / "c", options={"max_tokens": 21}).ask(["a"], Said)
        assert len(api.calls) == 4
    again = chat(api.url, tmp_path / "c")  # though nobody is there any more
    assert again.ask(["c"], Said)[0].value
    assert again.ask([], Said) == []


BAD = [
    Do(text="It is yes."),
    Do(text='{"word": "a", "word": "b"}'),
    Do(text=GOOD, finish="length"),
    Do(text=GOOD, finish="content_filter"),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_answer_stays_said_and_is_never_taken_for_one(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Do
) -> None:
    """The host, which would answer better now, is not asked again; nor is the key needed."""
    with serving(lambda body, n: Do() if n else bad, always) as api:
        one = chat(api.url, tmp_path / "c")
        for _ in range(2):
            said = one.ask(["q"], Said)[0]
            assert (said.value, said.text, said.finish) == (None, bad.text, bad.finish)
        assert len(api.calls) == 1
    monkeypatch.delenv(KEY)
    assert one.ask(["q"], Said) == [said]  # nobody is there any more
    assert rows(tmp_path / "c", "raw") == [completion(bad.text, bad.finish)]
    with pytest.raises(ConfigError, match=f"key_variable='{KEY}'.*is not set"):
        one.ask(["p"], Said)


def test_a_page_that_is_no_completion_is_an_error(here: None, tmp_path: Path) -> None:
    with serving(lambda body, n: Do("raw", text="<html>Log in</html>"), always) as api:
        with pytest.raises(ApiError, match=r"no completion of a chat .* is that the URL"):
            chat(api.url, tmp_path / "c").ask(["q"], Said)
        api.plan = lambda body, n: Do()
        assert chat(api.url, tmp_path / "c").ask(["q"], Said)[0].value
    assert rows(tmp_path / "c", "raw")[0] == b"<html>Log in</html>"
    first, second = (headers["Idempotency-Key"] for *_, headers in api.calls)
    assert first != second  # or a host that knows them would say the same again


def test_an_altered_answer_is_paid_for_anew(here: None, tmp_path: Path, capsys) -> None:
    with serving(lambda body, n: Do(), always) as api:
        one = chat(api.url, tmp_path / "c")
        one.ask(["q"], Said)
        with contextlib.closing(sqlite3.connect(tmp_path / "c")) as found, found:
            found.execute("UPDATE calls SET raw=?", (completion('{"word": "no"}'),))
        assert one.ask(["q"], Said)[0].value == Said(word="yes")
    assert "answer of call 1 was altered or damaged" in capsys.readouterr().err


def test_an_answer_that_cannot_be_kept_is_an_error(here: None, tmp_path: Path, monkeypatch) -> None:
    def full(*args: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "received", full)
    with serving(lambda body, n: Do(), always) as api:
        one = chat(api.url, tmp_path / "c", limits=within(concurrency=1))
        with pytest.raises(DataError, match=r"api_cache=.*disk is full"):
            one.ask(["q", "p"], Said)
    assert len(api.calls) == 1  # nothing more is paid for


def test_a_file_that_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a database, and long enough to be one" * 100)
    with pytest.raises(
        DataError, match=r"execution\.api_cache='.*c' cannot be read.*not a database"
    ):
        chat("http://127.0.0.1:9", tmp_path / "c").ask(["q"], Said)
    with pytest.raises(DataError, match=r"execution\.api_cache="):
        chat("http://127.0.0.1:9", tmp_path / "c" / "below").ask(["q"], Said)


# ------------------------------------------------------------------------------------------ the API key


def test_the_key_is_in_no_file_and_no_message(tmp_path: Path, capsys, monkeypatch) -> None:
    """Though the host sends it back; by the process that sends, whose lines would be shown too."""

    def plan(body: dict[str, Any], n: int) -> Do:
        if "q" in body["messages"][0]["content"][:1]:
            return Do(text=json.dumps({"word": SECRET}))
        return Do("refuse", status=401, text=f"Bearer {SECRET} is wrong")

    with serving(plan, always) as api:
        one = chat(api.url, tmp_path / "c", limits=within(concurrency=1))
        assert one.ask(["q"], Said)[0].value == Said(word="***")
        with pytest.raises(ApiError, match=r"Bearer \*\*\* is wrong") as why:
            one.ask(["p"], Said)
    assert api.calls[0][2]["Authorization"] == f"Bearer {SECRET}"
    told = "".join(traceback.format_exception(why.value)) + "".join(capsys.readouterr())
    assert SECRET not in told
    assert not [p for p in tmp_path.iterdir() if SECRET.encode() in p.read_bytes()]
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(KEY, f"{SECRET}\nX: y")  # which the library below would print
    with pytest.raises(ConfigError, match=f"key_variable='{KEY}'.*holds blanks") as bad:
        one.ask(["r"], Said)
    assert SECRET not in "".join(traceback.format_exception(bad.value))


def test_nothing_is_sent_without_consent(tmp_path: Path) -> None:
    with serving(lambda body, n: Do(), always) as api:
        one = openai.Chat(Host(api.url, "m", KEY, "methods.x"), tmp_path / "c", "", LIMITS)
        with pytest.raises(ConfigError, match="api_consent=''"):
            one.ask(["q"], Said)
    assert api.calls == []
    assert rows(tmp_path / "c") == []


def test_another_form_is_another_question(here: None, tmp_path: Path) -> None:
    Other = create_model("Other", number=int)
    with serving(lambda body, n: Do(text='{"word": "yes", "number": 3}'), always) as api:
        one = chat(api.url, tmp_path / "c")
        assert one.ask(["q"], Said)[0].value == Said(word="yes")
        assert one.ask(["q"], Other)[0].value == Other(number=3)
    assert len(api.calls) == 2
