"""Measures this machine: a base's types (base), decoding (decode), training (train), data's size (events).

Examples:
  python -m bua_jax.bench base --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf
  python -m bua_jax.bench decode --base=checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf --batches=1,8,32
  python -m bua_jax.bench decode --model=runs/quickstart --count=256
  python -m bua_jax.bench decode --base=qwen2.5-7b --parts=generate --dtype=bfloat16 --mesh=8 --batches=256
  python -m bua_jax.bench train --base=smollm2-135m --peers=eager,supervised
  python -m bua_jax.bench train --parts=remat --rows=4 --microbatches=2
  python -m bua_jax.bench events --events=1000000,5000000 --output=runs/bench/events.json

`--base` is a Hugging Face directory or a GGUF file (nano if none is given); for `decode` and `train` also a
preset's name, with random weights. What is compared takes turns, so that other work falls on all.

`decode` has four parts. generate: random prompts decoded (`--dtype`, `--mesh`), on a CPU beside transformers
(extra `parity`) and, in float32, llama.cpp (extra `llama-cpp`, which is compiled when it is installed).
types: how often float32 and bfloat16 choose the same token. weights: a step by their type. labels: what
scoring them costs. With `--model` it is full predictions of a trained run instead, beside transformers.

`train` has four parts; its weights are always random. peers: a LoRA step on random tokens, one dialogue per
row, beside transformers + PEFT: plain (eager), with torch.compile (compiled), and with logits at supervised
positions only (supervised, supervised_compiled); and beside tunix, in float32 and if google-tunix is
installed (no extra of ours does that). Each is a process of its own, and the losses of the first steps must
agree. packing: how full rows are, and stage-2 dialogues per second, packed and padded. remat: memory and time
of each policy. balancers: what weighing 2, 5 and 11 round kinds (of as many rows) costs a step.

`events` runs simulated files through anonymise, data and dialogues, each size in a process of its own; sizes
that `--output` holds are not measured again, and a plot is written beside it.
"""

import os
import sys
import tempfile
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError
from bua_jax.benchmarks import flags as bench_flags

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(bench_flags)


def main(task: str) -> None:
    if task not in bench_flags.TASKS:
        known = ", ".join(bench_flags.TASKS)
        raise ConfigError(f"There is no benchmark {task!r}; there are: {known}.")
    files.check_output(FLAGS.output)
    from bua_jax.alignment.bases import base_folder
    from bua_jax.benchmarks import tasks, timing
    from bua_jax.benchmarks.decode import write_random
    from bua_jax.models.presets import PRESETS

    load = os.getloadavg()[0]
    if task == "events":
        tasks.measure_events(timing.provenance(task, load))
        return
    if task == "train":
        found = tasks.measure_train()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            if task == "decode" and FLAGS.base in PRESETS:
                write_random(folder := Path(scratch), FLAGS.base, FLAGS.dtype)
            else:
                folder = base_folder(ConfigDict({"name": "nano", "path": FLAGS.base}))
            found = (tasks.measure_base if task == "base" else tasks.measure_decode)(folder)
    if FLAGS.output:
        base = {"base": FLAGS.base or "nano"}
        files.write_json(FLAGS.output, base | found | timing.provenance(task, load))


if __name__ == "__main__":
    task = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1][:1] != "-" else "base"
    if task == "train":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers use the device too
    cli.run(lambda: main(task))
