"""Qwen2 against transformers (torch, float32), and its own invariants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs

from bua_jax.interop import huggingface
from bua_jax.models import qwen2
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2
from bua_jax.models.qwen2_config import Qwen2Config
from tests.support.helpers import require

SMALL = Qwen2Config(97, 48, 64, 3, 6, 2, 8, rope_theta=1e4)
# Published totals of the checkpoints, in billions.
TOTALS = {
    "smollm2-135m": 0.1345,
    "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544,
    "qwen2.5-3b": 3.086,
    "qwen2.5-7b": 7.616,
    "qwen2.5-14b": 14.770,
    "qwen2.5-32b": 32.764,
    "qwen2.5-72b": 72.706,
}


def tokens_of(rows: int, length: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 97, (rows, length)), jnp.int32)


@pytest.fixture(scope="module")
def params():
    fresh = Qwen2(SMALL).init(jax.random.key(0), tokens_of(1, 4))["params"]
    # Larger weights than at initialisation, so that differences would show.
    return jax.tree.map(lambda x: x * 4 if x.ndim > 2 else x + 0.1, fresh)


@pytest.mark.parametrize(
    ("architecture", "hidden", "heads", "kv", "tied"),
    [("Qwen2", 48, 6, 2, True), ("Qwen2", 40, 5, 1, False), ("Llama", 48, 3, 3, False)],
)
def test_parity_with_transformers(architecture, hidden, heads, kv, tied, tmp_path):
    """Per layer and in logits; 1e-4 is float32 rounding through three layers."""
    torch, transformers = require("torch"), require("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=97,
        hidden_size=hidden,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    reference = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    reference.save_pretrained(tmp_path)
    ours, params = huggingface.load(tmp_path)
    tokens = tokens_of(2, 17)
    with torch.no_grad():
        expected = reference(torch.tensor(np.asarray(tokens)).long(), output_hidden_states=True)
    logits = Qwen2(ours).apply({"params": params}, tokens)
    assert np.abs(logits - expected.logits.numpy()).max() <= 1e-4

    for depth in range(1, ours.num_layers):
        cut = dataclasses.replace(ours, num_layers=depth)
        layers = jax.tree.map(lambda x, d=depth: x[:d], params["layers"])
        shallow = {**params, "layers": layers, "norm": {"scale": jnp.ones(hidden)}}
        embeddings = Qwen2(cut).apply({"params": shallow}, tokens, method="embed")
        positions = jnp.broadcast_to(jnp.arange(17), (2, 17))
        states = Qwen2(cut).apply(
            {"params": shallow}, embeddings, positions, jnp.ones_like(positions), method="hidden"
        )
        raw = expected.hidden_states[depth].numpy()
        normed = raw / np.sqrt((raw**2).mean(-1, keepdims=True) + ours.rms_norm_eps)
        assert np.abs(states - normed).max() <= 1e-4, depth


def test_causality_by_gradient(params):
    """No gradient of the logits at t reaches an embedding after t or in another segment."""
    segments = jnp.asarray([[1] * 5 + [2] * 4 + [0]])
    positions = jnp.asarray([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0]])
    embeddings = jax.random.normal(jax.random.key(1), (1, 10, 48))

    def at(e, t):
        states = Qwen2(SMALL).apply({"params": params}, e, positions, segments, method="hidden")
        return states[0, t].sum()

    for t in (2, 6):
        grad = np.abs(jax.grad(at)(embeddings, t)[0]).sum(-1)
        allowed = (np.arange(10) <= t) & (np.asarray(segments[0]) == segments[0, t])
        assert (grad[~allowed] == 0).all()
        assert (grad[allowed] > 0).all()


def test_padding_is_finite(params):
    logits = Qwen2(SMALL).apply({"params": params}, tokens_of(2, 8), None, jnp.zeros((2, 8), int))
    assert np.isfinite(logits).all()


def test_packed_segments_equal_separate_sequences(params):
    a, b = tokens_of(1, 6, 1), tokens_of(1, 5, 2)
    packed = jnp.concatenate([a, b], axis=1)
    segments = jnp.asarray([[1] * 6 + [2] * 5])
    positions = jnp.asarray([[*range(6), *range(5)]])
    model = Qwen2(SMALL)
    together = model.apply({"params": params}, packed, positions, segments)
    apart = [model.apply({"params": params}, x) for x in (a, b)]
    assert np.abs(together - jnp.concatenate(apart, axis=1)).max() < 1e-4


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """Of all arrays that a program makes, also within its loops and calls."""
    found = {v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "shape")}
    return found.union(*map(shapes_in, subjaxprs(jaxpr)))


def test_attention_by_blocks(params, monkeypatch):
    """Long rows: the same values and gradients as in one block, and nothing of all pairs."""
    length = 45
    tokens, model = tokens_of(2, length), Qwen2(dataclasses.replace(SMALL, dtype="float64"))
    segments = jnp.asarray([[1] * 20 + [2] * 25, [1] * 40 + [0] * 5])

    def loss(params):
        logits = model.apply({"params": params}, tokens, None, segments)
        return jnp.square(logits * (segments > 0)[..., None]).mean()

    with jax.enable_x64():
        wide = jax.tree.map(lambda x: x.astype("float64"), params)
        found, shapes = {}, {}
        for block in (16, length):
            monkeypatch.setattr(qwen2, "ATTENTION_BLOCK", block)
            found[block] = jax.jit(jax.value_and_grad(lambda x: loss(x)))(wide)
            program = jax.make_jaxpr(jax.grad(lambda x: loss(x)))(wide).jaxpr
            shapes[block] = {s for s in shapes_in(program) if s[-2:] == (length, length)}
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), *found.values()
        )
    scores = (2, SMALL.num_kv_heads, 3, length, length)
    assert scores in shapes[length]
    assert not shapes[16]


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_nothing(params, remat):
    model = Qwen2(dataclasses.replace(SMALL, remat=remat))
    expected = Qwen2(SMALL).apply({"params": params}, tokens_of(1, 7))
    assert np.abs(model.apply({"params": params}, tokens_of(1, 7)) - expected).max() < 1e-5


@pytest.mark.parametrize("name", TOTALS)
def test_presets_have_the_published_sizes(name):
    shapes = jax.eval_shape(Qwen2(PRESETS[name]).init, jax.random.key(0), tokens_of(1, 2))
    total = sum(x.size for x in jax.tree.leaves(shapes["params"])) / 1e9
    assert total == pytest.approx(TOTALS[name], rel=2e-3)


def test_nano_has_one_to_four_million_parameters():
    shapes = jax.eval_shape(Qwen2(PRESETS["nano"]).init, jax.random.key(0), tokens_of(1, 2))
    assert 1e6 < sum(x.size for x in jax.tree.leaves(shapes["params"])) < 4e6


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="kv heads"):
        dataclasses.replace(SMALL, num_kv_heads=4)
