"""Trains one stage, or all at once (joint), and builds first what the stage needs.

Examples:
  python -m bua_jax.train --config=configs/stage2.py
  python -m bua_jax.train --config=configs/stage2.py:data=foursquare_nyc --config.train.peak_lr=1e-3
  python -m bua_jax.train --config=configs/joint.py --workdir=runs/joint --fresh
  srun python -m bua_jax.train --config=configs/stage2.py:mesh=16 --workdir=/shared/run --distributed

The folder of the run is --workdir, by default runs/<config>. Running the same command again resumes
what was cut and skips what is done; --fresh refuses a folder that is not empty.
--distributed: this is one of several processes (docs/accelerators.md says how they are started); stages
are trained by all of them, everything else is built by the first.
"""

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()
flags.DEFINE_bool("fresh", False, "Refuse a workdir that is not empty.")


def main() -> None:
    from bua_jax.pipeline.chain import build, show_outline, start

    if FLAGS.dry_run:
        show_outline(FLAGS.config, cli.workdir(), FLAGS.config.step, several=cli.is_distributed())
        return
    run = start(FLAGS.config, cli.workdir(), fresh=FLAGS.fresh, take_over=FLAGS.take_over)
    build(run, run.config.step)


if __name__ == "__main__":
    cli.run(main, config="configs/stage2.py", distributed=True)
