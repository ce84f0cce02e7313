"""Qwen2.5 (and, without qkv bias, the Llama block) in Flax Linen, layers stacked by `nn.scan`.

Source: the Qwen2 technical report and the parameter layout of Hugging Face's `Qwen2ForCausalLM`.
Training, prefill and decoding share `Block`; LoRA is the variable collection "lora".
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from bua_jax.models.kernels.cpu import Panels, attend_in_place, attend_within
from bua_jax.models.kernels.splash import splash_attention
from bua_jax.models.lora import LoraConfig
from bua_jax.models.quantization import is_quantized, plain
from bua_jax.models.qwen2_config import REMAT, Qwen2Config
from bua_jax.parallel.rows import attend_by_shards, by_rows

_MASKED = -1e30
ATTENTION_BLOCK = 128  # queries that are scored at once


class KVCache(NamedTuple):
    """Keys and values of one layer: k [B, kv_heads, head_dim, S], v [B, kv_heads, S, head_dim].

    Keys are stored transposed: a CPU reads them three times as fast in `attend_past`. In int8 each
    has a scale per head and slot, float32[B, kv_heads, S]; else the scales are None.
    """

    k: jax.Array
    v: jax.Array
    k_scale: jax.Array | None = None
    v_scale: jax.Array | None = None


def wide(x: jax.Array) -> jax.Array:
    """x in float32 if it is narrower: what is summed or exponentiated must not be bfloat16."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class RMSNorm(nn.Module):
    """x / rms(x) * scale, in at least float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), x.dtype)
        x_wide = wide(x)
        normed = x_wide * jax.lax.rsqrt(jnp.mean(x_wide**2, axis=-1, keepdims=True) + self.eps)
        return scale * normed.astype(x.dtype)


class Projection(nn.Module):
    """x W (+ bias) plus the low-rank product of the adapter where there is one."""

    features: int
    use_bias: bool
    lora: LoraConfig | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.normal(0.02)
        kernel: Any = self.get_variable("params", "kernel")
        if is_quantized(kernel):
            kernel = plain(kernel, x.dtype)
        elif not isinstance(kernel, Panels):
            kernel = self.param("kernel", init, (x.shape[-1], self.features), x.dtype)
        shape, x = x.shape, x.reshape(-1, x.shape[-1])  # one GEMM, also for the kernel's gradient
        y = by_rows(x @ kernel)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        if self.lora is not None and self.has_variable("lora", "a"):
            a: jax.Array = self.get_variable("lora", "a")
            b: jax.Array = self.get_variable("lora", "b")
            low = checkpoint_name(x.astype(a.dtype) @ a, "projection") @ b * self.lora.scale
            y = (y.astype(low.dtype) + low).astype(x.dtype)
        return checkpoint_name(y, "projection").reshape(*shape[:-1], self.features)


def rope_angles(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines float32[B, T, head_dim / 2] of the rotations at positions int32[B, T]."""
    half = head_dim // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rope(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates x [B, T, heads, head_dim] by `rope_angles` (half-split convention)."""
    cos, sin = (part[:, :, None] for part in angles)
    first, second = jnp.split(wide(x), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, implementation: str
) -> jax.Array:
    """Grouped-query attention, causal within segments int32[B,T]; 0 is padding.

    q [B,T,N,D], k and v [B,T,K,D] -> [B,T,N,D], finite and meaningless for padding. xla goes over
    blocks of queries, each with the keys up to its end, and computes mask and scores again in the
    backward pass: neither a mask [B,T,T] nor scores [B,N,T,T] are ever made.
    """
    if implementation == "splash":
        return splash_attention(q, k, v, segments)
    if implementation == "cpu":
        return attend_by_shards(attend_within, q, k, v, segments)
    if implementation == "cudnn":
        mask = causal_mask(segments)
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="cudnn")
    block: Any = jax.checkpoint(_attend_block, prevent_cse=False)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    parts = []
    for begin in range(0, q.shape[1], ATTENTION_BLOCK):
        end = min(begin + ATTENTION_BLOCK, q.shape[1])
        parts.append(block(q[:, begin:end], k[:, :, :end], v[:, :, :end], segments[:, :end]))
    return checkpoint_name(jnp.concatenate(parts, axis=1), "attention")


def _attend_block(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """The last T of S queries: q [B,T,N,D], k and v [B,K,S,D], segments int32[B,S] -> [B,T,N,D]."""
    b, t, n, d = q.shape
    kv, s = k.shape[1], k.shape[2]
    mask = causal_mask(segments, last=t)
    kind = jnp.promote_types(q.dtype, jnp.float32)
    # Heads go before time: batched GEMMs over (b, kv head), with a kv head's queries as rows.
    q = q.reshape(b, t, kv, n // kv, d).transpose(0, 2, 3, 1, 4).reshape(b, kv, -1, d)
    logits = jnp.einsum("bkqd,bksd->bkqs", q, k, preferred_element_type=kind) * d**-0.5
    logits = jnp.where(mask[:, None, None], logits.reshape(b, kv, -1, t, s), _MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype).reshape(b, kv, -1, s)
    y = jnp.einsum("bkqs,bksd->bkqd", weights, v).reshape(b, kv, n // kv, t, d)
    return y.transpose(0, 3, 1, 2, 4).reshape(b, t, n, d)


def attend_past(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    past: KVCache,
    lengths: jax.Array,
) -> jax.Array:
    """`attend` to new tokens (k, v [B,K,T,D] under mask bool[B,T,T]) and to the past of each row.

    q [B,T,N,D]; lengths int32[B] are the valid slots of the past. The past is only read, so that a
    loop can keep it in place. Returns [B,T,N,D].
    """
    b, t, n, d = q.shape
    kv, s = k.shape[1], past.v.shape[2]
    kind = jnp.promote_types(q.dtype, jnp.float32)
    q = q.reshape(b, t, kv, n // kv, d).transpose(0, 2, 3, 1, 4).reshape(b, kv, -1, d) * d**-0.5
    old = jnp.einsum("bkqd,bkds->bkqs", q, past.k.astype(q.dtype), preferred_element_type=kind)
    if past.k_scale is not None:
        old *= past.k_scale[:, :, None]
    old = jnp.where((jnp.arange(s) < lengths[:, None])[:, None, None], old, _MASKED)
    new = jnp.einsum("bkqd,bktd->bkqt", q, k, preferred_element_type=kind)
    new = jnp.where(mask[:, None, None], new.reshape(b, kv, -1, t, t), _MASKED)
    new = new.reshape(b, kv, -1, t)
    highest = jnp.maximum(old.max(-1), new.max(-1))[..., None]
    old, new = jnp.exp(old - highest), jnp.exp(new - highest)
    total = (old.sum(-1) + new.sum(-1))[..., None]
    if past.v_scale is not None:
        old *= past.v_scale[:, :, None]
    y = jnp.einsum("bkqs,bksd->bkqd", old.astype(v.dtype), past.v.astype(v.dtype))
    y = (y + jnp.einsum("bkqt,bktd->bkqd", new.astype(v.dtype), v)) / total
    y = y.astype(v.dtype).reshape(b, kv, n // kv, t, d)
    return y.transpose(0, 3, 1, 2, 4).reshape(b, t, n, d)


class Attention(nn.Module):
    """Grouped-query attention of a layer: x [B, T, H] -> ([B, T, H], keys and values); see `Block`."""

    config: Qwen2Config
    lora: LoraConfig | None

    @nn.compact
    def __call__(self, x, positions, segments, mask, past, lengths, counts):
        c = self.config
        b, t, _ = x.shape

        def project(name: str, heads: int) -> jax.Array:
            y = Projection(heads * c.head_dim, c.qkv_bias, self.lora, name=name)(x)
            return y.reshape(b, t, heads, c.head_dim)

        q = project("q_proj", c.num_heads)
        k, v = project("k_proj", c.num_kv_heads), project("v_proj", c.num_kv_heads)
        angles = rope_angles(positions, c.head_dim, c.rope_theta)
        if counts is not None:
            y, new = attend_in_place(q, k, v, angles, past[:2], lengths, counts, mask)
        else:
            q, k = rope(q, angles), rope(k, angles)
            if past is None:
                y, new = attend(q, k, v, segments, c.attention), None
            else:
                new = (k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3))
                y = attend_past(q, *new, mask, past, lengths)
        y = y.reshape(b, t, c.num_heads * c.head_dim)
        return Projection(c.hidden_size, False, self.lora, name="o_proj")(y), new


class Mlp(nn.Module):
    """The gated feed-forward part of a layer: [..., H] -> [..., H]."""

    config: Qwen2Config
    lora: LoraConfig | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        gate = Projection(c.intermediate_size, False, self.lora, name="gate_proj")(x)
        up = Projection(c.intermediate_size, False, self.lora, name="up_proj")(x)
        return Projection(c.hidden_size, False, self.lora, name="down_proj")(nn.silu(gate) * up)


class Block(nn.Module):
    """One decoder layer: x [B, T, H] -> (x, None), causal within segments int32[B, T].

    positions: int32[B, T]. With a past there are no segments: mask bool[B, T, T] says to which of the
    T tokens each attends, and the lengths int32[B] first slots of the past are attended to as well. It
    then returns (x, (k, v)) of its own tokens, [B, kv_heads, T, head_dim] each. With counts int32[B],
    so many tokens of each row are appended to the past, which is returned: (x, (k, v)) of the cache; the
    mask is then bool[T, T], or None for a causal one.
    """

    config: Qwen2Config
    lora: LoraConfig | None

    @nn.compact
    def __call__(
        self, x, positions, segments=None, *, mask=None, past=None, lengths=None, counts=None
    ):
        eps = self.config.rms_norm_eps
        x = by_rows(x)
        attention = Attention(self.config, self.lora, name="self_attn")
        normed = RMSNorm(eps, name="input_layernorm")(x)
        y, new = attention(normed, positions, segments, mask, past, lengths, counts)
        x = x + y
        normed = RMSNorm(eps, name="post_attention_layernorm")(x)
        return x + Mlp(self.config, self.lora, name="mlp")(normed), new


class Qwen2(nn.Module):
    """The language model. Parameters: embed_tokens, layers (stacked), norm[, lm_head]."""

    config: Qwen2Config
    lora: LoraConfig | None = None

    def setup(self) -> None:
        """Names the modules below; flax calls it."""
        c = self.config
        self.embed_tokens = nn.Embed(
            c.vocab_size,
            c.hidden_size,
            dtype=c.dtype,
            param_dtype=c.dtype,
            embedding_init=nn.initializers.normal(0.02),
        )
        block: Any = Block
        if c.remat != "none":
            block = nn.remat(Block, policy=REMAT[c.remat], prevent_cse=False)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=c.num_layers,
        )(c, self.lora)
        self.norm = RMSNorm(c.rms_norm_eps)
        if not c.tie_word_embeddings:
            self.lm_head = nn.Dense(
                c.vocab_size,
                use_bias=False,
                dtype=c.dtype,
                param_dtype=c.dtype,
                kernel_init=nn.initializers.normal(0.02),
            )

    def embed(self, tokens: jax.Array) -> jax.Array:
        """tokens: int32[B, T] -> [B, T, H]."""
        x, rows = self.embed_tokens(tokens), self._rows()
        if rows is None:
            return x
        assert self.lora is not None
        row_of = np.full(self.config.vocab_size, -1, np.int32)
        row_of[list(self.lora.tokens)] = np.arange(len(self.lora.tokens))
        row = jnp.asarray(row_of)[tokens]
        return jnp.where(row[..., None] >= 0, rows[row], x)

    def _rows(self) -> jax.Array | None:
        """The adapter's rows of the embedding [N, H], rounded as the embedding is; None if it has none."""
        if self.lora is None or not self.lora.tokens or not self.has_variable("lora", "rows"):
            return None
        rows: jax.Array = self.get_variable("lora", "rows")
        return rows.astype(self.config.dtype)

    def hidden(self, embeddings: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Final hidden states [B, T, H], after the last norm, of `embeddings` [B, T, H].

        positions and segments (0 = padding): int32[B, T]; causal within a segment.
        """
        x, _ = self.layers(embeddings, positions, segments)
        return self.norm(x)

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """[..., H] -> logits [..., V], float32 (float64 where the model is)."""
        if self.config.tie_word_embeddings:
            table = self.embed_tokens.embedding
            kind = jnp.promote_types(hidden.dtype, jnp.float32)
            scores = functools.partial(jnp.einsum, "...h,vh->...v", preferred_element_type=kind)
            logits, rows = scores(hidden, table), self._rows()
            if rows is None:
                return logits
            assert self.lora is not None
            return logits.at[..., jnp.asarray(self.lora.tokens)].set(scores(hidden, rows))
        return wide(self.lm_head(hidden))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """tokens: int32[B, T] -> logits float32[B, T, V]; causal, and within `segments` if given."""
        b, t = tokens.shape
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(t), (b, t))
        if segments is None:
            segments = jnp.ones((b, t), jnp.int32)
        hidden = self.hidden(self.embed(tokens), positions, segments)
        return self.unembed(hidden)


def causal_mask(segments: jax.Array, last: int | None = None) -> jax.Array:
    """segments: int32[B, T] (0 = padding) -> bool[B, T, T]: same segment and not later.

    `last`: of that many last tokens only, bool[B, last, T].
    """
    t = segments.shape[1]
    first = 0 if last is None else t - last
    same = segments[:, first:, None] == segments[:, None, :]
    return same & (segments > 0)[:, None, :] & jnp.tril(jnp.ones((t - first, t), bool), first)
