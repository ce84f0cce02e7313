"""The steps of the curriculum in their order, as data."""

import importlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.alignment.base_files import model_sources
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.prompts import SOFT_TOKENS
from bua_jax.events.spec import ON_BAD_ROW
from bua_jax.methods import behavegpt
from bua_jax.parallel import processes
from bua_jax.pipeline import dialogues, evaluate
from bua_jax.pipeline.data import EVENTS, data_sources
from bua_jax.pipeline.methods import method_steps, result_steps
from bua_jax.pipeline.steps import Run, Step, outline
from bua_jax.pipeline.windows import FILE, SETS, fields_of, step_of
from bua_jax.training.stage_table import STAGE_TABLE


def start(
    config: ConfigDict, workdir: Path, *, fresh: bool = False, take_over: bool = False
) -> Run:
    """Checks the config; nothing is written before `ensure` has found nothing to refuse.

    take_over: see `basics.claims`.
    Raises `ConfigError` for a value that cannot work, or a non-empty folder with `fresh`.
    """
    if fresh and processes.is_first() and workdir.exists() and any(workdir.iterdir()):
        raise ConfigError(
            f"--fresh was given, but {workdir} is not empty. Choose another --workdir, or leave --fresh "
            "out to resume what is there."
        )
    _check(config)
    return Run(config, workdir, take_over=take_over)


def show_outline(config: ConfigDict, workdir: Path, name: str) -> None:
    """Checks the config and prints which steps up to `name` would be built; writes nothing.

    Raises `ConfigError` and `MismatchError` as the run itself would.
    """
    _check(config)
    mesh = config.execution.mesh
    from bua_jax.parallel.sharding import parse_mesh

    parse_mesh(mesh)
    base = config.model.path or "built in"
    out.print(f"{config.model.name} ({base}) on {config.data.name}, mesh {mesh}, {workdir}:")
    for step, done in outline(Run(config, workdir), name, STEPS).items():
        out.print(f"{'done' if done else 'to build':8} {step}: {STEPS[step].about}")


def _check(config: ConfigDict) -> None:
    stages = tuple(config.stages)
    if list(stages) != sorted(set(stages)) or not set(stages) <= {1, 2, 3} or 2 not in stages:
        raise ConfigError(
            f"stages={stages} cannot work: give an increasing subset of (1, 2, 3) that holds 2, "
            "for example --config.stages='(2, 3)'."
        )
    how = config.execution
    name = min(("feed_workers", "profile"), key=lambda name: how[name])
    if how[name] < 0:
        raise ConfigError(f"config.execution.{name}={how[name]} is less than 0.")
    for name, legal in _legal_values().items():
        part, _, field = name.partition(".")
        value = config[part][field]
        if value not in legal:
            raise ConfigError(f"config.{name}={value!r} is none of {', '.join(legal)}.")
    if config.model.base_quantization != "none":
        if config.execution.merge_adapter:
            raise ConfigError(
                "config.model.base_quantization needs an adapter beside the quantised kernels; add "
                "--config.execution.merge_adapter=False."
            )
        full = [stage for stage in STAGES if config[stage].full_finetuning]
        if full:
            raise ConfigError(
                f"config.{full[0]}.full_finetuning trains the base, which base_quantization="
                f"{config.model.base_quantization!r} freezes; set one of them back."
            )
    given = [n for n in config.evaluation.methods if n.startswith("bua_given")]
    if given and not config.dialogues.rounds:
        raise ConfigError(
            f"config.evaluation.methods names {given[0]}, which gives reference answers to the understanding "
            "rounds that config.dialogues.rounds=False leaves out; set one of them back."
        )
    if config.model.recall < 0:
        raise ConfigError(
            f"config.model.recall={config.model.recall} is negative; give the number of last events "
            "whose soft tokens the final user turn repeats, or 0."
        )


def _legal_values() -> dict[str, Collection[str]]:
    """Fields that name an entry of a table: its keys are the legal values."""
    from bua_jax.decoding.cache import CACHE_TYPES
    from bua_jax.decoding.rounds import DECODE
    from bua_jax.models import quantization
    from bua_jax.models.encoders import KINDS
    from bua_jax.models.qwen2_config import ATTENTION, REMAT
    from bua_jax.training.losses import LOSSES

    return {
        "model.base_quantization": quantization.MODES,
        "model.soft_tokens": SOFT_TOKENS,
        "execution.attention": ("auto", *ATTENTION),
        "execution.remat": ("none", *REMAT),
        "encoder.kind": KINDS,
        "decoding.decode": DECODE,
        "decoding.cache_dtype": CACHE_TYPES,
        "data.on_bad_row": ON_BAD_ROW,
        **{f"{stage}.loss": LOSSES for stage in STAGES},
    }


STAGES = tuple(STAGE_TABLE)
_CURRICULUM = STAGES[:3]


def _stage_needs(stage: str, config: ConfigDict) -> tuple[str, ...]:
    """What a stage is built from: among others the stage before it in `config.stages`.

    Where there is none, as for joint training, windows are needed to warm the projector up.
    """
    earlier = [f"stage{n}" for n in config.stages if stage in _CURRICULUM and n < int(stage[-1])]
    drafts = ["reflect"] if stage in ("stage3", "joint") else []
    start = earlier[-1:] or [step_of("train")]
    return ("data", "encoder", "dialogues", *start, *drafts)


def _evaluation_needs(config: ConfigDict) -> tuple[str, ...]:
    sets = (step_of(name) for name in ("test", "days", "days_train"))
    return ("data", *sets, *result_steps(config))


def _built_by(module: str, name: str, *args: str) -> Callable[[Run], dict[str, Any]]:
    """A builder of `bua_jax.pipeline`, imported when its step is built: what scores needs no jax."""

    def build(run: Run) -> dict[str, Any]:
        builder = getattr(importlib.import_module(f"bua_jax.pipeline.{module}"), name)
        return builder(run, *args)

    return build


def _stage(name: str, about: str) -> Step:
    return Step(
        name,
        about,
        (name, "model", "methods.bua", "seed", "windows.prediction_history"),
        lambda config: _stage_needs(name, config),
        _built_by("stages", "build_stage", name),
        lambda config: _stage_minutes(config, name),
        together=True,
        sources=model_sources,
        files=("trained.safetensors",),
        numbers=("attention", "remat", "merge_adapter"),
    )


def _stage_minutes(config: ConfigDict, name: str) -> float:
    """A guess for nano from its measured rate; other models are far from 2 CPU cores anyway."""
    share = {
        "stage1": config.dialogues.stage1_share,
        "stage2": 1.0,
        "stage3": 0.02,
        "joint": 1.0 + config.dialogues.stage1_share,
    }[name]
    dialogues = share * min(config.windows.train or 1e5, 1e5) * config[name].epochs
    return dialogues / 50 / 60 + 0.3


def _windows(name: str) -> Step:
    drawn = SETS[name]
    whose = "training people set apart" if name == "cross" else f"{drawn.split} people"
    what = "next events" if drawn.task == "prediction" else "next days"
    return Step(
        step_of(name),
        f"histories of {whose} and their {what}, drawn once",
        fields_of(name),
        lambda config: ("data",),
        _built_by("windows", "build_set", name),
        lambda config: 0.0,
        files=(FILE,),
    )


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "data",
            "events read, split by person, described in a data card",
            ("data",),
            lambda config: (),
            _built_by("data", "build_data"),
            lambda config: 0.2,
            sources=data_sources,
            files=(EVENTS,),
        ),
        *(_windows(name) for name in SETS),
        Step(
            "encoder",
            "behaviour encoder pretrained on the training users",
            ("seed", *behavegpt.FIELDS),
            lambda config: ("data",),
            _built_by("encoder", "build_encoder"),
            lambda config: 1.5,
            together=True,
            files=("encoder.safetensors",),
        ),
        Step(
            "dialogues",
            "reference answers written for stages 1 and 2",
            dialogues.FIELDS,
            lambda config: ("data", *(step_of(name) for name in dialogues.SETS)),
            _built_by("dialogues", "build_dialogues"),
            lambda config: (config.windows.train or 1e5) / 60_000,
            files=("stage1.parquet", "stage2.parquet"),
        ),
        _stage("stage1", "projector aligned with the language model (section 3.4.1)"),
        _stage("stage2", "user-level understanding, prediction, generation (section 3.4.2)"),
        Step(
            "reflect",
            "summaries drafted by the stage-2 model, scored, the weak ones made stage-3 dialogues",
            (
                "seed",
                "dialogues.reflect_train",
                "dialogues.reflect_validation",
                "dialogues.reflect_share",
                "decoding.max_new_tokens",
                "decoding.cache_dtype",
            ),
            lambda config: (
                "data",
                "encoder",
                step_of("train"),
                step_of("validation"),
                "stage2",
            ),
            _built_by("reflection", "build_reflection"),
            lambda config: config.dialogues.reflect_train / 1500 + 0.5,
            files=("stage3.parquet",),
        ),
        _stage("stage3", "self-reflective refinement (section 3.4.3)"),
        _stage("joint", "all stages' dialogues at once (Appendix S)"),
        *method_steps(),
        Step(
            "evaluation",
            "what methods said about test people, scored",
            evaluate.FIELDS,
            _evaluation_needs,
            _built_by("evaluate", "build_evaluation"),
            lambda config: 0.1,
            renew=True,
            computes=False,
            files=("../metrics.json",),
        ),
    )
}
