"""How fast a training step is here: beside torch and tunix, and by remat policy.

Weights are random and of the model's shape. Ours and each peer run in a process of their own
(`step`, `torch_step`, `tunix_step`) and take turns, step by step.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from bua_jax.alignment.bases import base_folder
from bua_jax.alignment.parts import training_attention
from bua_jax.basics import config as configs
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError, MismatchError
from bua_jax.benchmarks.step import synthetic_step
from bua_jax.benchmarks.timing import alternate, ratios
from bua_jax.benchmarks.worker import Worker, WorkerFailed
from bua_jax.interop import huggingface, peft
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2_config import REMAT, Qwen2Config
from bua_jax.planning import roofline
from bua_jax.planning.roofline import Work
from bua_jax.planning.step import abstract_model
from bua_jax.planning.targets import DEVICES

PEERS: dict[str, dict[str, bool]] = {  # how torch's step differs from the plainest
    "eager": {"compiled": False, "supervised_logits": False},
    "compiled": {"compiled": True, "supervised_logits": False},
    "supervised": {"compiled": False, "supervised_logits": True},
    "supervised_compiled": {"compiled": True, "supervised_logits": True},
    "tunix": {},
}
_OPTIMIZER = {"learning_rate": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0}
_WARM_UP = 3  # steps that are not timed, and whose losses must agree
_EXACT, _ROUNDED = 1e-4, 2e-2  # relative tolerance of losses: float32 on a CPU, all else
_KINDS = {"TPU v5 lite": "TPU v5e", "TPU v5": "TPU v5p"}  # JAX's names of devices that have others


@dataclass(frozen=True)
class Shape:
    """What is trained, and on what: rows of `length` tokens whose last `supervised` are the answer."""

    config: ConfigDict  # a run's, of stage 2
    sizes: Qwen2Config
    rows: int
    length: int
    supervised: int
    microbatches: int


def make_shape(
    base: str,
    *,
    rows: int,
    length: int,
    share: float,
    microbatches: int,
    remat: str | None = None,
    merge_adapter: bool | None = None,
) -> Shape:
    """The shape of a preset, or of a directory's config.json or a GGUF file.

    Types, remat and the rest are the model's config's, unless given; a directory has those of the preset
    with its width and depth, else nano's. Raises `ConfigError`.
    """
    if base in ("", *PRESETS):
        name, sizes = base or "nano", PRESETS[base or "nano"]
    else:
        sizes = huggingface.read_config(base_folder(ConfigDict({"name": "nano", "path": base})))
        wanted = (sizes.hidden_size, sizes.num_layers)
        alike = [n for n, p in PRESETS.items() if (p.hidden_size, p.num_layers) == wanted]
        name = alike[0] if alike else "nano"
    supervised = round(share * length)
    if not 0 < supervised < length:
        raise ConfigError(
            f"--supervised_share={share} of --length={length} is {supervised} tokens: a row needs one "
            "that is supervised and one that is not."
        )
    if rows % microbatches:
        raise ConfigError(f"--rows={rows} is no multiple of --microbatches={microbatches}.")
    if length > sizes.max_positions:
        raise ConfigError(
            f"--length={length} is more than the {sizes.max_positions} positions of the model."
        )
    config = configs.load("configs/stage2.py", f"model={name}").copy_and_resolve_references()
    with config.unlocked():
        how = config.execution
        how.remat = remat or how.remat
        if merge_adapter is not None:
            how.merge_adapter = merge_adapter
        sizes = dataclasses.replace(sizes, dtype=config.model.dtype)
        how.attention = training_attention(how.attention, sizes)
    sizes = dataclasses.replace(sizes, remat=how.remat, attention=how.attention)
    return Shape(config, sizes, rows, length, supervised, microbatches)


# ------------------------------------------------------------------------------ weights and jobs


def random_variables(shapes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Arrays of the given shapes, in host memory: norm scales 1, biases 0, all else normal.

    The adapter's b is not 0, so that a wrong adapter shows in the first loss. Leaves are drawn side by side:
    billions of numbers take minutes.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)

    def draw(number: int) -> np.ndarray:
        path, leaf = leaves[number]
        name = path[-1].key
        if name in ("scale", "bias"):
            return np.full(leaf.shape, float(name == "scale"), leaf.dtype)
        found = np.random.default_rng([seed, number]).standard_normal(leaf.shape, np.float32)
        found *= 0.05
        return found.astype(leaf.dtype)

    with ThreadPoolExecutor() as pool:
        return jax.tree.unflatten(tree, pool.map(draw, range(len(leaves))))


def write_inputs(shape: Shape, folder: Path) -> None:
    """Writes what all sides read: the base and its config, adapter/ (PEFT), tokens.npy int32[B, T]."""
    model, shapes = abstract_model(shape.config, shape.sizes)
    assert model.llm.lora is not None
    variables = random_variables({k: shapes[k] for k in ("base", "adapter")}, 0)
    huggingface.save(folder, model.llm.config, variables["base"])
    adapter = variables["adapter"]
    peft.save(folder / "adapter", adapter, model.llm.lora, base="", base_hash="", card="")
    size = (shape.rows, shape.length)
    tokens = np.random.default_rng(0).integers(0, shape.sizes.vocab_size, size, np.int32)
    np.save(folder / "tokens.npy", tokens)


def our_job(shape: Shape, folder: Path) -> dict[str, Any]:
    """What `step` is told."""
    config = shape.config
    return {
        "folder": str(folder),
        "supervised": shape.supervised,
        "microbatches": shape.microbatches,
        **_OPTIMIZER,
        "dtype": config.model.dtype,
        **{name: config.execution[name] for name in ("remat", "attention", "merge_adapter")},
    }


def peer_job(shape: Shape, folder: Path, peer: str, platform: str) -> dict[str, Any]:
    """What `torch_step` or `tunix_step` is told."""
    return {
        "folder": str(folder),
        "dtype": shape.config.model.dtype,
        "supervised": shape.supervised,
        "microbatches": shape.microbatches,
        "platform": platform,
        **_OPTIMIZER,
        **PEERS[peer],
    }


# ------------------------------------------------------------------------------ beside its peers


def check_agreement(
    name: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float
) -> None:
    """Raises `MismatchError` unless the losses of the first steps are equal within `tolerance`.

    The first shows that weights, tokens and loss are the same; those after it that the updates are.
    """
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if not abs(mine - other) <= tolerance * abs(mine):  # NaN agrees with nothing
            raise MismatchError(
                f"Step {step}: our loss is {mine:.6f}, that of {name} {other:.6f}. They do not compute the "
                "same, so their times can't be compared. Please report it with the output of "
                "python -m bua_jax.versions."
            )


def step_flops(shape: Shape) -> float:
    """Of one step, forward and backward, logits at supervised positions, nothing computed twice."""
    model, _ = abstract_model(shape.config, shape.sizes)
    plain = dataclasses.replace(model, merge_adapter=False)
    work = Work(
        tokens=shape.rows * shape.length,
        row_length=shape.length,
        events=0,
        positions=shape.rows * shape.supervised,
        encoder_size=0,
        projector_size=0,
    )
    return roofline.flops(plain, ("adapter",), work)["model"]


def table_peak(kind: str, dtype: str) -> float | None:
    """Published FLOP/s of a device by JAX's name for it; None if it is in no table of ours."""
    title = _KINDS.get(kind, kind)
    for device in DEVICES.values():
        if device.title == title:
            halved = dtype == "float32" and device.platform == "cuda"  # TF32
            return device.peak / 2 if halved else device.peak
    return None


def _warm(worker: Worker) -> dict[str, Any]:
    """What the first steps show: their losses, and by how much the first took longer than the last."""
    loaded = worker.call("peak_mib").value
    answers = [worker.call("step") for _ in range(_WARM_UP)]
    return {
        "loaded_mib": loaded,
        "compile_seconds": max(0.0, answers[0].seconds - answers[-1].seconds),
        "losses": [answer.value for answer in answers],
    }


def _row(shape: Shape, name: str, worker: Worker, seconds: Sequence[float]) -> dict[str, Any]:
    """What is said of ours and of a peer alike, after its timed steps."""
    median = float(np.median(seconds))
    return {
        "step": name,
        "seconds": median,
        "tokens_per_second": shape.rows * shape.length / median,
        "supervised_per_second": shape.rows * shape.supervised / median,
        "peak_mib": worker.call("peak_mib").value,
        "device_peak_mib": worker.call("device_peak_mib").value,
        "compilations": worker.call("compilations").value,
    }


def compare_peers(
    shape: Shape, folder: Path, peers: Sequence[str], repeats: int
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """(a row for ours and each peer, facts of the run, why peers were left out).

    `ratio` is a peer's seconds over ours, the median of `repeats` pairs, with the lowest and highest.
    `of_matmul` is the step's model FLOP/s over the rate of a square product in the same round, and
    `of_peak` over the device's published peak (None for a CPU). Memory is a process's maximum,
    libraries and compiling included; `loaded_mib` is that of libraries and weights alone.
    Raises `MismatchError` if losses differ, `WorkerFailed` if ours fails.
    """
    dtype, flops = shape.config.model.dtype, step_flops(shape)
    rows, left_out, mine, rates = [], {}, [], []
    with Worker("step", our_job(shape, folder)) as ours:

        def turn() -> float:
            """Seconds of our step; before it, the rate of a product."""
            rates.append(ours.call("matmul_rate").value)
            mine.append(ours.call("step").seconds)
            return mine[-1]

        notice("ours: compiling")
        platform, kind = ours.call("device").value
        warm = _warm(ours)
        exact = platform == "cpu" and dtype == "float32"
        for peer in peers:
            notice(f"{peer}: starting")
            module = "tunix_step" if peer == "tunix" else "torch_step"
            try:
                with Worker(module, peer_job(shape, folder, peer, platform)) as worker:
                    their_warm = _warm(worker)
                    check_agreement(
                        peer, warm["losses"], their_warm["losses"], _EXACT if exact else _ROUNDED
                    )
                    pairs = [(turn(), worker.call("step").seconds) for _ in range(repeats)]
                    own, theirs = zip(*pairs, strict=True)
                    row = _row(shape, peer, worker, theirs)
                    rows.append({**row, **their_warm, **ratios(theirs, own)})
            except WorkerFailed as error:
                if error.module != module:
                    raise
                left_out[peer] = error.reason
                notice(f"{peer} is left out: {error.reason}")
        while len(mine) < repeats:
            turn()
        rows.insert(0, {**_row(shape, "bua_jax", ours, mine), **warm, **ratios(mine, mine)})
    peak = table_peak(kind, dtype)
    matmul = float(np.median(rates))
    for row in rows:
        rate = flops / row["seconds"]
        row["of_matmul"] = rate / matmul
        row["of_peak"] = rate / peak if peak else None
    rows[0]["of_matmul"] = float(np.median(flops / np.asarray(mine) / np.asarray(rates)))
    facts = {"device": kind, "flops": flops, "matmul_flops_per_second": matmul, "peak": peak}
    return rows, facts, left_out


def compare_remat(shape: Shape, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Per remat policy: temporaries at their peak (the compiler's figure) and a step's time.

    `ratio` is of its seconds over those without remat.
    """
    rows, runs = [], []
    for policy in ("none", *sorted(REMAT)):
        step, batch = synthetic_step(our_job(shape, folder), policy)
        rows.append({"remat": policy, "temporaries_mib": step.compile(batch) / 2**20})
        runs.append(functools.partial(step, batch))
    seconds = alternate(repeats, *runs)
    for row, times in zip(rows, seconds, strict=True):
        median = float(np.median(times))
        row |= {"seconds": median, "tokens_per_second": shape.rows * shape.length / median}
        row |= ratios(times, seconds[0])
    return rows
