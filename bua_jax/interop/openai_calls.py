"""The process that sends questions to a host and keeps what comes back; it outlives the one that asks.

  python -m bua_jax.interop.openai_calls     reads a job as one line of JSON, says a line about each question

It goes on with nothing new once its standard input ends (whoever asked is gone), or on a signal: what is
under way is waited for and kept. One such process works on a cache at a time; the next waits for it. The API
key is read from the environment when a call is sent, and taken out of whatever a host sends back.
"""

import asyncio
import contextlib
import email.utils
import fcntl
import hashlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import tenacity
from aiolimiter import AsyncLimiter

from bua_jax.basics.errors import BuaError
from bua_jax.interop.openai import as_bytes, completion, tokens_of
from bua_jax.interop.openai_host import LOCAL, Host, Limits, canonical, secret
from bua_jax.interop.openai_store import Store, opened

AGAIN = (408, 409, 429)
"""Statuses that are asked again, beside 5xx and time-outs; nothing else is."""
LONGEST_WAIT = 600.0
"""Seconds: a host that tells one to wait longer is not waited for."""
_MILLION = 1e6


class Failed(Exception):
    """Ends the job; kind: api, or that of another error (see `openai.ERRORS`)."""

    def __init__(self, text: str, kind: str = "ApiError", status: int = 0) -> None:
        super().__init__(text)
        self.kind, self.status = kind, status


class _Again(Failed):
    """What is asked again, not sooner than `after` seconds from now."""

    def __init__(self, text: str, status: int = 0, after: float = 0.0) -> None:
        super().__init__(text, status=status)
        self.after = after


class _Stopped(Exception):
    """Nothing new is to be sent."""


def retry_after(headers: httpx.Headers) -> float:
    """Seconds that a host tells one to wait, as a number or until a date; 0 = it tells nothing."""
    said = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(said))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    return 0.0


@dataclass
class Sender:
    """What calls of one job share; times are the event loop's."""

    host: Host
    limits: Limits
    store: Store
    client: httpx.AsyncClient
    stop: asyncio.Event
    key: str  # to the host
    requests: AsyncLimiter = field(init=False)
    per_minute: AsyncLimiter | None = field(init=False)  # of tokens
    not_before: float = 0.0  # until when the host told all to wait

    def __post_init__(self) -> None:
        # One by one: a full bucket, and what drips into it, would be twice as many in the first minute.
        self.requests = AsyncLimiter(1, 60 / self.limits.requests_per_minute)
        most = self.limits.tokens_per_minute
        self.per_minute = AsyncLimiter(most, 60) if most else None
        had = self.store.ledger()
        self.tokens, self.cost = had.tokens, had.cost

    async def ready(self) -> None:
        """Takes what the last process sent within a minute off this one's share."""
        if self.per_minute is not None:
            most = self.per_minute.max_rate
            await self.per_minute.acquire(min(self.store.tokens_since(60), most))

    async def ask(self, key: str, body: Mapping[str, Any]) -> int:
        """The number of the call that an answer came to. Raises `Failed` and `_Stopped`."""
        tries = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.limits.tries),
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_Again),
            sleep=self._sleep,
            reraise=True,
        )
        return await tries(self._try, key, body)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        growing = tenacity.wait_random_exponential(self.limits.backoff, max=60)
        return max(growing(state), error.after if isinstance(error, _Again) else 0.0)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    async def _turn(self, tokens: int) -> None:
        """Returns when a call of so many tokens may be sent."""
        loop, per = asyncio.get_running_loop(), self.per_minute
        some = min(tokens, self.limits.tokens_per_minute)
        while True:
            if self.stop.is_set():
                raise _Stopped
            free = self.requests.has_capacity(1) and (per is None or per.has_capacity(some))
            if free and loop.time() >= self.not_before:
                break
            await self._sleep(0.02)
        await self.requests.acquire(1)
        if per is not None:
            await per.acquire(some)

    async def _try(self, key: str, body: Mapping[str, Any]) -> int:
        """Sends a question once. Raises `_Again` for what is to be asked again."""
        asked, most = tokens_of(body)
        await self._turn(asked + most)
        url, cost = canonical(self.host.url), self._cost(asked, most)
        self._check_budget(asked + most, cost)
        number = self.store.begin(key, url, self.host.model, asked + most, cost)
        self.tokens, self.cost = self.tokens + asked + most, self.cost + cost
        try:
            async with asyncio.timeout(self.limits.timeout):
                response = await self.client.post(
                    url, content=as_bytes(body), headers=self._headers(key)
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            self.store.lost(number)
            raise _Again(
                f"{self.host.name} did not answer within {self.limits.timeout:g} s "
                f"(config.execution.api_limits.timeout), {self.limits.tries} times"
            ) from error
        except httpx.RequestError as error:
            if isinstance(error, httpx.ConnectError):  # so that nothing was sent
                self.store.refused(number, 0, 0)
            else:
                self.store.lost(number)
            raise self._broken(error) from error
        self.tokens, self.cost = self.tokens - asked - most, self.cost - cost
        if response.status_code != 200:
            self.store.refused(number, response.status_code, asked)
            self.tokens += asked
            raise self._refusal(response)
        raw = self._scrubbed(response.content)
        tokens, cost = self._used(raw, asked, most)
        self.store.received(number, key, raw, tokens, cost)
        self.tokens, self.cost = self.tokens + tokens, self.cost + cost
        return number

    def _headers(self, key: str) -> dict[str, str]:
        """With a key to be known by again, another one after an answer that was none."""
        earlier = sum(1 for _ in self.store.of_key(key))
        same = hashlib.sha256(f"{key}|{earlier}".encode()).hexdigest()
        own = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Content-Type": "application/json", "Idempotency-Key": same, **own}

    def _scrubbed(self, raw: bytes) -> bytes:
        return raw.replace(self.key.encode(), b"***") if self.key else raw

    def _cost(self, asked: float, out: float) -> float:
        return (asked * self.limits.price_in + out * self.limits.price_out) / _MILLION

    def _used(self, raw: bytes, asked: int, most: int) -> tuple[int, float]:
        """Tokens and cost of an answer as the host counts them; as estimated where it does not."""
        with contextlib.suppress(ValueError):
            if usage := completion(raw).usage:
                asked = max(usage.prompt_tokens or 0, 0)
                most = max(usage.completion_tokens or 0, 0)
        return asked + most, self._cost(asked, most)

    def _check_budget(self, tokens: int, cost: float) -> None:
        """Raises `Failed` before a call that could reach beyond the ceilings."""
        for name, had, more, most in (
            ("tokens", self.tokens, tokens, self.limits.tokens),
            ("cost", self.cost, cost, self.limits.cost),
        ):
            if had + more > most and (most or name == "tokens"):
                raise Failed(
                    f"config.execution.api_limits.{name}={most:g} is reached: calls in the cache came to "
                    f"{had:g}, those that were asked again or lost counted too, and another could take "
                    f"{more:g}. Raise it to go on; all answers so far are kept.",
                    "ConfigError",
                )

    def _broken(self, error: httpx.RequestError) -> Failed:
        what = self._scrubbed(str(error).encode()).decode() or type(error).__name__
        return Failed(
            f"The connection to {self.host.name} broke or was not made ({what}). Whether a call that was "
            "under way is charged for is the host's to say, so it is not asked again by itself. Run the "
            "same command again to go on; all answers so far are kept."
        )

    def _refusal(self, response: httpx.Response) -> Failed:
        status, after = response.status_code, retry_after(response.headers)
        said = " ".join(self._scrubbed(response.content).decode(errors="replace").split())[:300]
        text = f"{self.host.name} answered with status {status} ({said or 'and no text'})."
        if after > LONGEST_WAIT:
            return Failed(f"{text} It asks to be left alone for {after:.0f} s.", status=status)
        if status not in AGAIN and status < 500:
            return Failed(f"{text} {_REMEDY.get(status, '')}".strip(), status=status)
        if after:
            self.not_before = max(self.not_before, asyncio.get_running_loop().time() + after)
        return _Again(f"{text} So it did {self.limits.tries} times; try later.", status, after)


_REMEDY = {
    401: "The API key, in the environment variable that key_variable names, is not accepted.",
    402: "The account has no money left.",
    403: "The API key is not allowed to do this.",
    404: "Mend the config's url or model.",
}

# ------------------------------------------------------------------------------------------- the process


def say(**what: Any) -> None:
    """A line to whoever asked; what nobody reads any more is not said."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(what), flush=True)


async def send(job: Mapping[str, Any], store: Store, stop: asyncio.Event) -> None:
    """Sends all questions of a job, so many at once; the first failure ends it after what is under way."""
    host, limits = Host(**job["host"]), Limits(**job["limits"])
    waiting = iter(job["bodies"].items())
    key = secret(host)
    # Connections are used once: one that is kept may be closed by the host while it is written to.
    pool = httpx.Limits(max_keepalive_connections=0)
    direct = host.name not in LOCAL  # a proxy is another machine
    async with httpx.AsyncClient(timeout=limits.timeout, limits=pool, trust_env=direct) as client:
        sender = Sender(host, limits, store, client, stop, key)
        await sender.ready()

        async def work() -> None:
            for key, (seen, body) in waiting:
                came = [number for number, _ in store.of_key(key)]
                try:  # what another process was waiting for may have come in since this job was made
                    say(key=key, call=came[-1] if len(came) > seen else await sender.ask(key, body))
                except Failed as error:
                    stop.set()
                    say(failed=str(error), kind=error.kind, status=error.status)
                except _Stopped:
                    return
                except BaseException:
                    stop.set()
                    raise

        done = await asyncio.gather(
            *(work() for _ in range(limits.concurrency)), return_exceptions=True
        )
        for error in filter(None, done):
            raise error


@contextlib.asynccontextmanager
async def alone(cache: Path, stop: asyncio.Event) -> AsyncIterator[None]:
    """While the block runs no other process sends for this cache; the lock ends with the process."""
    with cache.with_name(cache.name + ".lock").open("w") as lock:
        said = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.is_set():
                    raise _Stopped from None
                if not said:
                    say(notice=f"{cache}: waiting for calls that another process has sent")
                said = True
                await asyncio.sleep(0.05)
        yield


async def main() -> None:
    """Reads a job, and does it."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    job = json.loads(sys.stdin.readline())

    def gone() -> None:
        loop.remove_reader(0)
        stop.set()

    loop.add_reader(0, gone)  # nothing more is written there: it ends with whoever asked
    cache = Path(job["cache"])
    try:
        async with alone(cache, stop):
            with opened(cache) as store:
                if lost := store.orphans():
                    say(
                        notice=f"{cache}: {lost} calls ended with the process that had sent them; they "
                        "count as paid for, and are sent again where they are asked for"
                    )
                await send(job, store, stop)
    except _Stopped:
        return
    except BuaError as error:
        say(failed=str(error), kind=type(error).__name__, status=0)


if __name__ == "__main__":
    asyncio.run(main())
