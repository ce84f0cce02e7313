"""The stage table, what it refuses, the schedule, and the update against torch's AdamW."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.basics.errors import ConfigError
from bua_jax.training import optimizer
from bua_jax.training.optimizer import OptimizerSettings
from tests.support.helpers import require

VARIABLES = {
    "base": {"layers": {"norm": {"scale": jnp.ones((2, 3))}, "q": {"kernel": jnp.ones((2, 3, 3))}}},
    "adapter": {"layers": {"q": {"a": jnp.ones((2, 3, 1)), "b": jnp.ones((2, 1, 3))}}},
    "projector": {"out": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}},
    "encoder": {"embedding": jnp.ones((4, 3))},
}


@pytest.mark.parametrize(
    ("stage", "full", "groups"),
    [
        ("stage1", False, ("projector",)),
        ("stage2", False, ("projector", "adapter")),
        ("stage3", False, ("adapter",)),
        ("joint", False, ("projector", "adapter")),
        ("stage1", True, ("projector",)),
        ("stage2", True, ("projector", "base")),
        ("stage3", True, ("base",)),
    ],
)
def test_stage_table(stage: str, full: bool, groups: tuple[str, ...]) -> None:
    assert optimizer.trained_parts(stage, full_finetuning=full) == groups
    trainable, frozen = optimizer.partition(VARIABLES, groups)
    assert set(trainable) == set(groups)
    assert set(trainable) | set(frozen) == set(VARIABLES)
    assert not set(trainable) & set(frozen)
    state = optimizer.make_optimizer(trainable, OptimizerSettings(), 10).init(trainable)
    moments = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert moments == 2 * sum(x.size for x in jax.tree.leaves(trainable))  # none for frozen leaves


def test_what_the_table_refuses() -> None:
    with pytest.raises(ConfigError, match="stage4"):
        optimizer.trained_parts("stage4")
    with pytest.raises(ConfigError, match="'adapter', but the model has no such"):
        optimizer.partition({**VARIABLES, "adapter": {}}, ("adapter",))
    with pytest.raises(ConfigError, match="vision"):
        optimizer.partition({**VARIABLES, "vision": {"kernel": jnp.ones(1)}}, ("adapter",))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), VARIABLES["base"])
    with pytest.raises(ConfigError, match=r"bfloat16.*dtype=float32"):
        optimizer.partition({**VARIABLES, "base": half}, ("base",))
    optimizer.partition({**VARIABLES, "base": half}, ("adapter",))  # frozen ones may be half


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_schedule(steps: int) -> None:
    rate = optimizer.schedule(OptimizerSettings(), steps)
    warmup = max(1, round(0.03 * steps))
    np.testing.assert_allclose(rate(0), 1e-6, rtol=1e-4)
    np.testing.assert_allclose(rate(warmup), 5e-5, rtol=1e-4)
    np.testing.assert_allclose(rate(max(steps, warmup + 1)), 1e-6, rtol=1e-4)
    if steps == 1000:  # half-way through the cosine
        np.testing.assert_allclose(rate(515), (5e-5 + 1e-6) / 2, rtol=1e-4)


def test_decay_is_of_matrices() -> None:
    """A stacked norm scale has two axes like a matrix, and must not decay."""
    mask = optimizer.decayed(VARIABLES)
    assert not mask["base"]["layers"]["norm"]["scale"]
    assert not mask["projector"]["out"]["bias"]
    assert mask["base"]["layers"]["q"]["kernel"]
    assert mask["adapter"]["layers"]["q"] == {"a": True, "b": True}


def test_updates_equal_torch_adamw_with_clipping() -> None:
    torch = require("torch")
    steps, settings = 5, OptimizerSettings(peak_lr=1e-2, weight_decay=0.1, clip_norm=1.0)
    rng = np.random.default_rng(0)
    tree = {"projector": VARIABLES["projector"]}
    transform = optimizer.make_optimizer(tree, settings, steps)
    state, rate = transform.init(tree), optimizer.schedule(settings, steps)
    theirs = {
        k: torch.nn.Parameter(torch.ones(v.shape)) for k, v in tree["projector"]["out"].items()
    }
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs["kernel"]], "weight_decay": 0.1},
            {"params": [theirs["bias"]], "weight_decay": 0.0},
        ]
    )
    for step in range(steps):
        gradient = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in theirs.items()}
        updates, state = transform.update({"projector": {"out": gradient}}, state, tree)
        tree = jax.tree.map(jnp.add, tree, updates)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = float(rate(step))
        adamw.step()
    for name, parameter in theirs.items():  # five float32 updates of up to 1e-2
        np.testing.assert_allclose(tree["projector"]["out"][name], parameter.detach(), atol=1e-6)


def test_parts_may_have_rates_of_their_own() -> None:
    parts = {name: VARIABLES[name] for name in ("projector", "base")}
    ones = jax.tree.map(jnp.ones_like, parts)

    def moved(**rates: float) -> Any:
        settings = OptimizerSettings(weight_decay=0.0, rates=rates)
        transform = optimizer.make_optimizer(parts, settings, 10)
        return transform.update(ones, transform.init(parts), parts)[0]

    plain, own = moved(), moved(base=0.1)
    expected = {**plain, "base": jax.tree.map(lambda x: 0.1 * x, plain["base"])}
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), own, expected)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(own["base"])) > 0


def test_table_shows_counts(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer.print_parts(VARIABLES, ("projector",), "stage1")
    lines = capsys.readouterr().err.splitlines()
    assert any("projector" in line and "12" in line and "yes" in line for line in lines)
    assert any("base" in line and "24" in line and "no" in line for line in lines)
