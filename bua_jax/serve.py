"""Serves a trained model over HTTP: predictions, descriptions and days for several clients at once.

Examples:
  python -m bua_jax.serve --model=runs/quickstart
  curl --data-binary @histories.jsonl http://127.0.0.1:8000/predict
  BUA_SERVE_TOKEN=$(openssl rand -hex 32) python -m bua_jax.serve --model=runs/quickstart --host=0.0.0.0

/ is a page: a history, or one of the run's test users; what the model says, what comes next, the next day.
/predict, /describe and /generate take histories as `python -m bua_jax.predict --help` says, a JSON object to
a line, and answer with the verb's line for each, in their order, as they are made. /healthz says whether
the server is there, /metrics how it does (Prometheus). Requests share batches: a history joins those that
are being answered as soon as a row is free. /v1/chat/completions is OpenAI's protocol, for the base without
the run's adapter or with it (models base and adapter).

Off loopback clients must send `Authorization: Bearer TOKEN`, the token of the environment variable
BUA_SERVE_TOKEN, through something that encrypts (a reverse proxy): this server does not. docs/serve.md says
more. Needs the extra `serve`.
"""

import contextlib

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
flags.DEFINE_integer("port", 8000, "Port; 0: a free one, which is said.", 0, 65535)
flags.DEFINE_integer("examples", 8, "The run's test users that the page offers.", lower_bound=0)
flags.DEFINE_string("mesh", "1", "Devices: N (fsdp=N) or DATAxFSDPxTENSOR.")
cli.define_weights()
flags.DEFINE_integer("queue", 512, "Histories that may wait.", lower_bound=1)
flags.DEFINE_float("seconds", 300.0, "From a request to its last answer.", lower_bound=1.0)
flags.DEFINE_float("temperature", 1.0, "Of the sampled days; 0 = greedy.")
flags.DEFINE_float("top_p", 0.95, "Nucleus of the sampled days.")
flags.DEFINE_integer("seed", 42, "Of the sampled days.")
OF_FIELDS = {"temperature": "decoding.temperature", "top_p": "decoding.top_p", "seed": "seed"}


def main() -> None:
    try:
        import uvicorn  # noqa: F401

        from bua_jax.serving import guard
    except ImportError as error:
        raise ConfigError(f"{error}: pip install 'bua-jax[serve]'.") from error
    token = guard.token_for(FLAGS.host)
    from bua_jax.pipeline.checks import check_flag
    from bua_jax.pipeline.finished import events_of, load
    from bua_jax.serving import chat, page, server
    from bua_jax.serving.app import Office
    from bua_jax.serving.limits import Limits

    for name, field in OF_FIELDS.items():
        check_flag(name, FLAGS[name].value, field)
    with server.bound(FLAGS.host, FLAGS.port) as listening:
        bua = load(FLAGS.model, mesh=FLAGS.mesh, weights=FLAGS.weights)
        limits = Limits(waiting=FLAGS.queue, seconds=FLAGS.seconds)
        drawn = server.Drawn(FLAGS.temperature, FLAGS.top_p, FLAGS.seed)
        office = Office(bua, server.desk_of(bua, limits, drawn), limits)
        people = page.people_of(events_of(FLAGS.model), FLAGS.examples) if FLAGS.examples else []
        with contextlib.closing(chat.Chats(office)) as chats:
            more = [*page.routes(people), *chat.routes(chats)]
            server.serve(office, [listening], FLAGS.host, token, more)


if __name__ == "__main__":
    cli.run(main)
