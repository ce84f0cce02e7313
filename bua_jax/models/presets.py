"""Sizes of the supported models (their published config.json)."""

from bua_jax.models.qwen2_config import Qwen2Config


def _qwen(hidden, intermediate, layers, heads, kv, vocab=151936, tied=False) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=hidden // heads,
        tie_word_embeddings=tied,
        max_positions=32768,
    )


PRESETS: dict[str, Qwen2Config] = {
    "nano": Qwen2Config(3072, 160, 384, 6, 6, 2, 32, rope_theta=1e4, max_positions=2048),
    "smollm2-135m": Qwen2Config(
        49152,
        576,
        1536,
        30,
        9,
        3,
        64,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
        qkv_bias=False,
        max_positions=8192,
    ),
    "qwen2.5-0.5b": _qwen(896, 4864, 24, 14, 2, tied=True),
    "qwen2.5-1.5b": _qwen(1536, 8960, 28, 12, 2, tied=True),
    "qwen2.5-3b": _qwen(2048, 11008, 36, 16, 2, tied=True),
    "qwen2.5-7b": _qwen(3584, 18944, 28, 28, 4, vocab=152064),
    "qwen2.5-14b": _qwen(5120, 13824, 48, 40, 8, vocab=152064),
    "qwen2.5-32b": _qwen(5120, 27648, 64, 40, 8, vocab=152064),
    "qwen2.5-72b": _qwen(8192, 29568, 80, 64, 8, vocab=152064),
}
