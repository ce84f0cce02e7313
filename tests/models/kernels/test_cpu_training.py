"""Training's attention on a CPU: values, gradients, remat, meshes, and where it is chosen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs

from bua_jax.alignment.parts import training_attention
from bua_jax.basics.errors import ConfigError
from bua_jax.models.kernels import cpu
from bua_jax.models.qwen2 import Qwen2, attend, causal_mask
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support import tiny
from tests.support.attention import check_meshes, value_and_gradients
from tests.support.attention import cpu_inputs as inputs
from tests.support.helpers import require_kernels

# Roundings of 2^-24 in sums over up to 300 keys, and in exponents; of norms of float64's values.
TOLERANCE = 5e-6
SIZES = dataclasses.replace(tiny.QWEN, head_dim=32, num_layers=2)
OURS = functools.partial(attend, implementation="cpu")


@pytest.fixture(autouse=True)
def kernels() -> None:
    require_kernels()


def of_jax_nn(q, k, v, segments):
    return jax.nn.dot_product_attention(q, k, v, mask=causal_mask(segments)[:, None])


# Shorter than a panel, one block of queries and a bit, several of them; groups; wider heads.
@pytest.mark.parametrize(
    ("length", "group", "width"), [(7, 1, 32), (100, 3, 32), (288, 2, 64), (300, 1, 96)]
)
def test_values_and_gradients_are_those_of_jax_nn(length: int, group: int, width: int) -> None:
    """In float64, which has no error to speak of; one token in another segment is noticed."""
    *qkv, segments = inputs(4, length, group, width)
    found = value_and_gradients(OURS, *qkv, segments)
    other = segments.copy()
    other[2, length // 2] = 9
    wrong = value_and_gradients(OURS, *qkv, other)
    with jax.enable_x64():
        exact = value_and_gradients(of_jax_nn, *(x.astype(np.float64) for x in qkv), segments)
        for name, expected in exact.items():
            assert jnp.linalg.norm(expected) > 1, name
            assert tiny.relative(found[name], expected) <= TOLERANCE, name
            assert tiny.relative(wrong[name], expected) > 1000 * TOLERANCE, name


def test_padding_gives_zeros() -> None:
    *qkv, segments = inputs(4, 100)
    y = OURS(*qkv, segments)
    assert not np.asarray(y)[segments == 0].any()
    assert np.asarray(y)[segments > 0].all()


def test_large_scores_stay_finite() -> None:
    """Scores in the thousands: all weight is on one key; exponentials of all others vanish."""
    q, k, v, segments = inputs(4, 100)
    found = value_and_gradients(OURS, 60 * q, 60 * k, v, segments)
    expected = value_and_gradients(of_jax_nn, 60 * q, 60 * k, v, segments)
    assert all(np.isfinite(x).all() for x in found.values())
    for name in ("y", "v"):
        assert tiny.relative(found[name], expected[name]) <= 1e-3, name  # scores to 2^-24 of 1e4


def test_a_row_computes_alike_in_any_company() -> None:
    """Bit for bit, gradients too: they do not depend on how rows are shared out to threads."""
    *arrays, segments = inputs(4, 200)
    together = value_and_gradients(OURS, *arrays, segments)
    for row in range(4):
        alone = value_and_gradients(
            OURS, *(x[row : row + 1] for x in arrays), segments[row : row + 1]
        )
        for name, value in alone.items():
            np.testing.assert_array_equal(value[0], together[name][row], err_msg=name)


def kernels_in(jaxpr) -> int:
    """Kernels in a program, also within its loops and calls, if anything comes of these."""
    own = sum(eqn.primitive.name == "ffi_call" for eqn in jaxpr.eqns)
    return own + sum(kernels_in(part) for part in subjaxprs(jaxpr) if part.outvars)


@pytest.mark.parametrize(("remat", "kernels"), [("none", 2), ("dots", 2), ("full", 3)])
def test_a_model_with_it(remat: str, kernels: int) -> None:
    """Gradients are those of a model with xla's; only `full` runs the forward kernel twice."""
    config = dataclasses.replace(SIZES, remat=remat)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 48, (2, 70)), jnp.int32)
    segments = jnp.asarray([[1] * 30 + [2] * 40, [1] * 50 + [0] * 20])
    params = Qwen2(config).init(jax.random.key(0), tokens)["params"]

    def loss(params, config: Qwen2Config):
        logits = Qwen2(config).apply({"params": params}, tokens, None, segments)
        return jnp.sum(jnp.square(logits) * (segments > 0)[..., None])

    ours = dataclasses.replace(config, attention="cpu")
    gradient = jax.grad(loss)
    assert kernels_in(jax.make_jaxpr(lambda x: gradient(x, ours))(params).jaxpr) == kernels
    one, other = (jax.jit(lambda x, c=c: gradient(x, c))(params) for c in (ours, config))
    assert tiny.relative(one, other) <= 10 * TOLERANCE  # two layers, both in float32


def test_meshes_compute_what_one_device_does() -> None:
    check_meshes("cpu", 70, 32, TOLERANCE)


def test_auto_is_ours_where_it_runs(monkeypatch) -> None:
    assert training_attention("auto", SIZES) == training_attention("cpu", SIZES) == "cpu"
    assert training_attention("splash", SIZES) == "splash"
    for lacking in ({"dtype": "bfloat16"}, {"head_dim": 8}):
        sizes = dataclasses.replace(SIZES, **lacking)
        assert training_attention("auto", sizes) == "xla"
        with pytest.raises(ConfigError, match=r"set --config.execution.attention=xla"):
            training_attention("cpu", sizes)
        with pytest.raises(ValueError, match="takes float32 and heads of a multiple of 32"):
            dataclasses.replace(sizes, attention="cpu")
    monkeypatch.setattr(cpu, "available", lambda: False)
    assert training_attention("auto", SIZES) == "xla"
