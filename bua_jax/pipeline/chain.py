"""The steps of the curriculum in their order, as data."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from bua_jax.alignment.parts import model_sources
from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.environment import versions
from bua_jax.basics.errors import ConfigError
from bua_jax.decoding.labels import check_labels
from bua_jax.parallel import processes
from bua_jax.pipeline import checks, dialogues, predictions
from bua_jax.pipeline.checks import STAGES
from bua_jax.pipeline.data import build_data, check_events, data_sources, load_store
from bua_jax.pipeline.encoder import build_encoder
from bua_jax.pipeline.evaluate import build_evaluation
from bua_jax.pipeline.reflection import build_reflection
from bua_jax.pipeline.stages import build_stage
from bua_jax.pipeline.steps import Run, Step, ensure, outline, plain
from bua_jax.pipeline.windows import SETS, build_set, draw_set, fields_of, step_of


def start(config: ConfigDict, workdir: Path, *, fresh: bool = False) -> Run:
    """Checks the config, creates the folder, and records what this command was asked to do.

    Raises `ConfigError` for a value that cannot work, or a non-empty folder with `fresh`.
    """
    if fresh and processes.is_first() and workdir.exists() and any(workdir.iterdir()):
        raise ConfigError(
            f"--fresh was given, but {workdir} is not empty. Choose another --workdir, or leave --fresh "
            "out to resume what is there."
        )
    checks.check(config, PURPOSES)
    checks.check_workdir(workdir)
    if processes.is_first():
        files.write_json(workdir / "run.json", {"config": plain(config), "versions": versions()})
    return Run(config, workdir)


def show_outline(config: ConfigDict, workdir: Path, name: str, *, several: bool = False) -> None:
    """Checks the config and prints which steps up to `name` would be built; writes nothing.

    several: the run will be of several processes, whose devices are not here. Raises `ConfigError` and
    `MismatchError` as the run itself would, but for files and kernels that its machine may have.
    """
    checks.check(config, PURPOSES)
    checks.check_workdir(workdir)
    _check_name(name)
    if not several:
        checks.check_devices(config)
    mesh = config.execution.mesh
    base = config.model.path or "built in"
    out.print(f"{config.model.name} ({base}) on {config.data.name}, mesh {mesh}, {workdir}:")
    for step, done in outline(Run(config, workdir), name, STEPS).items():
        out.print(f"{'done' if done else 'to build':8} {step}: {STEPS[step].about}")


_CURRICULUM = STAGES[:3]
_ASK = ("reflect", "evaluation")  # steps that ask the trained model


def build(run: Run, name: str, table: Mapping[str, Step] | None = None) -> None:
    """Builds the step `name` and what it needs (`steps.ensure`); what cannot work is said before it costs.

    Devices, base and adapter are looked for first; right after the data step, whether there are enough
    people and events, and whether the base's tokenizer tells the labels apart. A workdir that has all
    of it is asked nothing. Raises `ConfigError`, `DataError` and `CheckpointError`.
    """
    table = table or STEPS
    _check_name(name)
    assert isinstance(run.config, ConfigDict)
    left = [step for step, done in outline(run, name, table).items() if not done]
    computes = any(table[step].together or step in _ASK for step in left)
    asks = any(step in STAGES or step in _ASK for step in left)
    if computes:
        checks.check_machine(run.config)
    base = checks.check_model(run.config.model) if asks and processes.is_first() else None
    ensure(run, "data", table)
    if left and processes.is_first():
        store = load_store(run)
        check_events(store, run.config.windows.min_history)
        if run.config.windows.cross:  # those set apart may be all
            draw_set(run.config.windows, store, "train")
        if base is not None:
            check_labels(base, store.catalogue)
    ensure(run, name, table)


def _check_name(name: str) -> None:
    if name not in STEPS:
        raise ConfigError(
            f"There is no step {name!r}; there are: {', '.join(STEPS)}. The whole chain is built by: "
            "python -m bua_jax.curriculum."
        )


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
    joint = ("joint",) if config.with_joint else ()
    return ("data", "encoder", *sets, *(f"stage{n}" for n in config.stages), *joint)


def _stage(name: str, about: str) -> Step:
    return Step(
        name,
        about,
        (name, "model", "methods.bua", "seed", "windows.prediction_history"),
        lambda config: _stage_needs(name, config),
        lambda run: build_stage(run, name),
        lambda config: _stage_minutes(config, name),
        together=True,
        sources=model_sources,
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
        lambda run: build_set(run, name),
        lambda config: 0.0,
    )


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "data",
            "events read, split by person, described in a data card",
            ("data",),
            lambda config: (),
            build_data,
            lambda config: 0.2,
            sources=data_sources,
        ),
        *(_windows(name) for name in SETS),
        Step(
            "encoder",
            "behaviour encoder pretrained on the training users",
            (
                "encoder",
                "seed",
                "windows.prediction_history",
                "windows.generation_history",
                "windows.min_history",
            ),
            lambda config: ("data",),
            build_encoder,
            lambda config: 1.5,
            together=True,
        ),
        Step(
            "dialogues",
            "reference answers written for stages 1 and 2",
            dialogues.FIELDS,
            lambda config: ("data", *(step_of(name) for name in dialogues.SETS)),
            dialogues.build_dialogues,
            lambda config: (config.windows.train or 1e5) / 60_000,
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
            build_reflection,
            lambda config: config.dialogues.reflect_train / 1500 + 0.5,
        ),
        _stage("stage3", "self-reflective refinement (section 3.4.3)"),
        _stage("joint", "all stages' dialogues at once (Appendix S)"),
        Step(
            "evaluation",
            "test users predicted and their next days generated, beside the baselines",
            predictions.FIELDS,
            _evaluation_needs,
            build_evaluation,
            lambda config: (config.windows.test or 2e4) / 800 + 1.0,
            renew=True,
        ),
    )
}
PURPOSES = ("curriculum", *STEPS)
"""What a config can be for (`config.step`)."""
