"""Pretrains the behaviour encoder on the training users' events.

Examples:
  python -m bua_jax.pretrain
  python -m bua_jax.pretrain --config=configs/encoder.py:data=foursquare_nyc --config.encoder.kind=sasrec
"""

from absl import flags

from bua_jax import cli
from bua_jax.pipeline.chain import STEPS, start
from bua_jax.pipeline.steps import ensure

FLAGS = flags.FLAGS


def main() -> None:
    ensure(start(FLAGS.config, cli.workdir(), take_over=FLAGS.take_over), "encoder", STEPS)


if __name__ == "__main__":
    cli.run(main, config="configs/encoder.py")
