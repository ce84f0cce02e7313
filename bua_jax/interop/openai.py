"""A chat with a host that speaks OpenAI's protocol (POST /chat/completions), each answer paid for once.

`Chat.ask` looks for answers in a cache of its own (`interop.openai_store`) and sends what is missing from
a process of its own (`interop.openai_calls`), which outlives the one that asks. A question's key is the
SHA-256 of canonical URL and whole body; the API key is part of neither. What a host said once stays said,
also in a wrong form or cut: else what is made of answers could be made again only with the host there, and
would be another thing. Another cache asks anew.

What "once" means. Between a host's sending of an answer and its being on our disk it is paid for and not
kept, and no client can make that nothing. Here it is the sender's alone: whoever asks may be killed at any
moment, and the sender waits for what it has sent, keeps it, and ends; the next one begins after it. What
remains is the end of the sender itself, by SIGKILL of it, by that of its whole job or container, or with
the machine. Then the calls that were under way are written down as lost: they count in tokens and cost as
if they had been paid for, they are asked again, and they carry the same Idempotency-Key, by which a host
that knows such charges nothing. The same holds for time-outs, which are asked again; a connection that
breaks is not, before somebody runs the command again.
"""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bua_jax.basics.console import bar, notice
from bua_jax.basics.errors import ApiError, ConfigError, DataError
from bua_jax.interop.openai_host import Host, Limits, canonical, check_host, secret
from bua_jax.interop.openai_store import Store, opened

MODES = ("json_schema", "json_object", "prompt")
"""Ways to ask for JSON, in the order in which a host is tried for them."""
NO_ANSWER = ("length", "content_filter")
"""Reasons to finish after which there is no answer."""
_NOT_KNOWN = (400, 422)  # statuses of a host that does not know a way to ask for JSON
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)

ERRORS = {kind.__name__: kind for kind in (ApiError, ConfigError, DataError)}
"""What the sending process raises, by the name that it is told by."""

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a host said to one question."""

    text: str  # as it was written
    value: T | None  # what that says in the form that was asked for; None: it is no answer
    finish: str
    model: str  # that answered, as the host names it
    fingerprint: str  # the host's system_fingerprint
    created: int  # seconds since 1970, by the host's clock; 0 = it does not say


# ---------------------------------------------------------------------------------- questions and answers


def key_of(url: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of canonical URL and whole body, whatever the order of its keys."""
    return hashlib.sha256(f"{canonical(url)}\n".encode() + as_bytes(body)).hexdigest()


def as_bytes(body: Mapping[str, Any]) -> bytes:
    """A body as it is sent."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def tokens_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of a question, about (one for three bytes), and of its answer, at most."""
    out = body.get("max_completion_tokens") or body.get("max_tokens") or 4096
    return len(as_bytes(body)) // 3 + 16, int(out)


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError` also for a key that comes twice, and for NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key comes twice")
        return found

    def never(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=never)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """What of a host's answer is read; fields that it has beyond them are left alone."""

    choices: list[_Choice]
    model: str | None = None
    created: float | None = None
    system_fingerprint: str | None = None
    usage: _Usage | None = None


def completion(raw: bytes) -> Completion:
    """What came back. Raises `ValueError` for what is no completion of a chat."""
    return Completion.model_validate(strict_json(raw))


def read_answer(raw: bytes, shape: type[T]) -> Answer[T]:
    """The first choice of what came back, read strictly. Raises `ValueError` where there is none.

    One fence of Markdown around the JSON is no error; keys that come twice and prose around it are.
    """
    said = completion(raw)
    if not said.choices:
        raise ValueError("it has no choices")
    first, value = said.choices[0], None
    text, finish = first.message.content or "", first.finish_reason or ""
    if finish not in NO_ANSWER:
        inside = _FENCE.fullmatch(text)
        with contextlib.suppress(ValueError, ValidationError):
            value = shape.model_validate(strict_json(inside[1] if inside else text), strict=True)
    named = (said.model or "", said.system_fingerprint or "")
    return Answer(text, value, finish, *named, int(min(max(said.created or 0, 0), 2**32)))


def body_of(
    host: Host, options: Mapping[str, Any], question: str, shape: type[BaseModel], mode: str
) -> dict[str, Any]:
    """A question as it is sent; its text asks for JSON whatever the mode, so that all read the same."""
    schema = {**shape.model_json_schema(), "additionalProperties": False}
    told = f"{question}\nAnswer with one JSON object of this JSON Schema: {json.dumps(schema)}"
    body = {"model": host.model, "messages": [{"role": "user", "content": told}], **options}
    strict = {"name": shape.__name__.strip("_"), "strict": True, "schema": schema}
    forms = {
        "json_schema": {"type": "json_schema", "json_schema": strict},
        "json_object": {"type": "json_object"},
    }
    return body | ({"response_format": forms[mode]} if mode in forms else {})


# -------------------------------------------------------------------------------------------- asking


@dataclass(frozen=True)
class Chat:
    """Questions to one host; each is paid for once, as far as the module says."""

    host: Host
    cache: Path
    consent: str  # the host that the questions may be sent to
    limits: Limits = field(default_factory=Limits)
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # of the body: max_tokens, temperature, ...
    mode: str = ""  # one of `MODES`; empty: the first that the host takes

    def ask(self, questions: Sequence[str], shape: type[T]) -> list[Answer[T]]:
        """An answer to each question, in the form of `shape` or in none (`value` None); each is kept.

        Raises `ApiError` where the host refuses, breaks off or does not answer, `ConfigError` where limits
        are reached, each after all that was under way is kept; and `DataError` for a damaged cache.
        """
        with opened(self.cache) as store:
            before = store.ledger()
            said: dict[str, Answer[T]] = {}
            mode = self.mode or store.mode(canonical(self.host.url), self.host.model)
            if not mode and questions:
                mode, said = self._first_mode(store, questions[0], shape)
            bodies = [body_of(self.host, self.options, one, shape, mode) for one in questions]
            keyed = {key_of(self.host.url, body): body for body in bodies}
            said |= {key: one for key in keyed if (one := _kept(store, key, shape))}
            said |= self._sent(store, {k: b for k, b in keyed.items() if k not in said}, shape)
            self._say(before.calls, store)
        return [said[key_of(self.host.url, body)] for body in bodies]

    def _first_mode(
        self, store: Store, question: str, shape: type[T]
    ) -> tuple[str, dict[str, Answer[T]]]:
        """The first way to ask for JSON that the host takes, found with one question; and its answer."""
        for mode in MODES:
            body = body_of(self.host, self.options, question, shape, mode)
            try:
                said = self._sent(store, {key_of(self.host.url, body): body}, shape)
            except ApiError as error:
                if error.status not in _NOT_KNOWN or mode == MODES[-1]:
                    raise
                continue
            store.found_mode(canonical(self.host.url), self.host.model, mode)
            return mode, said
        raise AssertionError("the last mode returns or raises")

    def _sent(
        self, store: Store, bodies: Mapping[str, Mapping[str, Any]], shape: type[T]
    ) -> dict[str, Answer[T]]:
        """Sends bodies by key and reads what came back."""
        if not bodies:
            return {}
        check_host(self.host, self.consent)
        secret(self.host)
        job = {
            "host": asdict(self.host),
            "limits": asdict(self.limits),
            "cache": str(self.cache.resolve()),
            "bodies": {k: (len([*store.of_key(k)]), body) for k, body in bodies.items()},
        }
        calls, found = dict(_calls_of(job)), {}
        for key, number in calls.items():
            raw = dict(store.of_key(key))[number]
            try:
                found[key] = read_answer(raw, shape)
            except ValueError as error:
                raise ApiError(
                    f"{self.host.url} answered with what is no completion of a chat ({_short(str(error))}). "
                    f"It is kept as call {number} of {self.cache}; is that the URL of such a service?"
                ) from error
        return found

    def _say(self, before: int, store: Store) -> None:
        now, limits = store.ledger(), self.limits
        if now.calls == before:
            return
        cost = f", cost {now.cost:.4f}" + f" of {limits.cost:.4f}" * bool(limits.cost)
        notice(
            f"{self.host.name}: {now.calls - before} calls; in {self.cache} {now.calls} so far, {now.lost} "
            f"lost, {now.tokens} of {limits.tokens} tokens{cost if limits.price_out else ''}"
        )


def _kept(store: Store, key: str, shape: type[T]) -> Answer[T] | None:
    """The oldest answer to a question that is in its form; where none is, the oldest."""
    found: list[Answer[T]] = []
    for _, raw in store.of_key(key):
        with contextlib.suppress(ValueError):  # no completion of a chat: the host said nothing
            found.append(read_answer(raw, shape))
    return next((one for one in found if one.value is not None), found[0] if found else None)


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


# ---------------------------------------------------------------------------------- the sending process


def _calls_of(job: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(key, call) of each question of a job, behind a progress bar. Raises what `ask` does."""
    failed: dict[str, Any] = {}
    left = len(job["bodies"])
    with bar() as shown:
        task = shown.add_task(f"asking {Host(**job['host']).name}", total=left)
        for said in _said(job):
            if "call" in said:
                shown.advance(task)
                left -= 1
                yield said["key"], said["call"]
            elif "failed" in said:
                failed = failed or said
            else:
                notice(said["notice"])
    if failed:
        error = ERRORS[failed["kind"]](failed["failed"])
        if isinstance(error, ApiError):
            error.status = failed["status"]
        raise error
    if left:  # it had a signal of its own, as when a whole job is ended
        raise ApiError(
            f"The process that asks was told to stop before {left} questions were sent. Run the same command "
            "again to go on; all answers so far are kept."
        )


def _said(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the sending process says, which goes on with what is under way if this one ends."""
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "bua_jax.interop.openai_calls"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is not for it
    )
    assert process.stdin is not None
    assert process.stdout is not None
    rest = []
    with process.stdin, process.stdout:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            try:
                yield json.loads(line)
            except ValueError:  # of Python itself
                rest.append(line)
    if code := process.wait():
        yield {
            "failed": f"The process that asks ended with {code}. {_short(' '.join(rest[-5:]))}",
            "kind": ApiError.__name__,
            "status": 0,
        }
