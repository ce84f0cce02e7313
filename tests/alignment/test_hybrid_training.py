"""CoLLM's logit, LLaRA's ramp and A-LLMRec's first stage, in numpy; a projector that rests."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bua_jax.feed.batches import one_per_row
from bua_jax.models import two_stage
from bua_jax.training.dialogues import batch_losses
from bua_jax.training.hybrid import RampBatches, hybrid_share, is_hybrid, single_logit
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer
from tests.support import tiny

STEPS, INERT = 40, 5


# ------------------------------------------------------------------------------------ single logit


def test_the_single_logits_loss_equals_numpy() -> None:
    """-log sigmoid(z) where yes is right, -log(1 - sigmoid(z)) elsewhere; no other logit counts."""
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(0, 4, (5, 7, 11)), rng.choice([3, 6], (5, 7))
    with jax.enable_x64(True):
        loss = single_logit(3)
        found, slope = jax.value_and_grad(lambda x: loss(x, jnp.asarray(tokens)).sum())(logits)
        each = loss(jnp.asarray(logits), jnp.asarray(tokens))
    sigmoid = 1 / (1 + np.exp(-logits[..., 3]))
    expected = -np.where(tokens == 3, np.log(sigmoid), np.log(1 - sigmoid))
    np.testing.assert_allclose(each, expected, atol=1e-6)
    assert float(found) == pytest.approx(expected.sum(), abs=1e-6)
    np.testing.assert_allclose(slope[..., 3], sigmoid - (tokens == 3), atol=1e-6)
    assert not np.delete(slope, 3, axis=-1).any()
    softmax = -jax.nn.log_softmax(logits[..., [3, 6]])[..., 0]  # what TALLRec's original does
    assert np.abs(softmax - expected)[tokens == 3].max() > 0.1


def test_it_is_the_loss_of_the_supervised_token() -> None:
    """Through the whole model: the same logits, the other loss, and nothing where nothing is supervised."""
    model, variables = tiny.model()
    records = tiny.records(6)
    plan, batch = tiny.plan(records), one_per_row(records, 64)

    @functools.partial(jax.jit, static_argnums=0)
    def losses(loss: Any) -> jax.Array:
        return batch_losses(model, variables, batch, plan, loss)[0]

    plain, found = losses(None), losses(single_logit(1))
    wanted = batch["round_ids"] > 0
    assert not np.asarray(found)[~wanted].any()
    is_yes = batch["tokens"][wanted] == 1
    assert 0 < is_yes.sum() < len(is_yes)
    assert (np.asarray(found)[wanted] > 0).all()
    assert np.abs(np.asarray(found - plain))[wanted].min() > 1e-4


# -------------------------------------------------------------------------------------------- ramp


class Counting:
    """Batches of soft tokens that know how many came before."""

    def __init__(self) -> None:
        self.count = 0

    def __next__(self) -> Mapping[str, np.ndarray]:
        self.count += 1
        tokens = np.asarray([[7, tiny.SOFT, 8, tiny.SOFT, self.count + 10]], np.int32)
        return {"tokens": tokens, "soft_index": np.asarray([[0, 0, 0, 1, 0]], np.int32)}

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    def close(self) -> None:
        self.count = -1


def ramp(seed: int = 0) -> RampBatches:
    return RampBatches(Counting(), STEPS, seed, tiny.SOFT, INERT)


def test_the_ramp_equals_numpy() -> None:
    """The share is the step's place in the run; that of batches over many runs is the share."""
    shares = [hybrid_share(step, STEPS) for step in range(STEPS + 5)]
    expected = np.clip(np.arange(STEPS + 5) / STEPS, 0, 1)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    drawn = np.asarray([[is_hybrid(s, STEPS, seed) for s in range(STEPS)] for seed in range(400)])
    assert not drawn[:, 0].any()
    error = np.sqrt(expected[:STEPS] * (1 - expected[:STEPS]) / 400)
    assert (np.abs(drawn.mean(0) - expected[:STEPS]) <= 4 * error + 1e-9).all()
    assert np.abs(drawn.mean(0) - 0.5).max() > 0.4  # no coin that is the same all along


def test_a_batch_of_words_has_an_inert_token_for_each_soft_one() -> None:
    for step, batch in enumerate(itertools.islice(ramp(), STEPS)):
        soft = is_hybrid(step, STEPS, 0)
        one = tiny.SOFT if soft else INERT
        assert batch["tokens"].tolist() == [[7, one, 8, one, step + 11]]
        assert batch["soft_index"].tolist() == [[0, 0, 0, 1, 0]]


def test_a_ramp_goes_on_where_it_was() -> None:
    whole = [batch["tokens"].tolist() for batch in itertools.islice(ramp(), STEPS)]
    for cut in (1, 17, STEPS - 1):
        first = ramp()
        for _ in range(cut):
            next(first)
        again = ramp()
        again.set_state(first.get_state())
        left = [batch["tokens"].tolist() for batch in itertools.islice(again, STEPS - cut)]
        assert left == whole[cut:]
    assert [b["tokens"].tolist() for b in itertools.islice(ramp(1), STEPS)] != whole


# ------------------------------------------------------------------------------ a projector at rest


def gradient(words: bool) -> Any:
    """Of the projector and the adapter, on a batch in words alone or with soft tokens."""
    model, variables = tiny.model()
    records = tiny.records(4)
    batch, plan = one_per_row(records, 64), tiny.plan(records)
    if words:
        batch["tokens"] = np.where(batch["tokens"] == tiny.SOFT, INERT, batch["tokens"])

    def loss(trained: Any) -> jax.Array:
        return batch_losses(model, {**variables, **trained}, batch, plan)[0].sum()

    return jax.jit(jax.grad(loss))({name: variables[name] for name in ("projector", "adapter")})


def test_in_words_the_projectors_gradient_is_exactly_zero() -> None:
    words, hybrid = gradient(True), gradient(False)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(words["projector"]))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(hybrid["projector"]))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(words["adapter"]))


@pytest.mark.parametrize("paused", [("projector",), ()])
def test_a_paused_part_rests_where_it_has_no_gradient(paused: tuple[str, ...]) -> None:
    """Neither moments nor decay move it, the rate goes on; without that Adam's moments carry it away."""
    tree = {"kernel": jnp.full((2, 2), 3.0)}
    trainable = {"projector": tree, "adapter": {"a": jnp.ones((2, 2))}}
    settings = OptimizerSettings(peak_lr=0.1, weight_decay=0.1, paused=paused)
    how = make_optimizer(trainable, settings, 8)
    state, values, seen = how.init(trainable), trainable, []
    for step in range(8):
        there = step in (1, 2, 6)
        given = {
            "projector": {"kernel": jnp.full((2, 2), 0.1 + 0.1 * step) * there},
            "adapter": {"a": jnp.full((2, 2), 0.2)},
        }
        updates, state = how.update(given, state, values)
        moved = optax.apply_updates(values, updates)
        seen.append(not np.array_equal(moved["projector"]["kernel"], values["projector"]["kernel"]))
        assert not np.array_equal(moved["adapter"]["a"], values["adapter"]["a"])
        values = moved
    assert seen == ([step in (1, 2, 6) for step in range(8)] if paused else [True] * 8)


def test_where_there_is_always_a_gradient_pausing_changes_nothing() -> None:
    values = {"projector": {"kernel": jnp.full((2, 2), 3.0)}}
    found = []
    for paused in (("projector",), ()):
        settings = OptimizerSettings(peak_lr=0.1, weight_decay=0.1, paused=paused)
        how, now = make_optimizer(values, settings, 6), values
        state = how.init(values)
        for step in range(6):
            given = {"projector": {"kernel": jnp.full((2, 2), 0.5 - 0.2 * step)}}
            updates, state = how.update(given, state, now)
            now = optax.apply_updates(now, updates)
        found.append(np.asarray(now["projector"]["kernel"]))
    np.testing.assert_array_equal(*found)


# --------------------------------------------------------------------------- A-LLMRec's first stage


@pytest.mark.parametrize("right", [True, False])
def test_the_alignment_loss_equals_numpy(right: bool) -> None:
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda x: rng.normal(0, 0.3, x.shape), two_stage.init(jax.random.key(0), 6, 9)
        )
        h, item, text = rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), rng.normal(size=(4, 9))
        found = two_stage.alignment_loss(params, *map(jnp.asarray, (h, item, text)), right)

    def coded(x: np.ndarray, name: str) -> np.ndarray:
        layer = params[name]["encode"]
        return 1 / (1 + np.exp(-(x @ layer["kernel"] + layer["bias"])))

    def decoded(code: np.ndarray, name: str) -> np.ndarray:
        return code @ params[name]["decode"]["kernel"] + params[name]["decode"]["bias"]

    e, q = coded(item, "item"), coded(text, "text")
    p = 1 / (1 + np.exp(-(h * decoded(e, "item")).sum(1) / 6))
    expected = -np.log(p if right else 1 - p) + ((e - q) ** 2).mean(1)
    expected += 0.5 * ((decoded(e, "item") - item) ** 2).mean(1)
    expected += 0.2 * ((decoded(q, "text") - text) ** 2).mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
