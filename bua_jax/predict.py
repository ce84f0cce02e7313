"""Predicts the next behaviour of people, with the understanding texts.

Examples:
  python -m bua_jax.predict --model=runs/mine events.csv --for=anna
  python -m bua_jax.predict --model=runs/mine events.csv --output=next.csv
  python -m bua_jax.predict --model=runs/quickstart --input=histories.jsonl --output=predictions.jsonl
  python -m bua_jax.predict --model=runs/quickstart --example=3 > histories.jsonl

The input is a file of events (csv, tsv, parquet; columns as the model's data had them, also of people it has
never seen), of which each person's last are read, or histories: a line is one person, oldest event first:
  {"id": "anna", "events": [
    {"weekday": "Tuesday", "time": "18:30", "location": "cafe", "behaviour": "pay"}, ...]}
`day` (a running day number) may stand beside `weekday` where records have holes of a week or more, or clocks
are put back by an hour; "gap": true marks an event before which an unknown time passed. Of locations only
ranks within the history reach the model. `--example=N` prints N histories of the run's test users.
A line of the output: id, prediction, probabilities of every behaviour, understanding (the texts of the
rounds), signature. Finished answers are kept in OUTPUT.partial, two batches at a time (fewer where that takes
longer than 30 s), and the same command goes on after them; Ctrl-C stops after those at hand, twice at once.
Log-probabilities depend on config.execution.decode_batch in their last bits (1.5e-5 nats were seen between 8
and 64, float32). `--engine=ray` shares the histories out over a Ray cluster (extra `ray`); same output.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
cli.define_asked()
flags.DEFINE_integer("example", 0, "Print that many example histories and stop.", lower_bound=0)
flags.DEFINE_string("mesh", "1", "Devices: N (fsdp=N) or DATAxFSDPxTENSOR.")
flags.DEFINE_bool("refine", False, "Run the refinement round before the prediction.")
cli.define_engine()
cli.define_take_over()


def main() -> None:
    if not (FLAGS.input or FLAGS.example):
        raise ConfigError("--input is missing; see --help for what it holds.")
    from bua_jax.events.histories import example_lines
    from bua_jax.parallel.ray_shards import start_ray
    from bua_jax.pipeline import answers
    from bua_jax.pipeline.finished import events_of, load
    from bua_jax.planning.people import asked_people

    if FLAGS.example:
        sys.stdout.writelines(example_lines(events_of(FLAGS.model), FLAGS.example))
        return
    answers.check_answers(FLAGS.output, FLAGS.input)
    cluster = cli.cluster()
    if cluster is not None:  # it forks, which must come before jax has threads
        answers.check_shared(FLAGS.input, FLAGS.output, cli.asked()["only"])
        start_ray(cluster["address"])
    bua = load(FLAGS.model, refine=FLAGS.refine, mesh=FLAGS.mesh, weights=FLAGS.weights)
    told = cli.asked()
    limit = bua.windows.prediction_history
    people = asked_people(FLAGS.model, FLAGS.input, bua.catalogue, limit, **told)
    identity, part = bua.identity(FLAGS.input, f"labels{told}"), answers.PARTS * bua.batch
    options: dict[str, Any] = {"identity": identity, "take_over": FLAGS.take_over}
    if cluster is None:
        answers.tell(
            people, lambda some, begin: bua.predict(some), FLAGS.output, part=part, **options
        )
        return
    how = FLAGS.refine, FLAGS.mesh, FLAGS.weights
    where = Path(FLAGS.model).resolve(), how, Path(FLAGS.input).resolve()
    work = functools.partial(answers.write_prediction_shard, *where, part)
    parts = -(-len(people.ids) // part)
    answers.write_answers_on_ray(FLAGS.output, work, parts, **options, **cluster)


if __name__ == "__main__":
    cli.run(main, argument="input")
