"""llama.cpp as a peer of `bench decode`, through llama-cpp-python's bindings (extra `llama-cpp`).

float32 weights and cache, as many threads as cores, and no flash attention, which rounds to float16 on a
CPU and is slower there; all else is as llama.cpp has it by default.
"""

import ctypes
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.errors import BuaError


def llama_cpp_or_none() -> Any:
    """llama_cpp's module, or None where it, or gguf for its file, is not installed."""
    try:
        import gguf  # noqa: F401
        import llama_cpp
    except ImportError:
        return None
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # it prints what it logs
    return llama_cpp


def load(llama_cpp: Any, path: Path) -> Any:
    """The model of a GGUF file, on the CPU. It stays in memory until the process ends."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if model is None:
        raise BuaError(f"llama.cpp cannot load {path}.")
    return model


def generate(llama_cpp: Any, model: Any, tokens: np.ndarray, new: int) -> list[list[int]]:
    """`new` greedy tokens after every row of tokens int32[B, T], each row a sequence of one batch."""
    rows, prompt = tokens.shape
    params = llama_cpp.llama_context_default_params()
    slots = -(-(prompt + new) // 256) * 256  # as it rounds them itself
    params.n_ctx, params.n_seq_max = rows * slots, rows
    params.n_batch = tokens.size
    params.n_threads = params.n_threads_batch = os.cpu_count()
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    if context is None:
        raise BuaError(f"llama.cpp has no context for {rows} rows of {prompt + new} tokens.")
    batch = llama_cpp.llama_batch_init(tokens.size, 0, 1)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    answers, following, past = [], tokens, 0
    try:
        for _ in range(new):
            _fill(batch, following, past)
            if llama_cpp.llama_decode(context, batch):
                raise BuaError(f"llama.cpp could not decode {following.size} tokens.")
            logits = llama_cpp.llama_get_logits(context)
            best = np.ctypeslib.as_array(logits, (rows, vocabulary)).argmax(1)
            past += following.shape[1]
            following = best[:, None].astype(np.int32)
            answers.append(best)
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
    return np.stack(answers, 1).tolist()


def _fill(batch: Any, tokens: np.ndarray, past: int) -> None:
    """Sets the batch to tokens int32[B, T] at positions from `past` on; the last have logits."""
    rows, count = tokens.shape
    last = np.arange(count) == count - 1
    fields = {
        "token": tokens,
        "pos": np.broadcast_to(past + np.arange(count), tokens.shape),
        "n_seq_id": np.ones(tokens.shape),
        "logits": np.broadcast_to(last, tokens.shape),
    }
    batch.n_tokens = tokens.size
    for name, values in fields.items():
        np.ctypeslib.as_array(getattr(batch, name), (tokens.size,))[:] = values.ravel()
    for place, row in enumerate(np.repeat(np.arange(rows), count)):
        batch.seq_id[place][0] = ctypes.c_int32(int(row))
