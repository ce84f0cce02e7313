"""Pretrains the behaviour encoder on the training users' events.

Examples:
  python -m bua_jax.pretrain
  python -m bua_jax.pretrain --config=configs/encoder.py:data=foursquare_nyc --config.encoder.kind=sasrec
"""

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()


def main() -> None:
    from bua_jax.pipeline.chain import build, start

    build(start(FLAGS.config, cli.workdir(), take_over=FLAGS.take_over), "encoder")


if __name__ == "__main__":
    cli.run(main, config="configs/encoder.py")
