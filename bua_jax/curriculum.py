"""The whole chain: encoder, dialogues, stages 1 to 3, evaluation; one table, metrics.json, report.html.

Examples:
  python -m bua_jax.curriculum --config=configs/quickstart.py
  python -m bua_jax.curriculum --config=configs/curriculum.py:data=foursquare_nyc
  python -m bua_jax.curriculum --config.stages='(2, 3)' --workdir=runs/without_stage1
  srun python -m bua_jax.curriculum --config=configs/curriculum.py:mesh=16 --workdir=/shared/run --distributed

Skips what is done and resumes what was cut. --distributed: this is one of several processes
(docs/accelerators.md says how they are started); stages are trained by all of them, everything else is
done by the first.
"""

from absl import flags

from bua_jax import cli

FLAGS = flags.FLAGS
cli.define_take_over()


def main() -> None:
    from bua_jax.basics import files
    from bua_jax.pipeline.chain import build, show_outline, start
    from bua_jax.pipeline.report import print_results, report_results

    if FLAGS.dry_run:
        show_outline(FLAGS.config, cli.workdir(), "evaluation", several=cli.is_distributed())
        return
    run = start(FLAGS.config, cli.workdir(), take_over=FLAGS.take_over)
    build(run, "evaluation")
    print_results(run)
    with files.where_writable():
        report_results(run)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py", distributed=True)
