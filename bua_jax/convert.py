"""Writes a trained run for other software: a PEFT adapter folder, or a merged Hugging Face directory.

Examples:
  python -m bua_jax.convert --model=runs/quickstart --output=adapter
  python -m bua_jax.convert --model=runs/quickstart --output=merged --merge
  python -m bua_jax.convert --model=runs/qwen --output=adapter --base=Qwen/Qwen2.5-7B

Beside either lie encoder.safetensors and projector.safetensors, which make soft tokens from events, and
soft_tokens.json with their token ids; generation_config.json says where an answer ends, and the merged
directory's chat template writes the dialogues of the training. `--base` is the name that PEFT loads the
base by: if not given its hub id, its path where it lies below this folder, else its folder's name.
Nothing is overwritten: `--output` is a new or empty folder.
"""

from absl import flags

from bua_jax import cli
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "runs/curriculum", "Workdir of a trained run.")
flags.DEFINE_string("output", "", "New or empty folder to write.")
flags.DEFINE_bool("merge", False, "Write the base with the adapter in its kernels.")
flags.DEFINE_string("base", "", "What PEFT calls the base, e.g. a hub id.")
cli.define_take_over()


def main() -> None:
    from bua_jax.pipeline.export import export

    if not FLAGS.output:
        raise ConfigError("--output is needed: a new folder, for example --output=adapter.")
    how = {"merge": FLAGS.merge, "base": FLAGS.base, "take_over": FLAGS.take_over}
    difference = export(FLAGS.model, FLAGS.output, **how)
    out.print(f"Wrote {FLAGS.output}.")
    for dtype, value in difference.items():
        out.print(f"Merged and unmerged logits differ by at most {value:.2g} ({dtype} base).")


if __name__ == "__main__":
    cli.run(main)
