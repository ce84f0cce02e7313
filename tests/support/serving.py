"""A server of `bua_jax.serving` in a thread of the tests."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from starlette.routing import Route

from bua_jax.serving import server
from bua_jax.serving.app import Office, app_of


@contextlib.contextmanager
def listening(office: Office, token: str = "", more: Sequence[Route] = ()) -> Iterator[str]:
    """Its address while the block runs."""
    with server.bound("127.0.0.1", 0) as socket:
        running = server.Server(app_of(office, token, loopback=True, more=more))
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([socket])))
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


@contextlib.contextmanager
def closing(office: Office) -> Iterator[Office]:
    """Its engine's thread ends with the block."""
    try:
        yield office
    finally:
        office.desk.close()


def wait_for_no_rows(office: Office) -> None:
    """Returns when nothing waits and no row is taken."""
    for _ in range(1000):
        if office.desk.state()[:2] == (0, 0):
            return
        time.sleep(0.01)
    raise AssertionError(office.desk.state())
