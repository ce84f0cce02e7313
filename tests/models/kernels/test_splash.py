"""Splash attention, interpreted on the CPU, against xla's: values, gradients, meshes, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs

from bua_jax.basics.errors import ConfigError
from bua_jax.models import qwen2
from bua_jax.models.kernels.splash import check_splash, splash_attention
from bua_jax.models.qwen2 import Qwen2, attend
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support import tiny
from tests.support.attention import SPLASH_LENGTH as LENGTH
from tests.support.attention import check_meshes, interpreted, value_and_gradients
from tests.support.attention import splash_inputs as inputs

# The same float32 sums in another order, over up to 384 keys, and exponentials block by block.
TOLERANCE = 1e-5
XLA = functools.partial(attend, implementation="xla")


def test_values_and_gradients_are_those_of_xla() -> None:
    *qkv, segments = inputs(3)
    shifted = segments.at[:2, 149].set(2)  # the negative control: a border one token off
    assert (shifted != segments).sum() == 2
    found = value_and_gradients(interpreted, *qkv, segments)
    wrong = value_and_gradients(interpreted, *qkv, shifted)
    for name, expected in value_and_gradients(XLA, *qkv, segments).items():
        assert jnp.linalg.norm(expected) > 1, name
        assert tiny.relative(found[name], expected) <= TOLERANCE, name
        assert tiny.relative(wrong[name], expected) > 1000 * TOLERANCE, name


def kernels_in(jaxpr) -> int:
    """Pallas calls in a program, also within its loops and calls, if anything comes of these."""
    own = sum(eqn.primitive.name == "pallas_call" for eqn in jaxpr.eqns)
    return own + sum(kernels_in(part) for part in subjaxprs(jaxpr) if part.outvars)


@pytest.mark.parametrize(("remat", "kernels"), [("none", 3), ("dots", 3), ("full", 4)])
def test_a_model_with_splash(remat: str, kernels: int, monkeypatch) -> None:
    """The loss and its gradients; the forward kernel runs again in the backward pass in `full` only."""
    monkeypatch.setattr(qwen2, "splash_attention", interpreted)
    config = dataclasses.replace(tiny.QWEN, remat=remat)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 48, (2, 128)), jnp.int32)
    segments = jnp.asarray([[1] * 50 + [2] * 78, [1] * 100 + [0] * 28])
    params = tiny.model()[1]["base"]

    def loss(params, config: Qwen2Config):
        logits = Qwen2(config).apply({"params": params}, tokens, None, segments)
        return jnp.sum(jnp.square(logits) * (segments > 0)[..., None])

    splash = dataclasses.replace(config, attention="splash")
    gradient = jax.grad(loss)
    assert kernels_in(jax.make_jaxpr(lambda x: gradient(x, splash))(params).jaxpr) == kernels
    if remat == "dots":
        one, other = (jax.jit(lambda x, c=c: gradient(x, c))(params) for c in (splash, config))
        assert tiny.relative(one, other) <= TOLERANCE


def test_meshes_compute_what_one_device_does() -> None:
    check_meshes("splash", LENGTH, 8, TOLERANCE)


def test_what_is_refused_says_what_to_set() -> None:
    q, k, v, segments = inputs(1)
    with pytest.raises(ConfigError, match=r"row_length=383: .* to 384"):
        splash_attention(*(x[:, :383] for x in (q, k, v, segments)))
    with pytest.raises(ConfigError, match=r"on gpu: set --config.execution.attention=xla"):
        check_splash(512, "gpu")
    check_splash(512, "tpu")
