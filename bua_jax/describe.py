"""Describes people: the understanding texts, round by round, of their last events.

Examples:
  python -m bua_jax.describe --model=runs/mine events.csv --for=anna
  python -m bua_jax.describe --model=runs/mine events.csv --output=texts.csv
  python -m bua_jax.describe --model=runs/quickstart --input=histories.jsonl --output=texts.jsonl

The input is that of `python -m bua_jax.predict --help`. A line of the output: id, understanding (the texts by
round), signature. Finished texts are kept in OUTPUT.partial as predict keeps answers.
"""

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
cli.define_asked()
flags.DEFINE_string("mesh", "1", "Devices: N (fsdp=N) or DATAxFSDPxTENSOR.")
flags.DEFINE_bool("refine", False, "Run the refinement round too.")
cli.define_take_over()


def main() -> None:
    if not FLAGS.input:
        raise ConfigError("--input is missing; see --help for what it holds.")
    from bua_jax.pipeline.answers import PARTS, check_answers, tell
    from bua_jax.pipeline.finished import load
    from bua_jax.planning.people import asked_people

    check_answers(FLAGS.output, FLAGS.input)
    bua = load(FLAGS.model, refine=FLAGS.refine, mesh=FLAGS.mesh, weights=FLAGS.weights)
    told = cli.asked()
    limit = bua.windows.prediction_history
    people = asked_people(FLAGS.model, FLAGS.input, bua.catalogue, limit, **told)
    tell(
        people,
        lambda some, begin: bua.describe_all(some),
        FLAGS.output,
        identity=bua.identity(FLAGS.input, f"texts{told}"),
        part=PARTS * bua.batch,
        take_over=FLAGS.take_over,
    )


if __name__ == "__main__":
    cli.run(main, argument="input")
