"""Our side of `bench train`: the step that `training.loop.fit` runs, and the process it runs in."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.benchmarks.timing import peak_mib
from bua_jax.benchmarks.worker import serve
from bua_jax.feed.packing import PackingPlan
from bua_jax.interop import huggingface, peft
from bua_jax.models.aligned import Aligned
from bua_jax.models.projector import Projector
from bua_jax.models.qwen2 import Qwen2
from bua_jax.parallel import sharding
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer, partition
from bua_jax.training.state import create
from bua_jax.training.step import make_step, zero_sums

_NO_SOFT = -1  # the id of no token
_MATRIX = {"cpu": 2048}  # rows of the square product whose rate is a CPU's; others' is
_LARGE_MATRIX = 8192
_STEP = "jit(step)"  # the name that JAX gives it
_COMPILED = "/jax/core/compile/backend_compile_duration"


class OurStep:
    """The jitted step with the state that it donates, on one device; calling it trains on a batch."""

    def __init__(
        self,
        model: Aligned,
        variables: Mapping[str, Any],
        parts: tuple[str, ...],
        plan: PackingPlan,
        settings: TrainSettings,
    ) -> None:
        self.mesh = sharding.make_mesh("1")
        self.microbatches = settings.microbatches
        trainable, frozen = partition(variables, parts)
        self.frozen = jax.device_put(frozen, sharding.shardings(frozen, self.mesh))
        optimizer = make_optimizer(trainable, settings.optimizer, settings.total_steps)
        self.problem = Dialogues(model, plan, settings)
        state = create(self.problem, trainable, optimizer)
        placement = sharding.shardings(state, self.mesh)
        self.state = jax.device_put(state, placement)
        self.run: Any = jax.jit(
            make_step(self.problem, optimizer, settings.microbatches),
            donate_argnums=(0, 3),
            out_shardings=(placement, sharding.replicated(self.mesh)),
        )

    def _sums(self) -> Any:
        return jax.device_put(zero_sums(self.problem), sharding.replicated(self.mesh))

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """A batch of the feed on the device."""
        return sharding.shard_batch(batch, self.mesh, self.microbatches)

    def compile(self, batch: Mapping[str, jax.Array]) -> int:
        """Compiles for batches like this one; returns the bytes of temporaries at their peak."""
        with jax.set_mesh(self.mesh):
            self.run = self.run.lower(self.state, self.frozen, batch, self._sums()).compile()
        return int(self.run.memory_analysis().temp_size_in_bytes)

    def __call__(self, batch: Mapping[str, jax.Array]) -> float:
        """One step; returns the mean loss of a supervised token, once the device has finished."""
        with jax.set_mesh(self.mesh):
            self.state, sums = self.run(self.state, self.frozen, batch, self._sums())
        kinds: Any = jax.device_get(sums.problem).kind
        jax.block_until_ready(self.state)
        return float(kinds.total.sum() / kinds.count.sum())


def synthetic_batch(tokens: np.ndarray, supervised: int, kinds: int) -> dict[str, np.ndarray]:
    """A batch as the feed gives: one dialogue per row of tokens int32[B, T], no soft tokens.

    Its only answer is the last `supervised` tokens of each row; rows are of so many round kinds in turn.
    """
    ones = np.ones_like(tokens)
    answer = ones * (np.arange(tokens.shape[1]) >= tokens.shape[1] - supervised)
    return {
        "tokens": tokens,
        "segments": ones,
        "positions": np.arange(tokens.shape[1], dtype=np.int32) * ones,
        "round_ids": answer,
        "kinds": answer * (1 + np.arange(len(tokens), dtype=np.int32)[:, None] % kinds),
        "tasks": ones,
        "soft_index": 0 * ones,
    }


def synthetic_step(
    job: Mapping[str, Any], remat: str, *, balancer: str = "equal", kinds: int = 1
) -> tuple[OurStep, dict[str, jax.Array]]:
    """The step of a job (`train.our_job`) under a remat policy, and the batch that it trains on.

    balancer: of the round kinds, of which the batch has so many.
    """
    folder = Path(job["folder"])
    config, base = huggingface.load(folder, job["dtype"])
    config = dataclasses.replace(config, remat=remat, attention=job["attention"])
    adapter_config, adapter = peft.load(folder / "adapter", config)
    model = Aligned(
        llm=Qwen2(config, adapter_config),
        encoder=None,
        projector=Projector(config.hidden_size),
        soft_tokens="none",
        soft_id=_NO_SOFT,
        merge_adapter=job["merge_adapter"],
    )
    tokens = np.load(folder / "tokens.npy")
    rows, length = tokens.shape
    plan = PackingPlan(length, 8, rows, 1.0, 1.0, job["supervised"], 1.0)
    rate = job["learning_rate"]  # constant: the schedule is no part of the comparison
    optimizer = OptimizerSettings(
        peak_lr=rate,
        initial_lr=rate,
        final_lr=rate,
        weight_decay=job["weight_decay"],
        clip_norm=job["clip_norm"],
    )
    settings = TrainSettings(
        microbatches=job["microbatches"],
        optimizer=optimizer,
        balancer=balancer,
        balancer_unit="round",
    )
    step = OurStep(model, {"base": base, "adapter": adapter}, ("adapter",), plan, settings)
    return step, step.place(synthetic_batch(tokens, job["supervised"], kinds))


def matmul_rate(dtype: str) -> float:
    """FLOP/s of one large square product of two matrices of this type."""
    size = _MATRIX.get(jax.default_backend(), _LARGE_MATRIX)
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    _product(x, x).block_until_ready()  # compiles it the first time
    begin = time.perf_counter()
    _product(x, x).block_until_ready()
    return 2.0 * size**3 / (time.perf_counter() - begin)


_product = jax.jit(jnp.matmul)


def count_compilations(name: str) -> Callable[[], int]:
    """How often JAX compiles the function that it calls `name`, from now on."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, fun_name="", **__: (
            compiled.append(event) if event == _COMPILED and fun_name == name else None
        )
    )
    return lambda: len(compiled)


def device_peak_mib() -> float:
    """Largest memory in use on the first device so far; 0 on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 0) / 2**20


def build(job: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Calls "step" (-> loss), "matmul_rate" (-> FLOP/s), "device", "compilations", "peak_mib" and
    "device_peak_mib"."""
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured too
    step, batch = synthetic_step(job, job["remat"])
    return {
        "step": lambda: step(batch),
        "matmul_rate": lambda: matmul_rate(job["dtype"]),
        "device": lambda: [jax.default_backend(), jax.devices()[0].device_kind],
        "compilations": count_compilations(_STEP),
        "peak_mib": peak_mib,
        "device_peak_mib": device_peak_mib,
    }


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others share the device
    serve(build)
