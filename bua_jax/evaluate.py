"""Scores a trained run on its test users: prediction and generation, BUA beside the baselines.

Examples:
  python -m bua_jax.evaluate --workdir=runs/quickstart

The config is that of the run, unless --config names another. Prints the table and writes metrics.json
and report.html into the workdir. It trains no stage: where one is missing it says which command does
that. Predictions are kept, because test windows are scored once per checkpoint: a finished evaluation is
printed again, and one more baseline is added to it.
"""

import sys

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import MismatchError
from bua_jax.pipeline.chain import STAGES, STEPS, build, start
from bua_jax.pipeline.report import print_results, report_results
from bua_jax.pipeline.steps import read_record

FLAGS = flags.FLAGS
OF_THE_RUN = not cli.names_config(sys.argv)


def main() -> None:
    workdir = cli.workdir()
    run = start(cli.config_of(workdir) if OF_THE_RUN else FLAGS.config, workdir)
    needs = STEPS["evaluation"].needs(run.config)
    missing = [s for s in needs if s in STAGES and read_record(run, s) is None]
    if missing:
        raise MismatchError(
            f"{run.workdir} lacks {', '.join(missing)}, so there is nothing to score yet. Build it with: "
            f"python -m bua_jax.curriculum --config={cli.config_argument()} "
            f"--workdir={run.workdir}"
        )
    build(run, "evaluation")
    report_results(run)
    print_results(run)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py")
