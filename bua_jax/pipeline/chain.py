"""The steps of the curriculum in their order, as data."""

import importlib
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bua_jax.alignment.base_files import model_sources
from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice, out
from bua_jax.basics.environment import PACKAGES, command, versions
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.hints import unfinished_near
from bua_jax.evaluation import run_page
from bua_jax.events.schema import Catalogue
from bua_jax.methods import behavegpt, neural
from bua_jax.parallel import processes
from bua_jax.pipeline import dialogues, evaluate
from bua_jax.pipeline.data import EVENTS, PERSONAS, check_events, data_sources, load_store
from bua_jax.pipeline.methods import NUMBERS, check_methods, method_steps, result_steps
from bua_jax.pipeline.steps import Run, Step, ensure, outline, read_record
from bua_jax.pipeline.windows import FILE, SETS, draw_set, fields_of, step_of
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
    from bua_jax.pipeline import checks  # jax is imported where something is to be built

    checks.check(config, PURPOSES)
    checks.check_workdir(workdir)
    if processes.is_first():
        _say_near(workdir)
    return Run(config, workdir, take_over=take_over)


def _say_near(workdir: Path) -> None:
    """Says so where a new run's name may be a misspelt one of an unfinished run."""
    if near := unfinished_near(workdir):
        notice(
            f"{workdir} is a new run. {near} is not finished: to go on with it, --workdir={near}."
        )


def show_outline(config: ConfigDict, workdir: Path, name: str, *, several: bool = False) -> None:
    """Checks the config and prints which steps up to `name` would be built; writes nothing.

    several: the run will be of several processes, whose devices are not here. Raises `ConfigError` and
    `MismatchError` as the run itself would, but for files and kernels that its machine may have.
    """
    from bua_jax.pipeline import checks

    checks.check(config, PURPOSES)
    checks.check_workdir(workdir)
    _check_name(name)
    if not several:
        checks.check_devices(config)
    _say_near(workdir)
    mesh = config.execution.mesh
    base = config.model.path or "built in"
    out.print(f"{config.model.name} ({base}) on {config.data.name}, mesh {mesh}, {workdir}:")
    steps = outline(Run(config, workdir), name, STEPS)
    for step, done in steps.items():
        out.print(f"{'done' if done else 'to build':8} {step}: {STEPS[step].about}")
    left = [step for step, done in steps.items() if not done]
    check_methods(config, left)
    dialogues.check_teacher(config, left)
    if left:
        out.print(f"{len(left)} of {len(steps)} steps are left{_time(left, config, STEPS)}")
    if config.data.name != "simulated" and not Path(config.data.path).is_file():
        notice(f"config.data.path={config.data.path!r} is no file here; the run needs one.")


def _time(left: Sequence[str], config: ConfigDict, table: Mapping[str, Step]) -> str:
    """What the steps `left` are expected to take; nothing for a model of which no rate is known."""
    minutes = sum(table[step].minutes(config) for step in left)
    if config.model.name != "nano":
        return ""
    time = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
    return f", about {time} on 2 CPU cores"


STAGES = tuple(STAGE_TABLE)
_CURRICULUM = STAGES[:3]


def build(run: Run, name: str, table: Mapping[str, Step] | None = None) -> None:
    """Builds the step `name` and what it needs (`steps.ensure`); what cannot work is said before it costs.

    Devices, base and adapter are looked for first; right after the data step, whether there are enough
    people and events, and whether the base's tokenizer tells the labels apart. A workdir that has all
    of it is asked nothing. Raises `ConfigError`, `DataError` and `CheckpointError`.
    """
    from bua_jax.decoding.labels import check_labels
    from bua_jax.pipeline import checks

    table = table or STEPS
    _check_name(name)
    assert isinstance(run.config, ConfigDict)
    steps = outline(run, name, table)
    left = [step for step, done in steps.items() if not done]
    # Where runs share their steps, what runs them says how long all of them take.
    if left and not run.places and processes.is_first():
        notice(f"{len(left)} of {len(steps)} steps are left{_time(left, run.config, table)}")
    check_methods(run.config, left)
    dialogues.check_teacher(run.config, left)
    asks = any(_asks_model(table[step], run.config) for step in left)
    if asks or any(table[step].together for step in left):
        checks.check_machine(run.config)
    base = checks.check_model(run.config.model) if asks and processes.is_first() else None
    shown = bool(left) or not (run.workdir / run_page.NAME).exists()
    if shown:
        write_page_of(run, name, table)
    ensure(run, "data", table)
    if left and processes.is_first():
        store = load_store(run)
        check_events(store, run.config.windows.min_history)
        if run.config.windows.cross:  # those set apart may be all
            draw_set(run.config.windows, store, "train")
        if base is not None:
            check_labels(base, store.catalogue)
            if not processes.several() and any(step in STAGES for step in left):
                _say_what_is_unread(run.config, store.catalogue)
    ensure(run, name, table)
    if shown:
        write_page_of(run, name, table)


def write_page_of(run: Run, name: str, table: Mapping[str, Step]) -> None:
    """Writes the README.md of a run's folder, by one process; several runs share a folder without one."""
    if run.places or not processes.is_first():
        return
    assert isinstance(run.config, ConfigDict)
    data, made = read_record(run, "data"), versions()
    packages = ", ".join(f"{one} {made[one]}" for one in PACKAGES if made[one])
    facts = {
        "model": f"{run.config.model.name} ({run.config.model.path or 'built in'})",
        "data": f"{run.config.data.name}, fingerprint {data['result']['fingerprint'] if data else 'open'}",
        "seed": str(run.config.seed),
        "bua_jax": f"{made['bua_jax']}, git {made['git']}, source {made['code']}",
        "host": f"{socket.gethostname()}, {made['platform']}",
        "devices": str(made["devices"]),
        "folder": str(Path.cwd()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "Python": f"{made['python']}; {packages}",
    }
    steps = [(n, table[n].about, done) for n, done in outline(run, name, table).items()]
    with files.where_writable():
        run_page.write_page(run.workdir, run_page.page(run.workdir.name, command(), facts, steps))


def _say_what_is_unread(config: ConfigDict, catalogue: Catalogue) -> None:
    """A notice on labels that the base has hardly seen; it stays loaded for the stage."""
    from bua_jax.alignment.reading import read_base

    _, said = read_base(config, catalogue.behaviours)
    if said:
        notice(said)


def _asks_model(step: Step, config: ConfigDict) -> bool:
    """Whether the step trains a language model or asks one."""
    return "model" in step.fields or any(need in STAGES for need in step.needs(config))


def _check_name(name: str) -> None:
    if name not in STEPS:
        some = ", ".join(step for step in STEPS if "/" not in step)
        raise ConfigError(
            f"There is no step {name!r}; there are: {some}, windows/SET, fit/METHOD, predict/METHOD/SET "
            "and the like. The whole chain is built by: python -m bua_jax.curriculum."
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
    sets = (step_of(name) for name in ("test", "texts", "days", "days_train"))
    return ("data", *sets, *result_steps(config))


def _built_by(module: str, name: str, *args: str) -> Callable[[Run], dict[str, Any]]:
    """A builder of `bua_jax.pipeline`, imported when its step is built: what scores needs no jax."""

    def build(run: Run) -> dict[str, Any]:
        builder = getattr(importlib.import_module(f"bua_jax.pipeline.{module}"), name)
        return builder(run, *args)

    return build


def _stage_sources(name: str, config: Settings) -> dict[str, str]:
    """The files of the model, and that of the balancer where it is one of the user's own."""
    file = config[name].balancer.partition(":")[0]
    own = {f"{name}.balancer": file} if file.endswith(".py") else {}
    return {**model_sources(config), **own}


def _stage(name: str, about: str) -> Step:
    return Step(
        name,
        about,
        (name, "model", "methods.bua", "seed", "windows.prediction_history"),
        lambda config: _stage_needs(name, config),
        _built_by("stages", "build_stage", name),
        lambda config: _stage_minutes(config, name),
        together=True,
        sources=lambda config: _stage_sources(name, config),
        files=("trained.safetensors",),
        numbers=NUMBERS,
    )


def _stage_minutes(config: ConfigDict, name: str) -> float:
    """A guess for nano from its measured rate; other models are far from 2 CPU cores anyway."""
    tokens = {  # per training window, of which a final round alone is about a quarter of a dialogue
        "stage1": 120 * config.dialogues.stage1_share,
        "stage2": 300 - 230 * config.dialogues.shortened_share,
        "stage3": 6,
    }
    tokens["joint"] = sum(tokens.values())
    windows = min(config.windows.train or 1e5, 1e5) * config[name].epochs
    return windows * tokens[name] / 6_000 / 60 + 0.3


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
            files=(EVENTS, PERSONAS),
        ),
        *(_windows(name) for name in SETS),
        Step(
            "encoder",
            "behaviour encoder pretrained on the training users",
            ("seed", *behavegpt.FIELDS),
            lambda config: ("data",),
            _built_by("stages", "build_encoder"),
            lambda config: 1.5,
            together=True,
            files=(neural.FILE,),
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
                "dialogues.reflect_critic",
                "teacher",
                "decoding.max_new_tokens",
                "decoding.cache_dtype",
                "decoding.weight_dtype",
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
            files=(evaluate.METRICS,),
        ),
    )
}
PURPOSES = ("curriculum", *STEPS)
"""What a config can be for (`config.step`)."""
