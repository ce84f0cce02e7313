"""The flags of `python -m bua_jax.bench`."""

from collections.abc import Sequence

from absl import flags

from bua_jax.basics.errors import ConfigError

TASKS = ("base", "decode", "train", "events")
PARTS = {
    "train": ("peers", "packing", "remat", "balancers"),
    "decode": ("generate", "types", "weights", "labels"),
}
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "base",
    "",
    "Hugging Face directory, .gguf file or NAME@REVISION; decode, train: or a preset; empty: nano.",
)
flags.DEFINE_integer("rows", None, "Rows of a batch (base: 4, train: 8).", lower_bound=1)
flags.DEFINE_integer(
    "length",
    None,
    "Tokens of a row (base: 256, train: 512), or of decode's prompt (256).",
    lower_bound=2,
)
flags.DEFINE_list("batches", ["1", "8", "32"], "decode: rows decoded together.")
flags.DEFINE_integer("new", 64, "decode: tokens written per row.", lower_bound=2)
flags.DEFINE_integer("labels", 37, "decode: labels scored.", lower_bound=1)
flags.DEFINE_string("model", "", "decode: workdir of a trained run, for full predictions.")
flags.DEFINE_integer("count", 256, "decode: predictions of --model.", lower_bound=1)
flags.DEFINE_list(
    "parts",
    None,
    "What is measured, by default all. "
    + "; ".join(f"{task}: {', '.join(parts)}" for task, parts in PARTS.items())
    + ".",
)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "decode: weights and cache of generate."
)
flags.DEFINE_string(
    "mesh", "1", "decode: devices that generate runs on: N (fsdp=N) or DATAxFSDPxTENSOR."
)
flags.DEFINE_list(
    "peers", None, "train: what ours is compared with, by default all that are named above."
)
flags.DEFINE_float("supervised_share", 0.25, "train: of a row's tokens.")
flags.DEFINE_integer(
    "microbatches", 1, "train: gradient accumulation, on all sides.", lower_bound=1
)
flags.DEFINE_string("remat", None, "train: ours; by default the model config's.")
flags.DEFINE_bool("merge_adapter", None, "train: ours; by default the model config's.")
flags.DEFINE_integer(
    "dialogues", 2000, "train: dialogues that packing is measured on.", lower_bound=1
)
flags.DEFINE_integer(
    "repeats", 5, "Rounds in which all that is compared takes a turn.", lower_bound=1
)
flags.DEFINE_list("events", ["1000000"], "events: rows of the files that are measured.")
flags.DEFINE_integer("windows", 100_000, "events: training windows of the dialogues.")
flags.DEFINE_string(
    "scratch", "runs/bench/events", "events: folder of the files, removed when done."
)
flags.DEFINE_string(
    "output", "", "JSON file to write; events: runs/bench/events.json if not given."
)


def check_names(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises `ConfigError` for a name that is not known."""
    wrong = [name for name in given if name not in known]
    if wrong:
        raise ConfigError(f"--{flag} has {', '.join(wrong)}; it takes some of {', '.join(known)}.")


def parts_of(task: str) -> Sequence[str]:
    """The parts of a task that are asked for. Raises `ConfigError` for one that it does not have."""
    given = PARTS[task] if FLAGS.parts is None else FLAGS.parts
    check_names("parts", given, PARTS[task])
    return given


def whole(flag: str, text: str) -> int:
    """A positive number. Raises `ConfigError`."""
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--{flag} holds {text!r}; give whole numbers such as 1000000,5000000.")
    return int(text)
