"""A host that speaks OpenAI's protocol on this machine, charges for answers, and misbehaves by plan."""

import contextlib
import json
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from bua_jax.dialogue.d2a import DESIRES


class Do(NamedTuple):
    """What the host does with one call; see `_Handler._do`."""

    what: str = "answer"
    after: float = 0.0  # seconds
    status: int = 200
    retry_after: str = ""
    text: str = ""  # that is answered; empty: what `Api.answer` says
    finish: str = "stop"


Plan = Callable[[dict[str, Any], int], Do]
"""(body, how often it was asked before) -> what is done."""


class Api:
    """calls: (question, what was done, headers) in their order; paid: whole answers charged, by body."""

    def __init__(self, plan: Plan, answer: Callable[[str], str]) -> None:
        self.plan, self.answer = plan, answer
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.times: list[float] = []
        self.asked, self.paid = Counter[bytes](), Counter[bytes]()
        self.under_way = self.most = 0
        self.lock, self.over, self.url = threading.Lock(), threading.Event(), ""

    def done(self) -> list[str]:
        return [what for _, what, _ in self.calls]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    api: Api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked is gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        api, raw = self.server.api, self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        question = body["messages"][0]["content"]
        with api.lock:
            do = api.plan(body, api.asked[raw])
            api.asked[raw] += 1
            api.calls.append((question, do.what, dict(self.headers)))
            api.times.append(time.monotonic())
            api.under_way += 1
            api.most = max(api.most, api.under_way)
            if do.what == "answer" and not do.text and do.finish == "stop":
                api.paid[raw] += 1  # charged when it is made, whether or not anybody still listens
        try:
            time.sleep(do.after)
            self._do(do, question)
        finally:
            with api.lock:
                api.under_way -= 1

    def _do(self, do: Do, question: str) -> None:
        api = self.server.api
        if do.what == "stall":
            api.over.wait(30)
            self.close_connection = True
        elif do.what == "refuse":
            self._send(do.status, do.text.encode() or b'{"error": "no"}', do.retry_after)
        elif do.what == "raw":
            self._send(200, do.text.encode())
        else:
            whole = completion(do.text or api.answer(question), do.finish)
            self._send(200, whole, cut=len(whole) // 2 if do.what == "cut" else None)

    def _send(self, status: int, raw: bytes, retry_after: str = "", cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(raw[:cut])
        self.close_connection = self.close_connection or cut is not None


def pick(question: str) -> str:
    """One of the labels that a question lists, by its hash."""
    labels = json.loads(re.findall(r"one of: (\[.*?\])\.", question)[0])
    return json.dumps({"behaviour": labels[zlib.crc32(question.encode()) % len(labels)]})


def said_by_host(question: str) -> str:
    """A label where one is asked for; else what D2A reads: degrees, levels, or a plan of one event."""
    if "Which behaviour comes next" in question:
        return pick(question)
    if "In the next " in question:
        return json.dumps({name: zlib.crc32(question.encode()) % 11 for name in DESIRES})
    if "Say of each" in question:
        return json.dumps(dict.fromkeys(DESIRES, "quite"))
    place = re.findall(r" (L1|other) ", question)[0]
    return json.dumps({"plan": [{"minute": 0, "place": place, "activity": "pay"}]})


def completion(text: str, finish: str = "stop") -> bytes:
    """A chat completion with that text; 11 tokens asked, 7 answered."""
    said = {
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "fake-0324",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    return json.dumps(said).encode()


@contextlib.contextmanager
def serving(plan: Plan, answer: Callable[[str], str]) -> Iterator[Api]:
    """The host while the block runs; `url` is its base."""
    api = Api(plan, answer)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.api, api.url = api, f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield api
    finally:
        api.over.set()
        server.shutdown()
        server.server_close()
