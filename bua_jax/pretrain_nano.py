"""Builds nano: its tokenizer, its pretraining and its Hugging Face directory.

Examples:
  python -m bua_jax.pretrain_nano --output=runs/nano --steps=300
  launch/pretrain_nano.sh          # the command that made the shipped directory

The corpus is a simulated population of a reserved seed that no run can split; its histories are
spelled out in words, and it holds no prediction, generation or future-scene answers.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from bua_jax import cli, files
from bua_jax.console import bar, notice
from bua_jax.interop import huggingface, nano
from bua_jax.interop.tokenizer import load_tokenizer
from bua_jax.models.aligned import cross_entropy
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2, causal_mask

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "runs/nano", "Folder to write.")
flags.DEFINE_integer("steps", 4000, "Optimizer steps.")
flags.DEFINE_integer("dialogues", 40_000, "Corpus dialogues.")
flags.DEFINE_integer("seed", 0, "Of initialisation and data order.")

ROW, BATCH = 384, 8


def packed_rows(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Corpus as rows of ROW tokens: tokens, segments, positions int32[n, ROW], answer bool[n, ROW]."""
    tokenizer = load_tokenizer(folder, PRESETS["nano"].vocab_size)
    store = nano.corpus_store(300, 60)
    rng = np.random.default_rng(2)
    parts = [store, *(nano.relabelled(store, rng) for _ in range(4))]
    shares = (0.5, 0.125, 0.125, 0.125, 0.125)
    keys = ("tokens", "segments", "positions", "answer")
    rows: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    row = {key: np.zeros(ROW, np.int32) for key in keys}
    fill, segment = 0, 0
    for part, share in zip(parts, shares, strict=True):
        for window, dialogue in nano.dialogues(part, int(count * share), seed=3):
            ids, answer = nano.encode(tokenizer, window, dialogue)
            if len(ids) > ROW:
                continue
            if fill + len(ids) > ROW:
                for key in keys:
                    rows[key].append(row[key])
                row = {key: np.zeros(ROW, np.int32) for key in keys}
                fill, segment = 0, 0
            part_slice, segment = slice(fill, fill + len(ids)), segment + 1
            row["tokens"][part_slice] = ids
            row["segments"][part_slice] = segment
            row["positions"][part_slice] = np.arange(len(ids))
            row["answer"][part_slice] = answer
            fill += len(ids)
    order = rng.permutation(len(rows["tokens"]))
    return {key: np.stack(rows[key])[order] for key in keys}


def loss_of(model: Qwen2, params, batch) -> jax.Array:
    """Mean nll of answers plus a tenth of that of all tokens."""
    tokens, segments = batch["tokens"], batch["segments"]
    embeddings = model.apply({"params": params}, tokens, method="embed")
    hidden, _ = model.apply(
        {"params": params}, embeddings, batch["positions"], causal_mask(segments), method="hidden"
    )
    logits: Any = model.apply({"params": params}, hidden[:, :-1], method="unembed")
    nll = cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    inside = ((segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)).reshape(-1)
    answer = batch["answer"][:, 1:].reshape(-1) * inside
    return jnp.sum(nll * answer) / jnp.sum(answer) + 0.1 * jnp.sum(nll * inside) / jnp.sum(inside)


def main() -> None:
    folder, config = Path(FLAGS.output), PRESETS["nano"]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = nano.train_tokenizer()
    with files.atomic_write(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    files.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"},
    )
    rows = packed_rows(folder, FLAGS.dialogues)
    held = {key: value[:48] for key, value in rows.items()}
    rows = {key: value[48:] for key, value in rows.items()}
    count = len(rows["tokens"])
    notice(f"{count} rows of {ROW} tokens, {(rows['segments'] > 0).mean():.1%} filled")
    model = Qwen2(config)
    params = model.init(jax.random.key(FLAGS.seed), jnp.zeros((1, 8), jnp.int32))["params"]
    schedule = optax.warmup_cosine_decay_schedule(0.0, 4e-3, 200, FLAGS.steps, 1e-4)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule,
            b2=0.98,
            weight_decay=0.05,
            mask=lambda tree: jax.tree.map(lambda x: x.ndim > 2, tree),
        ),
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        loss, grads = jax.value_and_grad(functools.partial(loss_of, model))(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    evaluate = jax.jit(functools.partial(loss_of, model))
    state, rng, begin = optimizer.init(params), np.random.default_rng(FLAGS.seed), time.monotonic()
    order = np.concatenate(
        [rng.permutation(count) for _ in range(FLAGS.steps * BATCH // count + 1)]
    )
    with bar() as display:
        task = display.add_task("nano", total=FLAGS.steps)
        for number in range(FLAGS.steps):
            picked = order[number * BATCH : (number + 1) * BATCH]
            params, state, loss = step(params, state, {k: v[picked] for k, v in rows.items()})
            display.advance(task)
            if number % 100 == 99:
                held_loss = float(evaluate(params, held))
                notice(f"step {number + 1}: loss {float(loss):.3f}, held out {held_loss:.3f}")
    # Unused rows (soft tokens among them) start at the mean embedding, not at untrained noise.
    table = params["embed_tokens"]["embedding"]
    params["embed_tokens"]["embedding"] = table.at[nano.VOCABULARY :].set(
        table[: nano.VOCABULARY].mean(0)
    )
    huggingface.save(folder, config, params)
    held_loss = float(evaluate(params, held))
    card = {
        "steps": FLAGS.steps,
        "dialogues": FLAGS.dialogues,
        "held_out_loss": held_loss,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    files.write_json(folder / "training.json", card)
    print(json.dumps(card))


if __name__ == "__main__":
    cli.run(main)
