"""PITuning: its attention and losses against torch, 64 windows by heart through all of its stages."""

import functools
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bua_jax.basics import config as configs
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import prediction_windows
from bua_jax.methods import pituning
from bua_jax.methods.protocol import Built, Data, Labelled, Site, cases_of
from bua_jax.models.pituning import IntentHead, PITuning
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.training.pituning import Population, unlearning_loss
from tests.methods.memory import FIRST, LENGTH, SETTINGS, memory_store, remembered
from tests.support.helpers import require

BLOCKS = Qwen2Config(8, 16, 32, 1, 2, 1, 8, rope_theta=1e4, dtype="float64")
SIZES = PITuning(37, 48, BLOCKS, 6, 0.5)


def drawn(tree: Any) -> Any:
    """The same shapes in float64, drawn."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float64), tree)


def head_params() -> Mapping[str, Any]:
    fields, segments = jnp.zeros((1, 2, 4), jnp.int32), jnp.ones((1, 2), jnp.int32)
    init = IntentHead(SIZES).init
    return drawn(jax.eval_shape(init, jax.random.key(0), fields, segments)["params"])


def test_the_intent_attention_equals_torch() -> None:
    """All of it written out for the last of five steps, of which two more are padding: float64."""
    torch = require("torch")
    with jax.enable_x64(True):
        params = head_params()
        states = np.random.default_rng(1).normal(size=(1, 7, 16))
        segments = jnp.asarray([[1, 1, 1, 1, 1, 0, 0]])
        given = jnp.asarray(states), segments
        found = IntentHead(SIZES).apply({"params": params}, *given, method="intended")
    p = jax.tree.map(lambda x: torch.tensor(np.asarray(x)), params)
    h, e = torch.tensor(states[0, :5]), p["intents"]
    steps, intents = h[None].expand(37, 5, 16), e[:, None].expand(37, 5, 16)
    joined = torch.cat([intents, intents * steps, steps], dim=-1)
    first = torch.cat([p["of_intent"]["kernel"], p["of_both"], p["of_step"]["kernel"]])
    hidden = joined @ first + p["of_step"]["bias"]
    hidden = torch.nn.functional.prelu(hidden, p["slope"])
    ago = torch.arange(4, -1, -1)  # steps before the last
    scores = (hidden @ p["score"]["kernel"])[..., 0] - p["recency"] * ago
    weights = torch.softmax(scores, dim=1)  # [C, steps]
    v = weights @ h
    last = torch.cat([p["step_value"], p["both_value"], p["intent_value"]["kernel"]])[:, 0]
    expected = torch.cat([v, e * v, e], dim=-1) @ last + p["bias"]
    np.testing.assert_allclose(found[0, 4], expected.numpy(), atol=1e-6)
    assert weights.std() > 0.01  # the attention is not even


def test_the_forget_term_equals_torch_and_is_capped() -> None:
    torch = require("torch")
    rng, classes, cap = np.random.default_rng(2), 5, 1.5 * math.log(5)
    student, teacher = (rng.normal(0, 2, (3, 4, classes)) for _ in range(2))
    student[0, 0] = [-9, 9, 0, 0, 0]  # far from its teacher: above the cap
    teacher[0, 0] = [9, -9, 0, 0, 0]
    mask, forgotten = rng.random((3, 4)) < 0.8, rng.random((3, 4)) < 0.5
    mask[0, 0] = forgotten[0, 0] = True
    with jax.enable_x64(True):

        def loss(student: jax.Array) -> jax.Array:
            seen = jnp.asarray(mask, int), jnp.asarray(forgotten)
            return unlearning_loss(student, jnp.asarray(teacher), *seen, 0.1, cap)

        found, slope = jax.value_and_grad(loss)(jnp.asarray(student))
    z, by = torch.tensor(student, requires_grad=True), torch.tensor(teacher)
    ce = torch.nn.functional.cross_entropy(
        z.reshape(-1, classes), by.softmax(-1).reshape(-1, classes), reduction="none"
    )
    keep, forget = (torch.tensor((mask & part).ravel()) for part in (~forgotten, forgotten))
    expected = ce[keep].mean() - 0.1 * torch.clamp(ce[forget], max=cap).mean()
    expected.backward()
    assert float(found) == pytest.approx(expected.item(), abs=1e-6)
    np.testing.assert_allclose(slope, z.grad.numpy(), atol=1e-6)
    assert ce[0].item() > cap
    assert not np.asarray(slope)[0, 0].any()  # no further than the cap


def test_behaviours_that_are_said_too_often_are_overlearnt() -> None:
    targets = np.asarray([0] * 5 + [1] * 5 + [2] * 2)
    predicted = np.asarray([0] * 6 + [1] * 5 + [3])
    # six of five are 1.2 times as many, and no more; 3 is said, and never comes
    assert pituning.overlearnt(predicted, targets, 4, 1.2).tolist() == [False, False, False, True]
    assert pituning.overlearnt(predicted, targets, 4, 1.1).tolist() == [True, False, False, True]


def test_hidden_events_are_recovered_from_what_is_left_of_them() -> None:
    store, rng = memory_store(), np.random.default_rng(0)
    with jax.enable_x64(True):
        variables = {"encoder": head_params(), "base": blocks_params()}
        states_of = jax.jit(functools.partial(SIZES.states, variables))
        fields = jnp.asarray(rng.integers(0, 7, (2, 6, 4)))
        other = fields.at[:, 3, 2:].add(1)  # another place and behaviour
        segments = jnp.ones((2, 6), int)
        hidden = jnp.zeros((2, 6), bool).at[:, 3].set(True)
        one, two = (states_of(each, segments, hidden) for each in (fields, other))
        np.testing.assert_array_equal(one, two)
        assert not np.allclose(states_of(other, segments, hidden & False)[:, 3:], one[:, 3:])
        batch = {"fields": fields, "mask": segments, "targets": fields[..., 3]}
        rows, key = jnp.ones((1, 37)), jax.random.key(0)

        def loss(masked: float) -> float:
            problem = Population(SIZES, store, SETTINGS, reconstruction=0.5, masked=masked)
            return float(jax.jit(problem.numerators)(variables, batch, rows, key)[0][0])

        states = states_of(fields, segments, hidden & False)
        ce = optax.softmax_cross_entropy_with_integer_labels
        plain = ce(SIZES.intended(variables, states, segments), batch["targets"]).mean()
        assert loss(0.0) == pytest.approx(float(plain), abs=1e-9)
        states = states_of(fields, segments, segments > 0)
        after = ce(SIZES.intended(variables, states, segments), batch["targets"]).mean()
        own = ce(SIZES.reconstructed(variables, states), fields[..., 3]).mean()
        assert loss(1.0) == pytest.approx(float(after + 0.5 * own), abs=1e-9)


def blocks_params() -> Any:
    """Of the blocks, without embeddings of words."""
    init, tokens = Qwen2(BLOCKS).init, jnp.zeros((1, 2), jnp.int32)
    params = jax.eval_shape(init, jax.random.key(0), tokens)["params"]
    return drawn({"layers": params["layers"], "norm": params["norm"]})


def labelled(store: EventStore) -> Labelled:
    windows = prediction_windows(store, "validation", history_length=LENGTH, min_history=FIRST)
    return Labelled(cases_of(store, windows, LENGTH), store.behaviour[windows.end].astype(int))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Where it is fitted to the lives of `memory_store`."""
    config = configs.load("configs/base.py")
    config.windows.prediction_history, config.windows.min_history = LENGTH, FIRST
    config.encoder.epochs, config.encoder.batch = 8, 4
    page = config.methods.pituning
    page.layers, page.hidden, page.masked, page.weight_decay = 1, 16, 0.05, 0.0
    page.peak_lr, page.block_lr = 5e-3, 4e-3
    return Site(config, tmp_path, {"fit/pituning": Built(tmp_path, config, {"blocks": 1})})


def fitted(site: Site, store: EventStore) -> Mapping[str, Any]:
    return pituning.METHOD.fit(site, Data(store, lambda name: labelled(store)))


@pytest.mark.long
def test_it_learns_64_windows_by_heart(site: Site) -> None:
    """Through all stages, what the last of them leaves."""
    store = memory_store()
    facts = fitted(site, store)
    assert facts["blocks"] == 1
    assert {folder.name for folder in site.folder.iterdir() if folder.is_dir()} == STAGES
    assert remembered(pituning.METHOD.load(site).probabilities, store) >= 0.95
    assert "pituning" not in configs.load("configs/quickstart.py").evaluation.methods


@pytest.mark.long
def test_cut_before_its_last_stage_it_comes_out_the_same(site: Site) -> None:
    """The stages before are not trained again: nothing is written into their folders."""
    store, file = memory_store(), site.folder / pituning.FILE
    site.config.encoder.epochs = 1
    facts = fitted(site, store)
    before = file.read_bytes()
    file.unlink()
    shutil.rmtree(site.folder / "tuning")
    logs = [site.folder / stage / "metrics.jsonl" for stage in ("population", "unlearning")]
    said = [log.read_bytes() for log in logs]
    assert fitted(site, store) == facts
    assert file.read_bytes() == before
    assert [log.read_bytes() for log in logs] == said


STAGES = {"population", "unlearning", "tuning"}
