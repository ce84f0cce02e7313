"""Sizes and numerics of a language model."""

from dataclasses import dataclass

import jax

from bua_jax.models.kernels.cpu import attends_within

REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    # Of a projection its sum with the adapter's product, not both of them.
    "dots": jax.checkpoint_policies.save_only_these_names("projection", "attention"),
}
ATTENTION = ("xla", "cpu", "cudnn", "splash")
DTYPES = ("float32", "bfloat16")  # of a base in a run


@dataclass(frozen=True)
class Qwen2Config:
    """Sizes and numerics; field names follow Hugging Face's where they have one."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    qkv_bias: bool = True
    max_positions: int = 32768
    dtype: str = "float32"
    remat: str = "none"  # none, dots, full
    attention: str = "xla"  # of `ATTENTION`

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads do not divide into {self.num_kv_heads} kv heads."
            )
        if self.remat not in ("none", *REMAT) or self.attention not in ATTENTION:
            raise ValueError(f"Unknown remat {self.remat!r} or attention {self.attention!r}.")
        if self.attention == "cpu" and not attends_within(self.dtype, self.head_dim):
            raise ValueError(
                f"Attention 'cpu' takes float32 and heads of a multiple of 32, not {self.dtype} and "
                f"{self.head_dim}."
            )
