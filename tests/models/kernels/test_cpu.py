"""The kernels for a CPU beside XLA and float64, and what happens without a compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.decoding import cache
from bua_jax.models.kernels import cpu
from bua_jax.models.qwen2 import rope, rope_angles
from tests.decoding.fakes import decoder
from tests.support.helpers import require_kernels


@pytest.fixture(autouse=True)
def kernels() -> None:
    require_kernels()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# More rows than a tile has, columns beyond the last panel, inputs beyond one part of a panel.
@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [(1, 8, 5), (3, 64, 96), (12, 100, 33), (13, 2500, 64), (40, 32, 1)],
)
@pytest.mark.parametrize("dtype", cpu.WEIGHT_TYPES)
def test_product_equals_float64(rows: int, depth: int, columns: int, dtype: str) -> None:
    """Within depth^1/2 roundings of 2^-24: sums of random signs; one input left out is noticed."""
    x, w = normal(rows, depth), normal(depth, columns, seed=1)
    exact = x.astype(np.float64) @ np.asarray(cpu.rounded(jnp.asarray(w), dtype), np.float64)
    tolerance = 2**-24 * depth**0.5 * 2

    def error(w: np.ndarray) -> float:
        found = jax.jit(lambda x, w: x @ w)(x, cpu.in_panels(w, dtype))
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    assert error(w) < tolerance
    assert error(np.where(np.arange(depth)[:, None] == depth - 1, 0, w)) > 100 * tolerance


def test_integers_are_those_of_qwix() -> None:
    """Symmetric, a scale per 32 inputs of a column; inputs that fill no group, and a column of zeros, too."""
    import qwix

    w = normal(96, 7)
    theirs = qwix.quantize(jnp.asarray(w), jnp.int8, channelwise_axes=(1,), tiled_axes={0: 32})
    np.testing.assert_allclose(
        cpu.rounded(jnp.asarray(w), "int8"), qwix.dequantize(theirs), rtol=1e-6
    )
    w[:, 2] = 0
    few = np.asarray(cpu.rounded(jnp.asarray(w[:40]), "int8"))
    assert (few[:, 2] == 0).all()
    half_steps = np.abs(w[32:40]).max(axis=0) / 127.5 / 2
    assert (np.abs(few[32:] - w[32:40]) <= half_steps * 1.001).all()
    assert (np.abs(few - w[:40]) > 0).any()


@pytest.mark.parametrize("dtype", cpu.WEIGHT_TYPES)
def test_a_row_is_multiplied_alike_in_any_company(dtype: str) -> None:
    """Bit for bit: decoding in batches then writes what single rows write."""
    x, w = jnp.asarray(normal(40, 96)), cpu.in_panels(normal(96, 70, seed=1), dtype)
    together = x @ w
    for row in range(40):
        np.testing.assert_array_equal(x[row : row + 1] @ w, together[row : row + 1])


def attention(tokens: int, group: int, wide: float = 1.0):
    """Inputs of `attend_in_place` for four rows: full, half full, one without new tokens, an empty one."""
    slots, heads, depth = 64, 2, 32
    q = normal(4, tokens, heads * group, depth) * wide
    k, v = (normal(4, tokens, heads, depth, seed=seed) for seed in (1, 2))
    past = normal(4, heads, depth, slots, seed=3), normal(4, heads, slots, depth, seed=4)
    lengths = np.asarray([slots - tokens, 29, 17, 0], np.int32)
    counts = np.asarray([tokens, tokens, 0, max(1, tokens - 2)], np.int32)
    angles = rope_angles(lengths[:, None] + jnp.arange(tokens), depth, 1e4)
    return [*map(jnp.asarray, (q, k, v)), angles, tuple(map(jnp.asarray, past)), lengths, counts]


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 30])
@pytest.mark.parametrize("wide", [1.0, 60.0])
def test_attention_equals_jax_nn(tokens: int, group: int, wide: float) -> None:
    """Against `jax.nn.dot_product_attention` of whole sequences.

    Within 1e-5 of values of about 1, and more as scores grow, which are rounded to 2^-24 of their size:
    in the hundreds (wide) all but a few weights vanish.
    """
    q, k, v, angles, past, lengths, counts = attention(tokens, group, wide)
    y, (keys, values) = jax.jit(cpu.attend_in_place)(q, k, v, angles, past, lengths, counts)
    q, k = rope(q, angles), rope(k, angles)
    for row, (begin, count) in enumerate(zip(lengths, counts, strict=True)):
        old_keys, old_values = np.array(past[0][row]), np.array(past[1][row])
        end = begin + count
        old_keys[:, :, begin:end] = k[row, :count].transpose(1, 2, 0)
        old_values[:, begin:end] = v[row, :count].transpose(1, 0, 2)
        # The rotation is rounded in another place; all else is as it was.
        np.testing.assert_allclose(keys[row], old_keys, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(keys[row][:, :, :begin], old_keys[:, :, :begin])
        np.testing.assert_array_equal(keys[row][:, :, end:], old_keys[:, :, end:])
        np.testing.assert_array_equal(values[row], old_values)
        assert not np.asarray(y[row, count:]).any()
        if not count:
            continue
        seen = np.arange(64) <= begin + np.arange(count)[:, None]

        def expected(seen: np.ndarray, row=row, count=count, keys=old_keys, values=old_values):
            whole = keys.transpose(2, 0, 1), values.transpose(1, 0, 2)
            mask = jnp.asarray(seen)[None, None]
            return jax.nn.dot_product_attention(
                q[row : row + 1, :count], *(x[None] for x in whole), mask=mask
            )[0]

        np.testing.assert_allclose(y[row, :count], expected(seen), atol=1e-5 * wide)
        if wide == 1.0 and begin:  # without the first slot it is another result
            assert np.abs(y[row, :count] - expected(seen & (np.arange(64) > 0))).max() > 1e-3


def test_among_new_tokens_a_mask_says_what_is_seen() -> None:
    """Against `jax.nn.dot_product_attention`, and unlike causal attention."""
    q, k, v, angles, past, lengths, _ = attention(20, 3)
    lengths, counts = np.minimum(lengths, 44), np.full(4, 20, np.int32)
    among = np.random.default_rng(0).random((20, 20)) < 0.3
    among |= np.eye(20, dtype=bool)
    y, (keys, values) = cpu.attend_in_place(
        q, k, v, angles, past, lengths, counts, jnp.asarray(among)
    )
    causal, _ = cpu.attend_in_place(q, k, v, angles, past, lengths, counts)
    seen = np.zeros((4, 20, 64), bool)
    for row, begin in enumerate(lengths):
        seen[row, :, :begin] = True
        seen[row, :, begin : begin + 20] = among
    whole = keys.transpose(0, 3, 1, 2), values.transpose(0, 2, 1, 3)
    expected = jax.nn.dot_product_attention(
        rope(q, angles), *whole, mask=jnp.asarray(seen)[:, None]
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert np.abs(causal - expected).max() > 0.1


@pytest.mark.parametrize("tokens", [1, 30])
def test_a_row_attends_alike_in_any_company(tokens: int) -> None:
    """Bit for bit, as its products."""
    q, k, v, angles, past, lengths, counts = attention(tokens, 3)
    together, _ = cpu.attend_in_place(q, k, v, angles, past, lengths, counts)
    for row in range(4):
        one = slice(row, row + 1)
        own, old = ((pair[0][one], pair[1][one]) for pair in (angles, past))
        y, _ = cpu.attend_in_place(q[one], k[one], v[one], own, old, lengths[one], counts[one])
        np.testing.assert_array_equal(y, together[one])


def test_tokens_beyond_the_cache_are_dropped() -> None:
    q, k, v, angles, past, _, _ = attention(2, 1)
    lengths, counts = np.asarray([63, 64, 0, 70], np.int32), np.full(4, 2, np.int32)
    y, (keys, values) = cpu.attend_in_place(q, k, v, angles, past, lengths, counts)
    np.testing.assert_allclose(keys[0, :, :, 63], rope(k, angles)[0, 0], atol=1e-6)
    for row in (1, 3):
        np.testing.assert_array_equal(keys[row], past[0][row])
        np.testing.assert_array_equal(values[row], past[1][row])
    assert np.isfinite(y).all()


def test_caches_are_not_copied() -> None:
    """A donated cache stays where it is through a loop of steps."""
    one = decoder(2)
    rows = cache.empty_rows(one.model, 2, 64, "float32")

    def steps(weights, rows):
        def step(_, rows):
            return cache.extend(one.model, weights, rows, rows.hidden[:, None], jnp.ones(2, int))

        return jax.lax.fori_loop(0, 3, step, rows)

    compiled = jax.jit(steps, donate_argnums=1).lower(one.weights, rows).compile().as_text()
    shape = ",".join(map(str, rows.caches[0].k.shape))
    copies = [line for line in compiled.splitlines() if " copy(" in line and f"[{shape}]" in line]
    assert "custom-call" in compiled
    assert not copies


@pytest.mark.parametrize(
    ("compiler", "said"), [("no-such-c++", "no C++ compiler"), ("false", "was not compiled")]
)
def test_without_a_compiler_xla_does_it(monkeypatch, tmp_path, capsys, compiler, said) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    cpu._library.cache_clear()
    try:
        assert not cpu.available()
        one = decoder(1)
        assert isinstance(one.weights["head"], jax.Array)
        assert said in capsys.readouterr().err
    finally:
        cpu._library.cache_clear()


def test_a_library_that_may_not_be_executed_is_done_without(monkeypatch, tmp_path, capsys) -> None:
    """As in a home that is mounted noexec, such as a container's --tmpfs."""
    require_kernels()
    library = cpu._library()
    assert library is not None
    folder = tmp_path / ".cache" / "bua_jax"
    folder.mkdir(parents=True)
    (folder / library.name).write_bytes(b"no library")
    files.write_hash(folder / library.name)
    monkeypatch.setenv("HOME", str(tmp_path))
    cpu._library.cache_clear()
    try:
        assert not cpu.available()
        assert "was not loaded" in capsys.readouterr().err
    finally:
        cpu._library.cache_clear()


def test_a_library_that_was_cut_is_compiled_anew(monkeypatch, tmp_path, capsys) -> None:
    """Loading it would kill the process (SIGBUS)."""
    require_kernels()
    library = cpu._library()
    assert library is not None
    folder = tmp_path / ".cache" / "bua_jax"
    folder.mkdir(parents=True)
    beside = library.name + ".sha256"
    (folder / beside).write_bytes((library.parent / beside).read_bytes())
    for size in (0, 4096):
        (folder / library.name).write_bytes(library.read_bytes()[:size])
        assert not files.is_whole(folder / library.name)
    monkeypatch.setenv("HOME", str(tmp_path))
    cpu._library.cache_clear()
    try:
        assert cpu._library() == folder / library.name
        assert "was cut or altered" in capsys.readouterr().err
        assert files.is_whole(folder / library.name)
        assert (folder / library.name).stat().st_size > 50_000
    finally:
        cpu._library.cache_clear()


def test_the_flag_of_decoding_verbs_names_the_types() -> None:
    if "weights" not in flags.FLAGS:
        cli.define_weights()
    assert tuple(flags.FLAGS["weights"].parser.enum_values) == cpu.WEIGHT_TYPES  # type: ignore[attr-defined]
