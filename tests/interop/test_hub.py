"""Hub ids against a small local server, reached through HF_ENDPOINT as in real use."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import pytest

from bua_jax.interop import huggingface
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config

CONFIG = Qwen2Config(31, 16, 24, 2, 4, 2, 4)
COMMIT = "c" * 40


@pytest.fixture
def hub(tmp_path):
    """(environment, expected params, paths asked for): one repository `org/model` with tag `v1`."""
    params = Qwen2(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    huggingface.save(tmp_path / "repo", CONFIG, params)
    (tmp_path / "repo" / "pytorch_model.bin").write_bytes(b"a pickle, never asked for")
    files = {p.name: p.read_bytes() for p in (tmp_path / "repo").iterdir()}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bytes, **headers: str) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path == "/api/models/org/model/revision/v1":
                siblings = [{"rfilename": name} for name in files]
                info = {"id": "org/model", "sha": COMMIT, "siblings": siblings}
                self.answer(json.dumps(info).encode(), Content_Type="application/json")
            elif path.startswith("/api/models/org/model/tree/"):
                listed = [
                    {"type": "file", "path": n, "size": len(b), "oid": "0" * 40}
                    for n, b in files.items()
                ]
                self.answer(json.dumps(listed).encode(), Content_Type="application/json")
            elif path.startswith("/org/model/resolve/") and path.rpartition("/")[2] in files:
                body = files[path.rpartition("/")[2]]
                etag = f'"{hashlib.sha256(body).hexdigest()}"'
                self.answer(body, ETag=etag, X_Repo_Commit=COMMIT)
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    yield environment, params, asked
    server.shutdown()
    server.server_close()


def _ask(environment: dict[str, str], name: str) -> subprocess.CompletedProcess[str]:
    """`hub.snapshot(name)` in a process of its own: huggingface_hub reads HF_ENDPOINT at import."""
    code = f"from bua_jax.interop import hub; print(hub.snapshot({name!r}))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_revision_is_downloaded_once_and_loads(hub):
    environment, params, asked = hub
    done = _ask(environment, "org/model@v1")
    assert done.returncode == 0, done.stderr
    config, loaded = huggingface.load(done.stdout.strip())
    assert config == CONFIG
    assert huggingface.tree_hash(loaded) == huggingface.tree_hash(params)
    assert not any(".bin" in path for path in asked), "only safetensors and tokenizer files"
    assert any("model.safetensors" in path for path in asked)
    offline = _ask({**environment, "HF_HUB_OFFLINE": "1"}, "org/model@v1")
    assert offline.stdout == done.stdout, offline.stderr


@pytest.mark.parametrize("name", ["org/model@v2", "org/other@v1", "a name@v1"])
def test_what_is_not_there_is_named(hub, name):
    done = _ask(hub[0], name)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "CheckpointError: Could not get" in last
    assert name.partition("@")[0] in last
