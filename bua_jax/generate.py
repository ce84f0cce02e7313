"""Generates the next day of people, with the understanding texts.

Examples:
  python -m bua_jax.generate --model=runs/mine events.csv --for=anna
  python -m bua_jax.generate --model=runs/mine events.csv --output=days.csv
  python -m bua_jax.generate --model=runs/quickstart --input=histories.jsonl --output=days.jsonl
  python -m bua_jax.generate --model=runs/quickstart --input=histories.jsonl --output=days.jsonl \\
      --temperature=0 --seed=1

The input is that of `python -m bua_jax.predict --help`. The generated day follows the day of the last
event. A line of the output: id, weekday, events (time, place, behaviour; places are ranks within the
history, L1 the most visited, or the names in a file of events, of which answers have the date too),
understanding, signature. Finished days are kept in OUTPUT.partial
as predict keeps answers. `--predictions` adds prediction and probabilities of the
next behaviour: the understanding rounds are written once for both, on the history of a prediction.
"""

from typing import Any

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
cli.define_asked()
flags.DEFINE_string("mesh", "1", "Devices: N (fsdp=N) or DATAxFSDPxTENSOR.")
flags.DEFINE_bool("refine", False, "Run the refinement round before the generation.")
flags.DEFINE_bool("predictions", False, "Predict too, after the same understanding rounds.")
flags.DEFINE_float("temperature", 1.0, "Of the sampled day; 0 = greedy.")
flags.DEFINE_float("top_p", 0.95, "Nucleus of the sampled day.")
flags.DEFINE_integer("seed", 42, "Of the sampled day.")
cli.define_take_over()
OF_FIELDS = {"temperature": "decoding.temperature", "top_p": "decoding.top_p", "seed": "seed"}


def main() -> None:
    if not FLAGS.input:
        raise ConfigError("--input is missing; see --help for what it holds.")
    from bua_jax.pipeline.answers import PARTS, check_answers, tell
    from bua_jax.pipeline.checks import check_flag
    from bua_jax.pipeline.finished import load
    from bua_jax.planning.people import asked_people

    check_answers(FLAGS.output, FLAGS.input)
    for name, field in OF_FIELDS.items():
        check_flag(name, FLAGS[name].value, field)
    bua = load(FLAGS.model, refine=FLAGS.refine, mesh=FLAGS.mesh, weights=FLAGS.weights)
    wanted = "prediction_history" if FLAGS.predictions else "generation_history"
    limit = bua.windows[wanted]
    told = cli.asked()
    people = asked_people(FLAGS.model, FLAGS.input, bua.catalogue, limit, **told)
    options: dict[str, Any] = {
        "temperature": FLAGS.temperature,
        "top_p": FLAGS.top_p,
        "seed": FLAGS.seed,
        "predictions": FLAGS.predictions,
    }
    tell(
        people,
        lambda some, begin: bua.generate(some, rows=range(begin, begin + len(some)), **options),
        FLAGS.output,
        identity=bua.identity(FLAGS.input, f"{options}{told}"),
        part=PARTS * bua.batch,
        take_over=FLAGS.take_over,
    )


if __name__ == "__main__":
    cli.run(main, argument="input")
