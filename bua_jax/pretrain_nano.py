"""Builds nano: its tokenizer, its pretraining and its Hugging Face directory.

Examples:
  python -m bua_jax.pretrain_nano --output=runs/nano --steps=300
  launch/pretrain_nano.sh          # in full
  python -m bua_jax.pretrain_nano --output=runs/nano --show   # what the newest checkpoint can read

The corpus is worlds that are drawn anew for every dialogue, each with a label set of its own; it holds
no prediction, generation or future-scene answers. The same command goes on after an interruption;
more --steps make a finished run longer.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.nano.settings import Settings

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "runs/nano", "Folder to write.")
flags.DEFINE_integer("steps", Settings.steps, "Optimizer steps in all.", lower_bound=10)
flags.DEFINE_integer("rows", Settings.rows, "Rows of a batch.", lower_bound=1)
flags.DEFINE_integer("every", 250, "Steps between checkpoints.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of initialisation and corpus.")
flags.DEFINE_boolean("show", False, "Print what the newest checkpoint can read, and train nothing.")


def main() -> None:
    import jax

    from bua_jax.alignment.parts import training_attention
    from bua_jax.interop import huggingface
    from bua_jax.interop.tokenizer import load_tokenizer
    from bua_jax.models.presets import PRESETS
    from bua_jax.models.qwen2 import Qwen2
    from bua_jax.nano import tokenizer as nano_tokenizer
    from bua_jax.nano.pretraining import examine, newest, pretrain, table
    from bua_jax.pipeline.checks import check_workdir

    folder, config = Path(FLAGS.output), PRESETS["nano"]
    check_workdir(folder, "--output")
    model = Qwen2(replace(config, attention=training_attention("auto", config)))
    done = newest(model, folder / "checkpoints") if FLAGS.show else None
    if not (folder / "tokenizer.json").is_file():
        with files.atomic_write(folder / "tokenizer.json") as temporary:
            nano_tokenizer.train_tokenizer(config.vocab_size).save(str(temporary))
    settings = Settings(FLAGS.steps, FLAGS.rows, vectors=112 * FLAGS.rows, seed=FLAGS.seed)
    tokenizer = load_tokenizer(folder, config.vocab_size)
    if done:
        found = examine(model, tokenizer, settings, done[1])
        print(f"After {done[0]} steps:\n\n{table(found)}", end="")
        return
    begin = time.monotonic()
    params = pretrain(model, tokenizer, settings, folder / "checkpoints", FLAGS.every)
    huggingface.save(folder, config, params)
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    files.write_json(folder / "tokenizer_config.json", said)
    card = {
        "steps": settings.steps,
        "tokens": settings.steps * settings.rows * settings.length,
        "seed": settings.seed,
        "held_out": examine(model, tokenizer, settings, params),
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    files.write_json(folder / "training.json", card)
    print(json.dumps(card))


if __name__ == "__main__":
    cli.run(main)
