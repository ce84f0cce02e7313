"""Keys of questions, addresses, and what of a host's bytes is an answer; nobody is asked."""

import hashlib
from pathlib import Path

import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.interop import openai
from bua_jax.interop.openai import body_of, key_of, read_answer, strict_json
from bua_jax.interop.openai_host import Host, canonical, check_host
from bua_jax.interop.openai_store import opened
from tests.programs.ask_api import KEY, Said, chat
from tests.support.api import completion

GOOD = '{"word": "yes"}'


# --------------------------------------------------------------------------------- keys and addresses


def test_a_key_is_the_hash_of_address_and_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.0}
    sent = '{"messages":[{"content":"é","role":"user"}],"model":"m","temperature":0.0}'
    by_hand = hashlib.sha256(f"https://a.org/v1/chat/completions\n{sent}".encode()).hexdigest()
    assert key_of("https://a.org/v1", body) == by_hand
    assert key_of("HTTPS://A.org:443/v1/", dict(reversed(body.items()))) == by_hand
    monkeypatch.setenv(KEY, "another")
    assert key_of("https://a.org/v1/chat/completions", body) == by_hand
    others = [{**body, "temperature": 0.1}, {**body, "seed": 1}, {**body, "model": "n"}]
    keys = {key_of("https://a.org/v1", one) for one in others}
    assert len({*keys, by_hand, key_of("https://a.org:8443/v1", body)}) == 5


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:pass@a.org/v1", "without user, password or query"),
        ("https://a.org/v1?key=1", "without user, password or query"),
        ("ftp://a.org", "expected a URL such as"),
        ("a.org/v1", "expected a URL such as"),
        ("https://a.org:port", "expected a URL such as"),
        ("http://a.org/v1", "anybody on the way could read it"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        canonical(url)


@pytest.mark.parametrize(
    ("host", "consent", "said"),
    [
        (Host("", "m", "", "methods.x"), "", r"config\.methods\.x\.url is empty"),
        (Host("https://a.org", "", "", "methods.x"), "a.org", r"methods\.x\.model is empty"),
        (Host("https://a.org", "m", "", "methods.x"), "", r"api_consent='' .* --config\.exec.*=a\.org"),
        (Host("https://a.org", "m", "", "methods.x"), "b.org", "api_consent='b.org' is not 'a.org'"),
    ],
)  # fmt: skip
def test_who_may_not_be_asked(host: Host, consent: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_host(host, consent)


# --------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("text", "finish", "good"),
    [
        (GOOD, "stop", True),
        (f"\n\n  {GOOD}\n", "", True),
        (f"```json\n{GOOD}\n```", "stop", True),
        ('{"word": "yes", "why": "so"}', "stop", True),
        (GOOD, "length", False),
        (GOOD, "content_filter", False),
        ('{"word": "yes"', "stop", False),
        (f"Sure: {GOOD}", "stop", False),
        ('{"word": "no", "word": "yes"}', "stop", False),
        ('{"word": 1}', "stop", False),
        ('{"word": "yes", "p": NaN}', "stop", False),
        ("[" * 100_000, "stop", False),
        ('"yes"', "stop", False),
        ("", "stop", False),
    ],
)
def test_what_is_an_answer(text: str, finish: str, good: bool) -> None:
    found = read_answer(completion(text, finish), Said)
    assert found.value == (Said(word="yes") if good else None)
    assert (found.text, found.finish) == (text, finish)
    assert (found.model, found.fingerprint, found.created) == ("fake-0324", "fp_1", 1_750_000_000)


def test_of_several_answers_one_in_the_form_counts(tmp_path: Path) -> None:
    """As in caches of an earlier version, which asked again."""
    url = "http://127.0.0.1:9/v1"
    one = chat(url, tmp_path / "c")
    key = openai.key_of(url, body_of(one.host, one.options, "q", Said, one.mode))
    with opened(tmp_path / "c") as store:
        for raw in (b"<html>", completion("It is yes."), completion(GOOD)):
            store.received(store.begin(key, url, "fake", 1, 0.0), key, raw, 1, 0.0)
    assert one.ask(["q"], Said)[0].value == Said(word="yes")


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"{}", b'{"choices": []}', b'{"choices": 1}', b"\xff"]
)
def test_what_is_no_completion(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_answer(raw, Said)


def test_what_a_host_need_not_say() -> None:
    least = b'{"choices": [{"message": {"content": null}}], "created": null, "usage": null}'
    found = read_answer(least, Said)
    assert (found.text, found.value, found.finish, found.model, found.created) == (
        "",
        None,
        "",
        "",
        0,
    )
    odd = b'{"choices": [{"message": {}}], "created": 1e300, "usage": {"prompt_tokens": null}}'
    assert read_answer(odd, Said).created == 2**32


def test_json_is_read_strictly() -> None:
    assert strict_json(b' {"a": [1, {"b": null}]} ') == {"a": [1, {"b": None}]}
    for wrong in ('{"a": {"b": 1, "b": 2}}', "[Infinity]", "1 2"):
        with pytest.raises(ValueError, match=r"."):
            strict_json(wrong)


def test_a_body_asks_for_json_in_each_way() -> None:
    host = Host("https://a.org", "m")
    bodies = {mode: body_of(host, {"max_tokens": 5}, "Who?", Said, mode) for mode in openai.MODES}
    assert len({body["messages"][0]["content"] for body in bodies.values()}) == 1
    form = bodies["json_schema"]["response_format"]["json_schema"]
    assert (form["name"], form["strict"]) == ("Said", True)
    assert form["schema"]["required"] == ["word"]
    assert form["schema"]["additionalProperties"] is False
    assert bodies["json_object"]["response_format"] == {"type": "json_object"}
    assert "response_format" not in bodies["prompt"]
    assert bodies["prompt"]["max_tokens"] == 5
