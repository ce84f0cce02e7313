"""Plans a stage on hardware that is not there: memory, collectives, FLOPs, time, the largest batch.

Examples:
  python -m bua_jax.plan --config=configs/stage2.py:model=qwen2.5-7b,scale=paper,mesh=8 --target=a100-40g:8
  python -m bua_jax.plan --config=configs/stage2.py:model=qwen2.5-7b,scale=paper,mesh=8 --target=v5e:2x4
  python -m bua_jax.plan --config=configs/stage1.py:model=qwen2.5-0.5b,scale=paper --target=h100:1 --trials=0

The stage's training step is compiled for its shapes alone, by the target's own compiler: a100-40g,
a100-80g and h100 with a number of GPUs (extra `plan-gpu`), v4, v5e and v5p with a slice's topology (extra
`plan-tpu`). Without it the CPU compiler does it, for as many fake devices: temporaries are then an estimate.
No weights are loaded and no data is read: what a batch looks like is assumed, printed, and set by flags.
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.environment import versions
from bua_jax.planning.report import print_plan

FLAGS = flags.FLAGS
flags.DEFINE_string("target", "a100-40g:1", "DEVICE:SHAPE, for example a100-40g:8 or v5e:2x4.")
flags.DEFINE_integer(
    "rows", 0, "Rows per step; 0: what the config's batch of dialogues fills.", lower_bound=0
)
flags.DEFINE_float(
    "dialogue_tokens", 0, "Mean tokens of a dialogue; 0: the stage's, measured.", lower_bound=0
)
flags.DEFINE_float(
    "supervised_share",
    0,
    "Supervised share of the densest dialogue's tokens; 0: the stage's.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_integer("trials", 4, "Compilations to find the largest batch; 0: none.", lower_bound=0)
flags.DEFINE_string("json", "", "JSON file to write.")


def main() -> None:
    # Imported late: a GPU's driver must not make jax look for devices before their number is set.
    import dataclasses

    from bua_jax.planning import plan

    files.check_output(FLAGS.json, flag="--json")
    given = {"tokens": FLAGS.dialogue_tokens, "supervised": FLAGS.supervised_share}
    given = {name: value for name, value in given.items() if value}
    assumed = plan.ASSUMED.get(FLAGS.config.step)
    found = plan.make_plan(
        FLAGS.config,
        FLAGS.target,
        dialogues=dataclasses.replace(assumed, **given) if assumed else None,
        rows=FLAGS.rows,
        trials=FLAGS.trials,
    )
    print_plan(found)
    if FLAGS.json:
        files.write_json(Path(FLAGS.json), {**found, "versions": versions()})


if __name__ == "__main__":
    cli.run(main, config="configs/stage2.py")
