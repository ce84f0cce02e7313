"""Pretraining nano: a resumable run whose every batch is a function of seed and step.

Dialogues become harder in phases (`settings.PHASES`): short histories in words whose answers are copies, then
vectors, then all. The rate is warmed up, constant, and falls to zero over the last fifth of the steps. A
checkpoint is kept where the fall begins, so that a run is made longer by asking for more steps.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.console import bar, notice
from bua_jax.basics.errors import CheckpointError, MismatchError
from bua_jax.evaluation.tables import markdown
from bua_jax.interop import huggingface
from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.models.aligned import cross_entropy
from bua_jax.models.qwen2 import Qwen2
from bua_jax.nano.batches import draw_batch
from bua_jax.nano.settings import LEVELS, PHASES, Phase, Settings, phase_of
from bua_jax.nano.tokenizer import pieces

WARMUP = 60  # steps
HELD = 3  # batches that accuracies are measured on
TEXT_WEIGHT = 0.05  # of the loss of the tokens that are no answers


def make_optimizer(settings: Settings) -> optax.GradientTransformation:
    """Muon on the layers' matrices (stacked: [layers, in, out]), Adam on all else."""
    matrices = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

    def schedule(peak: float) -> optax.Schedule:
        up = optax.linear_schedule(0.0, peak, WARMUP)
        down = optax.linear_schedule(peak, 0.0, settings.steps - settings.fall_begin)
        parts = [up, optax.constant_schedule(peak), down]
        return optax.join_schedules(parts, [WARMUP, settings.fall_begin])

    muon = optax.contrib.muon(
        schedule(settings.matrix_rate),
        adam_b2=0.98,
        adam_learning_rate=schedule(settings.rate),
        muon_weight_dimension_numbers=lambda tree: jax.tree.map(
            lambda x: matrices if x.ndim == 3 else None, tree
        ),
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def input_vectors(params: Any, batch: Any, noise: float, key: jax.Array) -> jax.Array:
    """The batch's events as noisy vectors of random size, float32[S, H]."""
    vectors = batch["vectors"] @ params["embed_tokens"]["embedding"]
    amount_key, size_key, key = jax.random.split(key, 3)
    shape = (len(vectors), 1)
    amount = noise * jax.random.uniform(amount_key, shape)
    norm = jnp.linalg.norm(vectors, axis=-1, keepdims=True) * vectors.shape[-1] ** -0.5
    vectors += amount * jax.lax.stop_gradient(norm) * jax.random.normal(key, vectors.shape)
    return vectors * jax.random.uniform(size_key, shape, minval=0.6, maxval=1.1)


def losses(model: Qwen2, soft_id: int, noise: float, params: Any, batch: Any, key: jax.Array):
    """(mean nll of answers plus a little of the other text's, whether wanted tokens are the best bool[N])."""
    tokens, wanted = batch["tokens"], batch["wanted"]
    embeddings: Any = model.apply({"params": params}, tokens, method="embed")
    vectors = input_vectors(params, batch, noise, key)
    is_soft = tokens == soft_id
    embeddings = jnp.where(is_soft[:, :, None], vectors[batch["shown"]], embeddings)
    hidden: Any = model.apply(
        {"params": params}, embeddings, batch["positions"], batch["segments"], method="hidden"
    )
    before = hidden.reshape(-1, hidden.shape[-1])[
        wanted - 1
    ]  # no segment begins with a wanted token
    logits: Any = model.apply({"params": params}, before, method="unembed")
    targets = tokens.reshape(-1)[wanted]
    nll, answer = cross_entropy(logits, targets), batch["is_answer"]
    loss = jnp.sum(nll * answer) / jnp.sum(answer)
    loss += TEXT_WEIGHT * jnp.sum(nll * ~answer) / jnp.maximum(jnp.sum(~answer), 1)
    return loss, logits.argmax(-1) == targets


def batches(
    settings: Settings, tokenizer: HFTokenizer, first: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(step, batch) from step `first` on; the next batch is made while the caller works."""
    texts = pieces(tokenizer.tokenizer)

    def make(step: int) -> dict[str, np.ndarray]:
        name, shape = f"{settings.seed}|{step}", (settings.rows, settings.length)
        return draw_batch(name, tokenizer, texts, shape, settings.vectors, phase_of(step))[0]

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first)
        for step in range(first, settings.steps):
            batch = coming.result()
            if step + 1 < settings.steps:
                coming = pool.submit(make, step + 1)
            yield step, batch


def accuracies(evaluate: Any, params: Any, held: list[Any]) -> dict[str, float]:
    """Share of the answers whose every token is the best one, given those before it, by round kind."""
    right: dict[str, list[bool]] = defaultdict(list)
    total = []
    for batch, answers in held:
        loss, best = evaluate(params, batch, jax.random.key(0))
        hit = np.zeros(batch["tokens"].shape, bool)
        hit.reshape(-1)[batch["wanted"]] = np.asarray(best)
        for kind, row, span in answers:
            right[kind].append(bool(hit[row, span].all()))
        total.append(float(loss))
    return {
        "loss": float(np.mean(total)),
        **{k: float(np.mean(v)) for k, v in sorted(right.items())},
    }


def _held(tokenizer: HFTokenizer, settings: Settings, phase: Phase) -> list[Any]:
    """Batches of a phase that no step trains on, and their answers."""
    asked = (tokenizer, pieces(tokenizer.tokenizer), (settings.rows, settings.length))
    return [draw_batch(f"held|{i}", *asked, settings.vectors, phase) for i in range(HELD)]


def examine(
    model: Qwen2, tokenizer: HFTokenizer, settings: Settings, params: Any
) -> dict[str, dict[str, float]]:
    """`accuracies` at each of `LEVELS`."""
    evaluate = jax.jit(functools.partial(losses, model, tokenizer.soft, 0.0))
    return {
        name: accuracies(evaluate, params, _held(tokenizer, settings, level))
        for name, level in LEVELS.items()
    }


SHOWN = ("loss", "last", "nth", "span", "how_often", "top", "counts", "faint")


def table(found: dict[str, dict[str, float]]) -> str:
    """What `examine` found, in Markdown: loss in nats, share of each drill's answers that are exact."""

    def cell(values: dict[str, float], name: str) -> str:
        if name == "loss":
            return f"{values[name]:.2f}"
        return f"{100 * values[name]:.0f} %" if name in values else "not asked"

    body = [[level, *(cell(values, name) for name in SHOWN)] for level, values in found.items()]
    return markdown(("held out", *SHOWN), body)


def _initial(model: Qwen2, seed: int) -> Any:
    return model.init(jax.random.key(seed), jnp.zeros((1, 8), jnp.int32))["params"]


def newest(model: Qwen2, folder: Path) -> tuple[int, Any]:
    """(steps, parameters) of the newest checkpoint. Raises `CheckpointError` where there is none."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} holds no checkpoint: pretrain first, without --show.")
    found, _ = huggingface.load_tree(paths[-1])
    params = _initial(model, 0)
    kept = {name: found[name] for name in sorted(found)[: len(jax.tree.leaves(params))]}
    return int(paths[-1].stem), _filled_tree(kept, params)


def save_state(folder: Path, step: int, state: Any, settings: Settings) -> None:
    """Writes parameters and optimizer after `step` steps; keeps the newest two and the fall's beginning.

    Those of more steps stay: a shorter run that had been finished wrote them.
    """
    leaves = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    said = {"settings": json.dumps(asdict(settings))}
    huggingface.save_tree(folder / f"{step:07d}.safetensors", leaves, said)
    before = [path for path in sorted(folder.glob("*.safetensors")) if int(path.stem) <= step]
    for path in before[:-2]:
        if int(path.stem) != settings.fall_begin:
            path.unlink()


def restore_state(folder: Path, state: Any, settings: Settings) -> tuple[int, Any]:
    """(steps done, state) of the newest checkpoint that this run can go on from; (0, state) if none.

    One in which the rate already fell towards another number of steps is passed over.
    Raises `MismatchError` for another batch, rate or seed, `CheckpointError` for a damaged file.
    """
    for path in sorted(folder.glob("*.safetensors"), reverse=True):
        found, metadata = huggingface.load_tree(path)
        said, step = json.loads(metadata["settings"]), int(path.stem)
        for name, value in asdict(settings).items():
            if name != "steps" and said[name] != value:
                raise MismatchError(
                    f"{path} was made with {name}={said[name]!r}, but now it is {value!r}. Use another "
                    "--output, or the same settings."
                )
        other = said["steps"] != settings.steps and step > Settings(**said).fall_begin
        if not other and step <= settings.steps:
            return step, _filled(found, state, step)
    return 0, state


def _filled(found: dict[str, Any], state: Any, step: int) -> Any:
    """(parameters, optimizer) with the arrays of a checkpoint, which may hold the parameters alone."""
    params, inner = state
    if len(found) == len(jax.tree.leaves(params)):  # moments begin anew, the schedule goes on
        inner = jax.tree.map(lambda x: jnp.full_like(x, step) if x.ndim == 0 else x, inner)
        return _filled_tree(found, params), inner
    return _filled_tree(found, state)


def _filled_tree(found: dict[str, Any], state: Any) -> Any:
    like, tree = jax.tree.flatten(state)  # the file has no arrays without dimensions
    pairs = zip(sorted(found), like, strict=True)
    return jax.tree.unflatten(
        tree, [jnp.asarray(found[name].reshape(leaf.shape), leaf.dtype) for name, leaf in pairs]
    )


def without_moments(path: Path, output: Path, count: int) -> None:
    """Writes the `count` parameters of a checkpoint, rounded to bfloat16: a quarter of its size.

    Pretraining goes on from that on another machine, with moments of its own.
    """
    found, metadata = huggingface.load_tree(path)
    said = {name: value for name, value in metadata.items() if name != "sha256"}
    kept = {name: found[name].astype(jnp.bfloat16) for name in sorted(found)[:count]}
    huggingface.save_tree(output, kept, said)


def pretrain(
    model: Qwen2, tokenizer: HFTokenizer, settings: Settings, folder: Path, every: int = 250
) -> Any:
    """Trains from the newest checkpoint in `folder`; returns the parameters."""
    # -- state
    params = _initial(model, settings.seed)
    optimizer = make_optimizer(settings)
    first, state = restore_state(folder, (params, optimizer.init(params)), settings)
    of = functools.partial(losses, model, tokenizer.soft)

    @functools.partial(jax.jit, donate_argnums=0)
    def step_of(state, batch, key, noise):
        params, inner = state
        compute = functools.partial(of, noise)
        (loss, _), grads = jax.value_and_grad(compute, has_aux=True)(params, batch, key)
        updates, inner = optimizer.update(grads, inner, params)
        return (optax.apply_updates(params, updates), inner), loss

    evaluate = jax.jit(functools.partial(of, 0.0))
    held = _held(tokenizer, settings, PHASES[-1])
    # -- loop
    with bar() as display:
        task = display.add_task("nano", total=settings.steps, completed=first)
        for step, batch in batches(settings, tokenizer, first):
            key = jax.random.fold_in(jax.random.key(settings.seed), step)
            state, loss = step_of(state, batch, key, phase_of(step).noise)
            display.advance(task)
            done = step + 1
            if done % every == 0 or done in (settings.fall_begin, settings.steps):
                found = accuracies(evaluate, state[0], held)
                said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
                notice(f"step {done}: training loss {float(loss):.3f}; held out: {said}")
                save_state(folder, done, state, settings)
    return state[0]
