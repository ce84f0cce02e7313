"""A run's server: the engine that its requests share, and uvicorn."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import uvicorn
from starlette.routing import Route

from bua_jax.alignment.ask import Bua
from bua_jax.basics.console import notice, waiting
from bua_jax.basics.errors import ConfigError
from bua_jax.decoding import dialogue, rounds
from bua_jax.serving.app import Office, QuestionTask, app_of
from bua_jax.serving.desk import Desk, Ticket
from bua_jax.serving.guard import LOOPBACK, Guard
from bua_jax.serving.limits import Limits
from bua_jax.serving.questions import KINDS, longest


@dataclass(frozen=True)
class Drawn:
    """How days are drawn, as `generate` has it; of all requests, which share a program."""

    temperature: float = 1.0
    top_p: float = 0.95
    seed: int = 42


def desk_of(bua: Bua, limits: Limits, drawn: Drawn) -> Desk:
    """A desk whose rows have room for the longest history of every kind."""
    decoder = bua.decoder
    with rounds.on_mesh(decoder):
        drawing = dialogue.drawing_of(
            decoder, bua.decoding.constrained, drawn.temperature, drawn.top_p, drawn.seed
        )
        asked = [longest(bua, kind).asked(bua) for kind in KINDS]
        slots = max(dialogue.slots_of(decoder, one, drawing) for one in asked)
        tree = rounds.label_tree(decoder)
        ready = rounds.engine_of(decoder, bua.batch, slots, tree=tree, drawing=drawing)
    return Desk(ready, limits.waiting, decoder.mesh)


async def warm(office: Office) -> None:
    """Compiles what requests need, by asking about made-up histories: one, then as many as can be."""
    for count in (1, min(office.desk.engine.batch, office.desk.most)):
        tasks = [QuestionTask(office.bua, longest(office.bua, "person"))] * count
        await asyncio.gather(*map(_last, office.desk.submit(tasks)))


async def _last(ticket: Ticket) -> None:
    while not (event := await ticket.next()).last:
        pass
    if event.error:
        raise ConfigError(f"The model does not answer: {event.error}")


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: a free one. Raises `ConfigError` where it cannot."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"--host={host} --port={port} cannot be listened on ({error.strerror or error}). Choose another "
            "--port, or 0 for a free one."
        ) from error


class Server(uvicorn.Server):
    """uvicorn's, with the settings that are meant here."""

    def __init__(self, app: Guard) -> None:
        settings = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,  # errors alone are logged, on stderr; no request is
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=10,
        )
        super().__init__(settings)
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # a client that left is no warning


def serve(
    office: Office,
    sockets: Sequence[socket.socket],
    host: str,
    token: str,
    more: Sequence[Route],
) -> None:
    """Serves until Ctrl-C or SIGTERM, and closes the desk; the rest as `app_of` has it.

    Raises `ConfigError` where the model does not answer.
    """
    app = app_of(office, token, loopback=host in LOOPBACK, more=more)
    port = sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host

    async def run() -> None:
        with waiting("compiling"):
            await warm(office)
        notice(f"http://{shown}:{port}/ answers; Ctrl-C ends it.")
        await Server(app).serve(list(sockets))

    with (
        contextlib.closing(office.desk),
        contextlib.suppress(KeyboardInterrupt),  # which uvicorn raises again when it has ended
    ):
        asyncio.run(run())
