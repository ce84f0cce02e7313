"""Fifty steps of stage 2's recipe: here (packed), in torch + PEFT (one dialogue a row), and in float64."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.agreement import ours, peer, plain
from bua_jax.agreement.ours import Stage
from bua_jax.feed.batches import one_per_row
from bua_jax.feed.packing import PackingPlan
from bua_jax.interop.huggingface import flatten
from bua_jax.training import optimizer
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer, schedule
from bua_jax.training.state import create
from bua_jax.training.step import make_step, zero_sums
from tests.support import tiny

STEPS, DIALOGUES, ROWS, LENGTH, EVENTS = 50, 6, 5, 64, 48
# Stage 2's but for the rates: the tiny model has fifty steps to go somewhere.
SETTINGS = TrainSettings(
    optimizer=OptimizerSettings(peak_lr=5e-3, initial_lr=1e-4, final_lr=1e-4, warmup_share=0.1)
)
GRADIENT = 2.0**-20  # of its norm: what some hundred sums in float32 lose, eight times its eps
RATE = 2.0**-15  # AdamW's 1 - 0.999^t is off by 2^-24 / 0.001, and the root of it by half of that
Arrays = dict[str, Any]


class Step(NamedTuple):
    """After a step: the loss of its batch before it, and the trained arrays by name."""

    loss: float
    trained: Arrays


def batches(stage: Stage) -> list[tuple[Arrays, Arrays]]:
    """(packed, one dialogue a row) of the same dialogues, step by step."""
    found = []
    for step in range(STEPS):
        records = tiny.records(DIALOGUES, seed=step)
        packed = {
            name: _filled(value) for name, value in tiny.rows_of(records, LENGTH, EVENTS).items()
        }
        alone: Arrays = one_per_row(records, max(len(record.tokens) for record in records))
        found.append((packed, alone | ours.states(stage, alone)))
    return found


def _filled(rows: np.ndarray) -> np.ndarray:
    """With empty rows, up to `ROWS`: one shape for all steps."""
    assert len(rows) <= ROWS
    return np.concatenate([rows, np.zeros((ROWS - len(rows), *rows.shape[1:]), rows.dtype)])


def here(stage: Stage, data: list[tuple[Arrays, Arrays]]) -> Iterator[Step]:
    """The step that trains, on packed rows."""
    plan = PackingPlan(LENGTH, EVENTS, ROWS, 1, 1, LENGTH, 1)
    problem = Dialogues(stage.model, plan, stage.settings)
    trainable, frozen = optimizer.partition(stage.variables, stage.trains)
    transform = make_optimizer(trainable, stage.settings.optimizer, STEPS)
    state = create(problem, trainable, transform)
    step = jax.jit(make_step(problem, transform))
    for packed, _ in data:
        rows = {name: jnp.asarray(value) for name, value in packed.items()}
        state, sums = step(state, frozen, rows, zero_sums(problem))
        loss = float(sums.problem.loss.total[0] / sums.problem.loss.count[0])
        yield Step(loss, flatten(state.trainable))


def rates(stage: Stage) -> list[float]:
    """Share of the peak rate at each step (`test_optimizer` holds the schedule by hand)."""
    how = stage.settings.optimizer
    return [float(schedule(how, STEPS)(step)) / how.peak_lr for step in range(STEPS)]


def in_torch(
    stage: Stage, base: Path, data: list[tuple[Arrays, Arrays]], changed: Mapping[str, Any]
) -> Iterator[Step]:
    """transformers + PEFT, torch's AdamW and clipping, float32. changed: of the recipe, for a wrong one."""
    torch, _, _ = peer.libraries()
    recipe = ours.recipe(stage) | changed
    model = peer.peft_model(stage, base)
    parts: Arrays = {n: [torch.tensor(v).requires_grad_()] for n, v in _projector(stage).items()}
    leaves = {name: of[0] for name, of in parts.items()}
    parts |= peer.trained_leaves(stage, model)
    pairs = [(name, leaf) for name, of in parts.items() for leaf in of]
    adamw = peer.adamw(torch, pairs, recipe)
    peaks = [group["lr"] for group in adamw.param_groups]
    for rate, (_, batch) in zip(rates(stage), data, strict=True):
        embeddings = peer.embedded(torch, stage, model, leaves, batch)
        mask = torch.tensor(batch["segments"] > 0).long()
        row, token = np.nonzero(batch["round_ids"] > 0)
        logits = model(inputs_embeds=embeddings, attention_mask=mask).logits[row, token - 1]
        labels = torch.tensor(batch["tokens"][row, token]).long()
        nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = plain.losses(nll, recipe, batch)[recipe["loss"]]
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([leaf for _, leaf in pairs], recipe["clip_norm"])
        for group, peak in zip(adamw.param_groups, peaks, strict=True):
            group["lr"] = rate * peak
        adamw.step()
        arrays = {n: [leaf.detach().numpy().copy() for leaf in of] for n, of in parts.items()}
        yield Step(
            loss.item(),
            {n: of[0] if n in leaves else peer.as_ours(n, of) for n, of in arrays.items()},
        )


def _projector(stage: Stage) -> Arrays:
    return {n: v for n, v in stage.trained.items() if n.startswith("projector/")}


def in_float64(
    stage: Stage, base: Arrays, data: list[tuple[Arrays, Arrays]], seed: int | None = None
) -> Iterator[Step]:
    """`plain` and torch's AdamW in float64; with a seed, perturbed by what float32 does to a step."""
    torch, _, _ = peer.libraries()
    recipe, rng = ours.recipe(stage), np.random.default_rng(seed)
    leaves = {n: torch.tensor(np.float64(v)).requires_grad_() for n, v in stage.trained.items()}
    adamw = peer.adamw(torch, leaves.items(), recipe)
    peaks = [group["lr"] for group in adamw.param_groups]
    for rate, (_, batch) in zip(rates(stage), data, strict=True):
        nll = plain.forward(torch, recipe, base, leaves, batch)["nll"]
        loss = plain.losses(nll, recipe, batch)[recipe["loss"]]
        adamw.zero_grad()
        loss.backward()
        for leaf in leaves.values() if seed is not None else ():
            moved = torch.tensor(rng.normal(size=tuple(leaf.shape)) / leaf.numel() ** 0.5)
            leaf.grad += GRADIENT * leaf.grad.norm() * moved
        torch.nn.utils.clip_grad_norm_(leaves.values(), recipe["clip_norm"])
        for group, peak in zip(adamw.param_groups, peaks, strict=True):
            off = 0 if seed is None else RATE * rng.normal()
            group["lr"] = rate * peak * (1 + off)
        adamw.step()
        for leaf in leaves.values() if seed is not None else ():
            leaf.data = leaf.data.float().double()
        yield Step(loss.item(), {n: leaf.detach().numpy().copy() for n, leaf in leaves.items()})


def apart(one: list[Step], two: list[Step], start: Arrays) -> np.ndarray:
    """float[steps, 2]: by how much losses differ, and parameters, as a share of how far `two` has gone."""

    def norm(a: Arrays, b: Arrays) -> float:
        return float(np.sqrt(sum(np.sum((np.float64(a[n]) - np.float64(b[n])) ** 2) for n in b)))

    pairs = zip(one, two, strict=True)
    return np.array(
        [
            (abs(a.loss - b.loss), norm(a.trained, b.trained) / norm(b.trained, start))
            for a, b in pairs
        ]
    )
