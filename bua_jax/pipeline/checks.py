"""What a config may say: the legal values of every field, and fields that must fit each other.

All of it is asked before any step. The legal values of a field that names an entry of a table are the
keys of the table that implements it. jax is imported where it is asked what machine and model allow.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.basics.legal import Flag, Legal, OneOf, Read, Real, SomeOf, Text, Whole, keys_of
from bua_jax.dialogue.annotator import WRITERS
from bua_jax.dialogue.prompts import SOFT_TOKENS, Tokenizer
from bua_jax.dialogue.rounds import STAGE1_TASKS
from bua_jax.dialogue.tasks import stage1_tasks
from bua_jax.evaluation import trackers
from bua_jax.events.schema import SLOTS_PER_DAY, Catalogue
from bua_jax.events.spec import FORMATS, ON_BAD_ROW, DataSpec, check_time_zone
from bua_jax.interop.openai_host import LEGAL as API
from bua_jax.interop.openai_page import PARTS
from bua_jax.methods.altered import ALTERED
from bua_jax.methods.table import METHODS
from bua_jax.parallel.shape import parse_mesh
from bua_jax.training.stage_table import STAGE_TABLE

# ------------------------------------------------------------------------------ fields by themselves


def _stages(value: Any) -> None:
    """Raises `ConfigError` for what is no curriculum."""
    if not set(value) <= {1, 2, 3} or list(value) != sorted(set(value)) or 2 not in value:
        raise ConfigError("expected some of (1, 2, 3) in order, 2 among them, such as '(2, 3)'.")


def _labels(value: Any) -> None:
    """Raises `ConfigError` for what is no label set; an empty one means that of the data."""
    if len(value) == 1 or not all(isinstance(label, str) for label in value):
        few = "expected none, for the labels in the data, or at least two"
        raise ConfigError(f"{few}, such as \"('pay', 'ride')\".")
    try:
        if value:
            Catalogue(value, SLOTS_PER_DAY[0], has_places=True)
    except DataError as error:
        raise ConfigError(str(error)) from error


SEED = Whole(0, 2**31 - 1)  # what every library here takes
SHARE, SOME = Real(0, 1), Real(0, 1, above=True)
RATE = Real(0, 1)  # of learning, per step
WEIGHT = Real(0)


def _kind_weights(text: str) -> None:
    """Where none are given, nothing is imported: see `keys_of`."""
    if text:
        from bua_jax.training.dialogues import kind_weights

        kind_weights(text)


def _balancer(text: str) -> None:
    """A balancer by its name alone is known without importing what it computes."""
    if text not in keys_of("training.balancers.table", "BALANCERS"):
        from bua_jax.training.balancers import table

        table.check(text)


_STAGE: dict[str, Legal] = {
    "epochs": Real(0, 1e5, above=True),
    "batch_dialogues": Whole(1),
    "row_length": Whole(1),
    "microbatches": Whole(1),
    **dict.fromkeys(("peak_lr", "initial_lr", "final_lr"), RATE),
    "warmup_share": SHARE,
    "weight_decay": WEIGHT,
    "clip_norm": Real(0, above=True),
    "loss": OneOf(keys_of("training.losses", "LOSSES")),
    "length_beta": Real(-2, 2),
    "kind_weights": Read(_kind_weights, str),
    "balancer": Read(_balancer, str),
    "balancer_unit": OneOf(keys_of("training.dialogues", "UNITS")),
    "balancer_scale": OneOf(keys_of("training.weighting", "SCALES")),
    "evaluations": Whole(1),
    "checkpoints": Whole(1),
    "max_steps": Whole(0),
    "full_finetuning": Flag(),
}

_DRAWN = """train validation cross fit_train fit_validation match days_hybrid
    test texts edited generation_test"""

LEGAL: dict[str, Legal] = {
    "seed": SEED,
    "stages": Read(_stages, tuple),
    **{f"{stage}.{field}": legal for stage in STAGE_TABLE for field, legal in _STAGE.items()},
    # -- how, not what
    "execution.mesh": Read(parse_mesh, str),
    "execution.attention": OneOf(("auto", *keys_of("models.qwen2_config", "ATTENTION"))),
    "execution.remat": OneOf(("none", *keys_of("models.qwen2_config", "REMAT"))),
    "execution.merge_adapter": Flag(),
    "execution.feed_workers": Whole(0),
    "execution.decode_batch": Whole(1),
    "execution.profile": Whole(0),
    "execution.gradients_every": Whole(0),
    "execution.mix": Flag(),
    **{f"execution.{name}": legal for name, legal in API.items()},
    # -- events
    "data.name": Text(empty=False),
    "data.path": Text(),
    "data.format": OneOf(FORMATS),
    "data.columns.*": Text(),
    "data.slots_per_day": OneOf(SLOTS_PER_DAY),
    "data.time_zone": Read(check_time_zone, str),
    **dict.fromkeys(("data.has_dates", "data.has_places"), Flag()),
    "data.behaviours": Read(_labels, tuple),
    **dict.fromkeys(("data.words", "data.cite"), Text()),
    "data.on_bad_row": OneOf(ON_BAD_ROW),
    "data.split_seed": SEED,
    "data.num_users": Whole(6),  # of fewer people the split by person leaves none to validate with
    "data.num_days": Whole(1),
    "data.seed": SEED,
    # -- windows; 0: all of them, or none of `cross`
    "windows.seed": SEED,
    **{f"windows.{name}_history": Whole(1) for name in ("prediction", "generation")},
    "windows.min_history": Whole(1),
    **{f"windows.{name}": Whole(0) for name in _DRAWN.split()},
    "windows.test_history": OneOf(ALTERED),
    # -- encoder
    "encoder.kind": OneOf(keys_of("models.encoders", "KINDS")),
    **dict.fromkeys(("encoder.dim", "encoder.num_layers", "encoder.num_heads"), Whole(1)),
    "encoder.dropout": Real(0, 1, below=True),
    "encoder.epochs": Whole(1, 100_000),
    **dict.fromkeys(("encoder.batch", "encoder.patience"), Whole(1)),
    "encoder.validation": Whole(0),
    "encoder.peak_lr": RATE,
    "encoder.weight_decay": WEIGHT,
    "encoder.dro_lambda": SHARE,
    # -- dialogues
    "dialogues.stage1_tasks": SomeOf(STAGE1_TASKS),
    **{
        f"dialogues.{name}_share": SHARE
        for name in ("stage1", "generation", "nothing", "shortened")
    },
    **dict.fromkeys(("dialogues.annotator", "dialogues.reflect_critic"), OneOf(WRITERS)),
    **PARTS,
    **dict.fromkeys(("dialogues.rounds", "dialogues.target_time_revealed"), Flag()),
    **dict.fromkeys(("dialogues.reflect_train", "dialogues.reflect_validation"), Whole(1)),
    "dialogues.reflect_share": SOME,
    # -- language model
    "model.name": OneOf(keys_of("models.presets", "PRESETS")),
    "model.path": Text(),
    "model.dtype": OneOf(keys_of("models.qwen2_config", "DTYPES")),
    "model.base_quantization": OneOf(keys_of("models.quantization", "MODES")),
    "model.soft_tokens": OneOf(SOFT_TOKENS),
    "model.recall": Whole(0),
    "model.drill": Text(),
    "model.warm_start": Flag(),
    "model.adapter": Text(),
    "model.lora_rank": Whole(1),
    "model.lora_alpha": Real(0, above=True),
    "model.lora_targets": SomeOf(keys_of("models.lora", "TARGETS")),
    "model.train_label_tokens": Flag(),
    # -- methods: beside each of them
    **{
        f"methods.{method.name}.{field}": legal
        for method in METHODS.values()
        for field, legal in method.legal.items()
    },
    # -- answers and what is made of them
    **dict.fromkeys(("decoding.max_new_tokens", "evaluation.bootstrap"), Whole(1)),
    "decoding.cache_dtype": OneOf(keys_of("decoding.cache", "CACHE_TYPES")),
    "decoding.weight_dtype": OneOf(keys_of("models.kernels.cpu", "WEIGHT_TYPES")),
    **dict.fromkeys(("decoding.refine", "decoding.constrained"), Flag()),
    "decoding.decode": OneOf(keys_of("decoding.rounds", "DECODE")),
    **{"decoding.temperature": WEIGHT, "decoding.top_p": SOME},
    "evaluation.methods": SomeOf([*METHODS]),
    "report.trackers": Read(trackers.check, tuple),
    "report.examples": Whole(0),
    # -- a file that is to be shown to others
    "anonymise.date_shift": Flag(),
    "anonymise.slot_hours": OneOf(keys_of("events.anonymise", "SLOT_HOURS")),
    "anonymise.split_by": OneOf(keys_of("events.anonymise", "SPLIT_BY")),
}
"""By field; a field that ends in * stands for all of its part. `step` names an entry of `chain.STEPS`."""


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field; `train` is another name for a stage and is left out."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            if prefix or key != "train":
                yield from fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def legal_of(name: str) -> Legal | None:
    """What a field may be; None for one that nobody but the config's author knows."""
    part = name.rpartition(".")[0]
    return LEGAL.get(name) or LEGAL.get(f"{part}.*")


def check(config: ConfigDict, steps: Collection[str], *, whole: bool = True) -> None:
    """Raises `ConfigError` for a field's value that is not legal, and for fields that do not fit.

    The error names the field, its value and what is legal. steps: what the config may be for; whole: whether
    its methods are to make a table by themselves.
    """
    there = {name for name, _ in fields(config)}
    for name in LEGAL:
        if name not in there and not name.startswith("data."):  # which differ by data set
            raise ConfigError(
                f"The config has no field {name}: it is of another version (run.json keeps that of a run). "
                "Give one of today's with --config, or start anew in another --workdir."
            )
    check_fields(config)
    if wrong := OneOf(steps).wrong(config.step):
        raise ConfigError(f"config.step={config.step!r}{wrong}.")
    _check_windows(config)
    _check_encoders(config)
    check_base(config)
    _check_data(config)
    if whole and not any("predict" in METHODS[name].says for name in config.evaluation.methods):
        raise ConfigError(
            f"config.evaluation.methods={config.evaluation.methods!r} names none that predicts, so there is "
            "no table to make; add one, for example 'bua'."
        )
    rows = [name for name in config.evaluation.methods if METHODS[name].notes.by]
    asking = [f"evaluation.methods names {name}" for name in rows]
    asking += ["stages holds 3"] * (3 in config.stages)
    if asking and not config.dialogues.rounds:
        raise ConfigError(
            f"config.{asking[0]}, which needs answers to the understanding rounds that "
            "config.dialogues.rounds=False leaves out; set one of them back."
        )
    mixed = [name for name in config.evaluation.methods if METHODS[name].predicted_by]
    if mixed and config.decoding.decode != "labels":
        raise ConfigError(
            f"config.evaluation.methods names {mixed[0]}, which reads probabilities; there are none with "
            f"config.decoding.decode={config.decoding.decode!r}. Set one of them back."
        )


def check_fields(config: ConfigDict, prefix: str = "") -> None:
    """Raises `ConfigError` for a value that is not legal; prefix: of a part of the config, as `data.`."""
    for name, value in fields(config, prefix):
        legal = legal_of(name)
        if legal is not None and (wrong := legal.wrong(value)):
            shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]} ..."
            raise ConfigError(f"config.{name}={shown}{wrong}{'' if wrong.endswith('.') else '.'}")


def check_flag(name: str, value: Any, field: str) -> None:
    """Raises `ConfigError` for the value of a flag that stands for a field."""
    if wrong := LEGAL[field].wrong(value):
        raise ConfigError(f"--{name}={value!r}{wrong}.")


# ------------------------------------------------------------------------ fields that must fit others


def _check_windows(config: ConfigDict) -> None:
    windows = config.windows
    for name in ("prediction_history", "generation_history"):
        if windows.min_history > windows[name]:
            raise ConfigError(
                f"config.windows.min_history={windows.min_history} is more than config.windows.{name}="
                f"{windows[name]}, the events of a history; lower it or raise the other."
            )


def _check_encoders(config: ConfigDict) -> None:
    """Heads share the width of a state."""
    from bua_jax.models.encoders import EncoderConfig

    encoder = config.encoder
    row = [("methods.sasrec.dim", "sasrec", config.methods.sasrec.dim)]
    row = row if "sasrec" in config.evaluation.methods else []
    for name, kind, dim in (("encoder.dim", encoder.kind, encoder.dim), *row):
        width = EncoderConfig(kind, 2, SLOTS_PER_DAY[0], dim=dim).state_dim
        if width % encoder.num_heads:
            raise ConfigError(
                f"config.encoder.num_heads={encoder.num_heads} does not divide the {width} numbers of a "
                f"state of {kind}, which config.{name}={dim} gives; change one of them."
            )


def check_base(config: ConfigDict) -> None:
    """Raises `ConfigError` for a base of a type that cannot be trained, or read, as other fields say."""
    quantized = config.model.base_quantization
    full = [stage for stage in STAGE_TABLE if config[stage].full_finetuning]
    if quantized != "none" and config.execution.merge_adapter:
        raise ConfigError(
            "config.model.base_quantization needs an adapter beside the quantised kernels; add "
            "--config.execution.merge_adapter=False."
        )
    if quantized != "none" and full:
        raise ConfigError(
            f"config.{full[0]}.full_finetuning trains the base, which base_quantization={quantized!r} "
            "freezes; set one of them back."
        )
    narrow = config.decoding.weight_dtype
    if narrow != "float32" and (quantized != "none" or config.model.dtype != "float32"):
        raise ConfigError(
            f"config.decoding.weight_dtype={narrow!r} rounds the weights of a float32 base; set "
            "--config.model.dtype=float32 --config.model.base_quantization=none, or leave it at float32."
        )
    if config.model.train_label_tokens and full:
        raise ConfigError(
            f"config.{full[0]}.full_finetuning trains the base with its embedding, of which "
            "config.model.train_label_tokens=True would keep some rows as they were; set one of them back."
        )
    if full and config.model.dtype != "float32":
        raise ConfigError(
            f"config.{full[0]}.full_finetuning trains the base, whose updates config.model.dtype="
            f"{config.model.dtype!r} would round away; set --config.model.dtype=float32."
        )


def _check_data(config: ConfigDict) -> None:
    data, has_places = config.data, True
    if data.name != "simulated":
        if "path" not in data:
            raise ConfigError(
                f"config.data.name={data.name!r} is of a file, but the config names none; 'simulated' is the "
                "only data without one."
            )
        has_places = DataSpec.from_mapping(data.to_dict()).has_places
    catalogue = Catalogue(("one", "another"), SLOTS_PER_DAY[0], has_places)
    stage1_tasks(catalogue, config.dialogues.stage1_tasks)


# --------------------------------------------------------------------------------- where it is to run


def check_devices(config: ConfigDict) -> None:
    """Raises `ConfigError` for a mesh of more devices than there are."""
    from bua_jax.parallel.sharding import make_mesh

    make_mesh(config.execution.mesh)


def check_machine(config: ConfigDict) -> None:
    """Raises `ConfigError` for devices that are not there, or that lack the attention."""
    import jax

    from bua_jax.alignment.parts import training_attention
    from bua_jax.models.kernels.splash import check_splash
    from bua_jax.models.presets import PRESETS

    check_devices(config)
    how, platform = config.execution, jax.devices()[0].platform
    if how.attention == "splash":
        for stage in STAGE_TABLE:
            check_splash(config[stage].row_length, platform)
    if how.attention == "cudnn" and platform not in ("cuda", "gpu"):
        raise ConfigError(
            f"config.execution.attention='cudnn' runs on NVIDIA GPUs, but training is to run on {platform}: "
            "set --config.execution.attention=xla."
        )
    if how.attention == "cpu":
        sizes = dataclasses.replace(PRESETS[config.model.name], dtype=config.model.dtype)
        training_attention("cpu", sizes)


def check_model(config: ConfigDict) -> Tokenizer:
    """The tokenizer of the base; config: the part `model`.

    Raises `ConfigError` and `CheckpointError` where the base or the adapter to start from is not there.
    """
    from bua_jax.alignment.bases import base_folder
    from bua_jax.interop.model_config import read_config
    from bua_jax.interop.tokenizer import load_tokenizer

    if config.adapter and not Path(config.adapter).is_dir():
        raise ConfigError(
            f"config.model.adapter={config.adapter!r} is no folder; give that of a PEFT adapter, or "
            "leave it empty to start from a fresh one."
        )
    folder = base_folder(config)
    return load_tokenizer(folder, read_config(folder).vocab_size)


def check_workdir(workdir: Path, flag: str = "--workdir") -> None:
    r"""Raises `ConfigError` for a path that is taken for a pattern where checkpoints are read.

    Orbax looks for a checkpoint's arrays by a glob: with [x] or a backslash in it, it finds none.
    """
    if re.search(r"\\|\[.*\]", str(workdir.resolve())):
        raise ConfigError(
            f"{flag}={workdir}: checkpoints cannot be read from a path with brackets or a backslash in it "
            f"({workdir.resolve()}). Choose another {flag}."
        )
