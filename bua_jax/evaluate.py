"""Scores a trained run on its test users: prediction and generation, BUA beside other methods.

Examples:
  python -m bua_jax.evaluate --workdir=runs/quickstart
  python -m bua_jax.evaluate --workdir=runs/quickstart --show=3
  python -m bua_jax.evaluate --workdir=runs/quickstart --config.evaluation.methods="('markov','bua')"

The config is that of the run, unless --config names another. Prints the table and writes metrics.json
and report.html into the workdir. It trains no stage: where one is missing it says which command does
that. What methods say lies in result files (predict/METHOD/test/result.arrow and so on), so that a test
window is asked about once per checkpoint: scoring them takes seconds and no model, and one more method
is fitted and asked alone.
"""

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()
flags.DEFINE_integer(
    "show", 0, "Also print that many test cases with what was said.", lower_bound=0
)


def main() -> None:
    from bua_jax.basics import files
    from bua_jax.basics.errors import MismatchError
    from bua_jax.basics.hints import nearest_run

    workdir = cli.workdir()
    given = f"--config={cli.config_argument()}", f"--workdir={workdir}"
    remedy = f" Build it with: {cli.command('curriculum', *given)}"
    if not workdir.is_dir():  # asked before the imports, which take seconds
        raise MismatchError(f"There is no folder {workdir}.{nearest_run(workdir) or remedy}")
    from bua_jax.pipeline.chain import STAGES, STEPS, build, start
    from bua_jax.pipeline.report import print_results, print_samples, report_results
    from bua_jax.pipeline.steps import Run, ensure, outline

    config = cli.config_of(workdir)
    run = Run(config, workdir, take_over=FLAGS.take_over)
    needed = outline(run, "evaluation", STEPS)
    missing = [step for step, finished in needed.items() if not finished and step != "evaluation"]
    if untrained := [step for step in missing if step in STAGES]:
        raise MismatchError(
            f"{workdir} lacks {', '.join(untrained)}, so there is nothing to score yet.{remedy}"
        )
    if missing:
        build(start(config, workdir, take_over=FLAGS.take_over), "evaluation")
    ensure(run, "evaluation", STEPS)
    print_results(run)
    with files.where_writable():
        report_results(run)
    if FLAGS.show:
        print_samples(run, FLAGS.show)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py")
