"""Writes the dialogues of stages 1 and 2 as parquet: instructions and reference answers.

Examples:
  python -m bua_jax.annotate --workdir=runs/stage2 --show=3
  python -m bua_jax.annotate --config=configs/curriculum.py:data=foursquare_nyc --workdir=runs/nyc
  python -m bua_jax.annotate --workdir=runs/stage2 --engine=ray
  python -m bua_jax.annotate --workdir=runs/taught --config.dialogues.annotator=teacher --estimate \\
      --config.teacher.url=https://api.deepseek.com --config.teacher.model=deepseek-chat

The config is that of the run in --workdir, if there is one, unless --config names another. What is not there
yet is built. `--engine=ray` shares the people out over a Ray cluster (extra `ray`); the files are the same.
"""

import dataclasses
import functools

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()
flags.DEFINE_bool("estimate", False, "Say what a teacher would be asked, and stop.")
flags.DEFINE_integer("show", 0, "Print that many dialogues of each stage.", lower_bound=0)
cli.define_engine()


def main() -> None:
    from bua_jax.dialogue.store import read_dialogues, show
    from bua_jax.pipeline.chain import STEPS, build, start
    from bua_jax.pipeline.dialogues import build_dialogues_on_ray, say_estimate

    run = start(cli.config_of(cli.workdir()), cli.workdir(), take_over=FLAGS.take_over)
    if FLAGS.estimate:
        return say_estimate(run, lambda step: build(run, step))
    steps, cluster = STEPS, cli.cluster()
    if cluster is not None:
        on_ray = functools.partial(build_dialogues_on_ray, **cluster)
        steps = {**STEPS, "dialogues": dataclasses.replace(STEPS["dialogues"], build=on_ray)}
    build(run, "dialogues", steps)
    for stage in ("stage1", "stage2"):
        path = run.folder("dialogues") / f"{stage}.parquet"
        if FLAGS.show and path.exists():
            show(read_dialogues(path), FLAGS.show)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py")
