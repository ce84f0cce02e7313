"""What weighing units costs a training step: nothing, a forward pass, or a backward pass for each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bua_jax.benchmarks.step import OurStep, synthetic_step
from bua_jax.benchmarks.timing import alternate, ratios
from bua_jax.benchmarks.train import Shape, our_job
from bua_jax.training.step import accumulated

FROM_LOSSES = ("log_loss", "famo")  # the second takes another forward pass
FROM_GRADIENTS = "upgrad"


def _forward(step: OurStep, batch: Any) -> Callable[[], Any]:
    """The forward pass of a step alone."""
    problem, weights = step.problem, step.state.weights[None]
    trainable = jax.tree.map(jax.numpy.copy, step.state.trainable)  # the step donates its own

    def run(trainable: Any, frozen: Any, batch: Any) -> Any:
        def of_part(part: Any) -> Any:
            everything = {**frozen, **trainable}
            return problem.numerators(everything, part, weights, jax.random.key(0))[0]

        return accumulated(of_part, problem.prepared(batch), step.microbatches)

    compiled = jax.jit(run)

    def timed() -> Any:
        with jax.set_mesh(step.mesh):
            return jax.block_until_ready(compiled(trainable, step.frozen, batch))

    return timed


def compare_balancers(
    shape: Shape, folder: Path, kinds: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """A row for equal weights, each of `FROM_LOSSES`, and `FROM_GRADIENTS` with so many round kinds.

    `ratio` is of a step's seconds over those with equal weights. `bound` is what one forward and K
    backward passes would take, (F + K B) / (F + B), with F the forward pass and F + B the step of equal
    weights. `temporaries_mib`: the compiler's figure. There must be as many rows as kinds.
    """
    job, most = our_job(shape, folder), max(kinds)
    asked = [("equal", most), *((name, most) for name in FROM_LOSSES)]
    asked += [(FROM_GRADIENTS, count) for count in kinds]
    rows, runs = [], []
    for name, count in asked:
        step, batch = synthetic_step(job, job["remat"], balancer=name, kinds=count)
        memory = step.compile(batch) / 2**20
        rows.append({"balancer": name, "kinds": count, "temporaries_mib": memory})
        runs.append(lambda step=step, batch=batch: step(batch))
        if name == "equal":
            forward = _forward(step, batch)
    *seconds, ahead = alternate(repeats, *runs, forward)
    share = float(np.median(np.asarray(ahead) / np.asarray(seconds[0])))
    for row, (name, count), times in zip(rows, asked, seconds, strict=True):
        passes = count if name == FROM_GRADIENTS else 1
        row |= {"seconds": float(np.median(times)), **ratios(times, seconds[0])}
        row["bound"] = share + passes * (1 - share) + share * (name == "famo")
    return rows
