"""A run's plan: memory, collectives, FLOPs, time and the largest batch of a stage, without the hardware."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.feed.packing import PackingPlan
from bua_jax.models.aligned import Aligned
from bua_jax.models.kernels.splash import check_splash
from bua_jax.parallel import sharding
from bua_jax.parallel.shape import parse_mesh
from bua_jax.pipeline import checks
from bua_jax.pipeline.stages import stage_parts
from bua_jax.planning import roofline
from bua_jax.planning.collectives import Collective, collectives
from bua_jax.planning.roofline import Work
from bua_jax.planning.step import Lowered, abstract_model, lower_step
from bua_jax.planning.targets import Target, compile_devices, compiler_missing, parse_target
from bua_jax.training.stage_table import STAGE_TABLE

FILL = 0.95  # of a row's tokens, what packing reaches


@dataclass(frozen=True)
class Dialogues:
    """What the data would say: means over dialogues, and shares of the densest dialogue's tokens."""

    tokens: float
    supervised: float  # share, for which rows have room
    events: float  # per token, likewise


# Measured on the simulated population (60 people, 40 days) with Qwen's tokenizer and the default
# histories: 442 dialogues of stage 1, 600 of stage 2, a quarter of which end in a day. Joint rows have
# room for both. Stage 3 was not measured: stage 2's stand in.
ASSUMED = {
    "stage1": Dialogues(184, 0.89, 0.63),
    "stage2": Dialogues(342, 0.82, 0.25),
    "stage3": Dialogues(342, 0.82, 0.25),
    "joint": Dialogues(289, 0.89, 0.63),
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step; bytes are of one device."""

    temporaries: float  # inf where the compiler refused for want of memory
    given: float  # arguments, as they lie in memory
    total: float
    text: str


def dialogues_per_epoch(config: ConfigDict, stage: str) -> float:
    """From the config's numbers of training windows. Raises `ConfigError` if they have no limit."""
    c, windows = config.dialogues, config.windows.train
    if not windows:
        raise ConfigError("windows.train=0 takes all windows: give their number to plan for.")
    counts = {
        "stage1": windows * c.stage1_share,
        "stage2": windows,
        "stage3": c.reflect_train * c.reflect_share,
    }
    return sum(counts.values()) if stage == "joint" else counts[stage]


def packing_plan(
    config: ConfigDict, stage: str, dialogues: Dialogues, mesh: Mesh, rows: int
) -> PackingPlan:
    """The shapes that `feed.packing.plan_packing` would find, with the empty rows that devices add.

    `rows` per batch, or 0 for the config's. Raises `ConfigError` for rows that devices and microbatches
    do not divide.
    """
    part = config[stage]
    per_row = FILL * part.row_length / dialogues.tokens
    multiple = sharding.rows_on(mesh, 1, part.microbatches)
    if rows % multiple:
        raise ConfigError(
            f"--rows={rows} is no multiple of {multiple}, the microbatches times the devices that share "
            f"a batch; give {math.ceil(rows / multiple) * multiple}."
        )
    filled = (
        rows
        or max(1, round(part.batch_dialogues / per_row / part.microbatches)) * part.microbatches
    )
    rows = sharding.rows_on(mesh, filled, part.microbatches)
    per_row *= filled / rows
    return PackingPlan(
        row_length=part.row_length,
        event_length=max(8, math.ceil(dialogues.events * part.row_length / 8) * 8),
        rows_per_batch=rows,
        steps_per_epoch=round(dialogues_per_epoch(config, stage) / (per_row * rows), 2),
        dialogues_per_row=per_row,
        max_supervised=max(1, math.ceil(dialogues.supervised * part.row_length)),
        fill=FILL * filled / rows,
    )


def compile_step(lowered: Lowered) -> Compiled:
    """Compiles; a step that does not fit the compiler's memory has no text, and infinite temporaries
    unless the compiler says how much it would need."""
    try:
        compiled = lowered.step.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"(?:Used |temporaries \()([\d.]+)G", str(error))
        total = float(used[1]) * 2**30 if used else math.inf
        given = float(sum(lowered.given.values()))
        return Compiled(total - given, given, total, "")
    stats = compiled.memory_analysis()
    if stats is None:
        raise ConfigError("This compiler does not say how much memory a step needs.")
    given = stats.argument_size_in_bytes
    extra = stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    return Compiled(float(extra), float(given), float(given + extra), compiled.as_text() or "")


def largest(
    total_of: Callable[[int], float], limit: float, first: tuple[int, float], trials: int
) -> tuple[int, bool]:
    """The largest n with total_of(n) <= limit, and whether n + 1 is known not to fit.

    Memory grows about linearly, so a line through the last two trials says where to look next, and
    bisection takes over where it leaves the bracket. `first` is (n, total) of what is known. With
    few `trials` the answer is a lower bound; 0 if nothing fits.
    """
    known = {0: 0.0, first[0]: first[1]}
    points = [first]
    for _ in range(trials):
        low = max(n for n, total in known.items() if total <= limit)
        high = min((n for n, total in known.items() if total > limit), default=None)
        if high == low + 1:
            break
        guess = 2 * low if high is None else (low + high) // 2
        finite = [point for point in points if math.isfinite(point[1])][-2:]
        if len(finite) == 2 and finite[0][0] != finite[1][0]:
            (n1, m1), (n2, m2) = finite
            slope = (m2 - m1) / (n2 - n1)
            guess = int(n2 + (limit - m2) / slope) if slope > 0 else guess
            guess += guess == low  # it fits: what is left to ask is the next one
        guess = max(low + 1, guess if high is None else min(guess, high - 1))
        known[guess] = total_of(guess)
        points.append((guess, known[guess]))
    low = max(n for n, total in known.items() if total <= limit)
    return low, known.get(low + 1, 0.0) > limit


def _resolved(
    config: ConfigDict, stage: str, platform: str, own: bool, notes: list[str]
) -> ConfigDict:
    """The config as it would be run on an accelerator; adds to `notes` what that changes.

    own: whether the platform's compiler is there. Raises `ConfigError` for attention that it lacks.
    """
    config = config.copy_and_resolve_references()
    config.unlock()
    if config.model.dtype == "float32" and not config[stage].full_finetuning:
        config.model.dtype = "bfloat16"
        notes.append("the frozen base in bfloat16: run with --config.model.dtype=bfloat16")
    attention = config.execution.attention
    if attention == "splash":
        check_splash(config[stage].row_length, platform)
    if attention in ("cpu", "cudnn") or (attention == "splash" and not own):
        needed = "the target's own compiler" if attention == "splash" else "its device"
        notes.append(f"attention by xla: {attention} is not compiled without {needed}")
    if attention != "splash" or not own:
        config.execution.attention = "xla"
    return config


def _finite(size: float) -> float | None:
    """None, which JSON has, for what is only known to be too much."""
    return size if math.isfinite(size) else None


def _sizes(tree: Mapping[str, Any], part: str) -> int:
    return sum(x.size for x in jax.tree.leaves(tree[part]))


def _work(plan: PackingPlan, variables: Mapping[str, Any]) -> Work:
    rows = plan.rows_per_batch
    return Work(
        tokens=rows * plan.row_length,
        row_length=plan.row_length,
        events=rows * plan.event_length,
        positions=rows * plan.max_supervised,
        encoder_size=_sizes(variables, "encoder"),
        projector_size=_sizes(variables, "projector"),
    )


@dataclass(frozen=True)
class _Planned:
    """What all parts of a plan are about: a stage's model, whose step is lowered for a mesh of the target."""

    config: ConfigDict
    target: Target
    mesh: Mesh
    dialogues: Dialogues
    model: Aligned
    variables: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return self.config.step

    @property
    def microbatches(self) -> int:
        return self.config[self.stage].microbatches

    def packing(self, rows: int) -> PackingPlan:
        return packing_plan(self.config, self.stage, self.dialogues, self.mesh, rows)

    def lower(self, packing: PackingPlan) -> Lowered:
        return lower_step(self.config, self.stage, self.model, self.variables, packing, self.mesh)


def make_plan(
    config: ConfigDict,
    target_text: str,
    *,
    dialogues: Dialogues | None = None,
    rows: int = 0,
    trials: int = 4,
) -> dict[str, Any]:
    """The plan of the config's stage on a target, as JSON values; bytes are of one device.

    `rows` per step: 0 for as many as the config's batch of dialogues fills. `trials`: compilations
    that the search for the largest batch may take; 0 leaves it out.
    Raises `ConfigError` for a target, stage or mesh that cannot be planned.
    """
    stage, target = config.step, parse_target(target_text)
    _check(config, target, target_text)
    notes: list[str] = []
    extra = compiler_missing(target)
    config = _resolved(config, stage, target.device.platform, extra is None, notes)
    notes += _about_target(target, extra)
    mesh = sharding.make_mesh(config.execution.mesh, compile_devices(target, own=extra is None))
    planned = _Planned(config, target, mesh, dialogues or ASSUMED[stage], *abstract_model(config))
    packing = planned.packing(rows)
    lowered = planned.lower(packing)
    notice(f"compiling a step of {packing.rows_per_batch} rows for {target_text}")
    compiled = compile_step(lowered)
    found: dict[str, Any] = {
        "target": {"name": target_text, **asdict(target.device), "wire": target.wire},
        "compiler": "cpu" if extra else target.device.platform,
        "stage": stage,
        "model": config.model.name,
        "dtype": config.model.dtype,
        "remat": config.execution.remat,
        "attention": config.execution.attention,
        "mesh": dict(mesh.shape),
        "microbatches": planned.microbatches,
        "dialogues": asdict(planned.dialogues),
        "packing": asdict(packing),
        "batch_dialogues": packing.rows_per_batch * packing.dialogues_per_row,
        "memory": _memory(target, lowered, compiled),
        "notes": notes,
    }
    found |= _times(planned, packing, lowered, compiled, notes)
    if trials:
        found["largest_batch"] = _largest_batch(planned, packing, compiled, trials)
    return found


def _check(config: ConfigDict, target: Target, target_text: str) -> None:
    """Raises `ConfigError` unless the config has legal values, a stage and a mesh of the target's devices."""
    checks.check_fields(config)
    if config.step not in STAGE_TABLE:
        raise ConfigError(
            f"A plan is of a stage: --config=configs/STAGE.py, one of {[*STAGE_TABLE]}."
        )
    wanted = math.prod(parse_mesh(config.execution.mesh))
    if wanted != target.count:
        raise ConfigError(
            f"mesh={config.execution.mesh!r} has {wanted} devices, but --target={target_text} has "
            f"{target.count}: --config=configs/{config.step}.py:model={config.model.name},"
            f"mesh={target.count}."
        )


def _about_target(target: Target, extra: str | None) -> list[str]:
    """Notes on the compiler and the memory; extra: what would install the target's own compiler."""
    notes = []
    if extra:
        notes.append(
            "temporaries and collectives are the CPU compiler's, on fake devices: an estimate (it "
            "widens bfloat16 to float32). For the target's own compiler: pip install "
            f"'{extra}'"
        )
    if target.device.platform == "cuda":
        notes.append(
            f"JAX takes three quarters of a GPU's memory: for all up to the limit, set "
            f"XLA_PYTHON_CLIENT_MEM_FRACTION={target.device.usable}"
        )
    return notes


def _limit(target: Target) -> float:
    return target.device.memory * target.device.usable


def _memory(target: Target, lowered: Lowered, compiled: Compiled) -> dict[str, Any]:
    """Bytes of a device, by what holds them."""
    return {
        **lowered.given,
        "activations and temporaries": _finite(compiled.temporaries),
        "total": _finite(compiled.total),
        "capacity": target.device.memory,
        "limit": _limit(target),
        "fits": compiled.total <= _limit(target),
    }


def _largest_batch(
    planned: _Planned, packing: PackingPlan, compiled: Compiled, trials: int
) -> dict[str, Any]:
    """The largest batch that fits; packing and compiled: of the step that is known."""
    unit = sharding.rows_on(planned.mesh, 1, planned.microbatches)

    def total_of(n: int) -> float:
        notice(f"compiling a step of {n * unit} rows")
        return compile_step(planned.lower(planned.packing(n * unit))).total

    known = (packing.rows_per_batch // unit, compiled.total)
    most, certain = largest(total_of, _limit(planned.target), known, trials)
    return {
        "rows_per_device": most * planned.microbatches,
        "rows": most * unit,
        "dialogues": most * unit * packing.dialogues_per_row,
        "certain": certain,
    }


def _times(
    planned: _Planned,
    packing: PackingPlan,
    lowered: Lowered,
    compiled: Compiled,
    notes: list[str],
) -> dict[str, Any]:
    """FLOPs, collectives, and the roofline of a step and of an epoch."""
    config, target, mesh = planned.config, planned.target, planned.mesh
    work = _work(packing, planned.variables)
    flops = roofline.flops(planned.model, stage_parts(config, planned.stage), work)
    if not compiled.text:
        notes.append("the step does not fit, so its collectives are not known and not timed")
    sent, unknown = collectives(compiled.text, target.count) if compiled.text else ([], 0)
    if unknown:
        notes.append(f"{unknown} loops of unknown length: their collectives count once")
    shape, microbatches = dict(mesh.shape), planned.microbatches
    moved = roofline.traffic(planned.model, lowered.given, work, shape, microbatches)
    wire = sum(one.wire * one.times for one in sent)
    times = roofline.seconds(target, flops["executed"], moved, wire, config.model.dtype)
    return {
        "flops": flops,
        "memory_traffic": moved,
        "collectives": _by_kind(sent),
        "seconds": times,
        "hours_per_epoch": {
            name: times[name] * packing.steps_per_epoch / 3600 for name in ("roofline", "in turn")
        },
        "epochs": config[planned.stage].epochs,
    }


def _by_kind(sent: list[Collective]) -> list[dict[str, Any]]:
    """Sums by kind and devices that take part: instructions, executions and bytes per step of one device."""
    rows = []
    for kind, devices in sorted({(one.kind, one.devices) for one in sent}):
        some = [one for one in sent if (one.kind, one.devices) == (kind, devices)]
        rows.append(
            {
                "kind": kind,
                "devices": devices,
                "instructions": len(some),
                "executions": sum(one.times for one in some),
                "bytes": sum(one.payload * one.times for one in some),
                "wire": sum(one.wire * one.times for one in some),
                "largest": max(one.payload for one in some),
            }
        )
    return rows
