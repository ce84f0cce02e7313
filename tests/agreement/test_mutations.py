"""Faults that ports have: each is caught, and first by the check that names its place."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bua_jax.agreement import ours, plain
from bua_jax.agreement.ours import Stage
from bua_jax.agreement.quantities import above, tolerances
from bua_jax.models import qwen2
from bua_jax.models.qwen2 import Qwen2
from bua_jax.training import losses, optimizer
from tests.agreement import small

Batch = dict[str, Any]
Patch = pytest.MonkeyPatch
Mutant = Callable[[Stage, Batch, Patch], tuple[Stage, Batch]]


def with_config(stage: Stage, **changes: Any) -> Stage:
    config = dataclasses.replace(stage.model.llm.config, **changes)
    model = dataclasses.replace(stage.model, llm=Qwen2(config, stage.model.llm.lora))
    return stage._replace(model=model)


def stop_token_dropped(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    counts = np.where(batch["tokens"] == stage.stop, 0, batch["round_ids"])
    return stage, batch | {"round_ids": counts}


def soft_token_of_the_next_event(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    return stage, batch | {"soft_index": batch["soft_index"] + 1}


def norm_eps(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    return with_config(stage, rms_norm_eps=1e-5), batch


def lora_alpha(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    lora = stage.model.llm.lora
    assert lora is not None
    twice = dataclasses.replace(lora, alpha=2 * lora.alpha)
    llm = Qwen2(stage.model.llm.config, twice)
    return stage._replace(model=dataclasses.replace(stage.model, llm=llm)), batch


def rope_theta(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    return with_config(stage, rope_theta=1e6), batch


def mask_off_by_one(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    def mask(segments: jax.Array, last: int | None = None) -> jax.Array:
        same = segments[:, :, None] == segments[:, None, :]
        return same & (segments > 0)[:, None] & jnp.tri(segments.shape[1], k=1, dtype=bool)

    patch.setattr(qwen2, "causal_mask", mask)
    return stage, batch


def dialogues_see_each_other(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    return stage, batch | {"segments": np.minimum(batch["segments"], 1)}


def tied_head(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    return with_config(stage, tie_word_embeddings=True), batch


def mean_over_tokens(stage: Stage, batch: Batch, patch: Patch) -> tuple[Stage, Batch]:
    patch.setitem(losses.LOSSES, "round_balanced", losses.LOSSES["dialogue_token_mean"])
    return stage, batch


FORWARD: dict[str, tuple[Mutant, ...]] = {
    "supervised": (stop_token_dropped,),
    "embedding": (soft_token_of_the_next_event,),
    "norm": (norm_eps,),
    "projection": (lora_alpha,),
    "rotation": (rope_theta,),
    "attention": (mask_off_by_one, dialogues_see_each_other),
    "logits": (tied_head,),
    "loss": (mean_over_tokens,),
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """Parts of programs that were traced before would hide what a mutant changes in a module."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def first_above(found: Batch, made: Any) -> str:
    differences = plain.differences(found, made.reference, made.batch)
    wrong = above(differences, tolerances("float32"))
    return wrong[0].split()[0] if wrong else "none"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        pytest.param(check, mutant, id=mutant.__name__, marks=pytest.mark.long)
        for check, mutants in FORWARD.items()
        for mutant in mutants
    ],
)
def test_a_fault_of_the_forward_pass(
    check: str, mutant: Mutant, made: Any, monkeypatch: Patch
) -> None:
    stage, batch = mutant(made.stage, dict(made.batch), monkeypatch)
    assert first_above(ours.forward(stage, batch), made) == check


def test_a_batch_without_stop_tokens_is_seen_by_itself(made: Any, monkeypatch: Patch) -> None:
    """A run's reference is of the run's own batch: what counts in it is asked of its tokens."""
    recipe, trained = ours.recipe(made.stage), made.stage.trained
    whole = {name: np.float64(value) for name, value in trained.items()}
    _, batch = stop_token_dropped(made.stage, dict(made.batch), monkeypatch)
    for given, missing in ((made.batch, 0), (batch, (made.batch["tokens"] == small.STOP).sum())):
        found = plain.forward(np, recipe, made.base, whole, given)
        assert (found["supervised"] != (given["round_ids"] > 0)).sum() == missing


def no_gradient_of_rotations(patch: Patch) -> None:
    turn = qwen2.rope
    patch.setattr(qwen2, "rope", lambda x, angles: jax.lax.stop_gradient(turn(x, angles)))


@pytest.mark.long
@pytest.mark.usefixtures("fresh")
def test_a_fault_of_the_backward_pass_alone(made: Any, monkeypatch: Patch) -> None:
    no_gradient_of_rotations(monkeypatch)
    found = ours.ours(made.stage, made.batch)
    assert first_above(found, made) == "kinds"


def per_leaf(settings: optimizer.OptimizerSettings) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def clip(g: jax.Array) -> jax.Array:
            return g * jnp.minimum(1, settings.clip_norm / jnp.linalg.norm(g))

        return jax.tree.map(clip, gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_faults_of_the_optimizer(made: Any, monkeypatch: Patch) -> None:
    """Of the reference's gradient, so that what came before has no part in it."""
    prefix = "gradient "
    gradient = {
        name.removeprefix(prefix): value
        for name, value in made.reference.items()
        if name.startswith(prefix)
    }
    assert first_above(ours.updates(made.stage, gradient), made) == "none"
    with monkeypatch.context() as patch:  # clipping per leaf
        patch.setattr(optimizer, "bounded", per_leaf)
        assert first_above(ours.updates(made.stage, gradient), made) == "clipped"
    with monkeypatch.context() as patch:  # decay on biases
        patch.setattr(optimizer, "MATRICES", (*optimizer.MATRICES, "bias", "scale"))
        assert first_above(ours.updates(made.stage, gradient), made) == "update"
