"""Predicts the next behaviour of every history in a JSONL file, with the understanding texts.

Examples:
  python -m bua_jax.predict --model=runs/quickstart --input=histories.jsonl --output=predictions.jsonl
  python -m bua_jax.predict --model=runs/quickstart --example=3 > histories.jsonl

A line of the input is one person, oldest event first:
  {"id": "anna", "events": [
    {"weekday": "Tuesday", "time": "18:30", "location": "cafe", "behaviour": "pay"}, ...]}
`day` (a running day number) may stand beside `weekday` where records have holes of a week or more, and where
a clock that is put back in autumn goes back by an hour;
"gap": true marks an event before which an unknown time passed. Locations are any names; only their ranks
within the history reach the model. `--example=N` prints N histories of the run's test users in this form.
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
from bua_jax.basics.files import check_output

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
flags.DEFINE_string("input", "", "JSONL file of histories.")
flags.DEFINE_string("output", "", "JSONL file to write.")
flags.DEFINE_integer("example", 0, "Print that many example histories and stop.", lower_bound=0)
flags.DEFINE_string("mesh", "1", "Devices: N (fsdp=N) or DATAxFSDPxTENSOR.")
flags.DEFINE_bool("refine", False, "Run the refinement round before the prediction.")
cli.define_engine()
cli.define_take_over()


def main() -> None:
    from bua_jax.events.histories import example_lines, read_histories
    from bua_jax.parallel.ray_shards import start_ray
    from bua_jax.pipeline.answers import (
        BESIDE,
        PARTS,
        write_answers,
        write_answers_on_ray,
        write_prediction_shard,
    )
    from bua_jax.pipeline.finished import events_of, load

    if FLAGS.example:
        sys.stdout.writelines(example_lines(events_of(FLAGS.model), FLAGS.example))
        return
    if not FLAGS.input or not FLAGS.output:
        raise ConfigError("--input and --output are needed; see --help for the format.")
    check_output(FLAGS.output, FLAGS.input, beside=BESIDE)
    cluster = cli.cluster()
    if cluster is not None:  # it forks, which must come before jax has threads
        start_ray(cluster["address"])
    bua = load(FLAGS.model, refine=FLAGS.refine, mesh=FLAGS.mesh)
    ids, histories = read_histories(FLAGS.input, bua.catalogue, bua.windows.prediction_history)
    identity, part = bua.identity(FLAGS.input, "labels"), PARTS * bua.batch
    options: dict[str, Any] = {"identity": identity, "take_over": FLAGS.take_over}
    if cluster is None:
        asked = ids, histories, lambda some, begin: bua.predict(some)
        write_answers(FLAGS.output, *asked, part=part, **options)
        return
    where = Path(FLAGS.model).resolve(), FLAGS.refine, FLAGS.mesh, Path(FLAGS.input).resolve()
    work = functools.partial(write_prediction_shard, *where, part)
    parts = -(-len(ids) // part)
    write_answers_on_ray(FLAGS.output, work, parts, **options, **cluster)


if __name__ == "__main__":
    cli.run(main)
