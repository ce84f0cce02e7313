"""Builds nano: its tokenizer, its pretraining and its Hugging Face directory.

Examples:
  python -m bua_jax.pretrain_nano --output=runs/nano --steps=300
  launch/pretrain_nano.sh          # the command that made the shipped directory

The corpus is a simulated population of a reserved seed that no run can split. Half of its histories
are spelled out in words, half give each event as the (noisy) mean of its words' embeddings; it holds
no prediction, generation or future-scene answers.
"""

import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from bua_jax import cli
from bua_jax.alignment.warm_start import event_words
from bua_jax.basics import files
from bua_jax.basics.console import bar, notice
from bua_jax.interop import huggingface, nano
from bua_jax.interop.tokenizer import load_tokenizer
from bua_jax.models.aligned import cross_entropy
from bua_jax.models.presets import PRESETS
from bua_jax.models.qwen2 import Qwen2

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "runs/nano", "Folder to write.")
flags.DEFINE_integer("steps", 4500, "Optimizer steps.")
flags.DEFINE_integer("dialogues", 90_000, "Corpus dialogues.")
flags.DEFINE_string("init", "", "nano directory to go on from, with its tokenizer; empty = anew.")
flags.DEFINE_float("rate", 1.0, "Scale of the learning rates.")
flags.DEFINE_integer("seed", 0, "Of initialisation and data order.")

ROW, BATCH = 384, 10
HELD = 32  # rows held out
WORDS = 16  # tokens of an event's words, at most
NOISE = 0.5  # largest norm of the noise on an event's vector, relative to the vector's


def packed_rows(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Corpus as rows of ROW tokens.

    tokens, segments, positions int32[n, ROW], answer bool[n, ROW]; words int32[n, S, WORDS] and
    weights float32[n, S, WORDS] of the row's events given as vectors, in order.
    """
    tokenizer = load_tokenizer(folder, PRESETS["nano"].vocab_size)
    store = nano.corpus_store(400, 60)
    rng = np.random.default_rng(2)
    parts = [store, *(nano.relabelled(store, rng) for _ in range(4))]
    shares = (0.5, 0.125, 0.125, 0.125, 0.125)
    keys = ("tokens", "segments", "positions", "answer")
    rows: list[dict[str, Any]] = []
    fill = ROW
    for part, share in zip(parts, shares, strict=True):
        for spelled, length in ((True, 20), (False, 44)):
            number = int(count * share / 2)
            for window, dialogue in nano.dialogues(part, number, seed=3, length=length):
                ids, answer = nano.encode(tokenizer, window, dialogue, spelled=spelled)
                if len(ids) > ROW:
                    continue
                if fill + len(ids) > ROW:
                    rows.append({key: np.zeros(ROW, np.int32) for key in keys} | {"events": []})
                    fill, segment = 0, 0
                at, segment = slice(fill, fill + len(ids)), segment + 1
                rows[-1]["tokens"][at] = ids
                rows[-1]["segments"][at] = segment
                rows[-1]["positions"][at] = np.arange(len(ids))
                rows[-1]["answer"][at] = answer
                if not spelled:
                    fields = window.history.encoder_fields().tolist()
                    rows[-1]["events"] += [
                        event_words(tokenizer, part.catalogue, f) for f in fields
                    ]
                fill += len(ids)
    order = rng.permutation(len(rows))
    packed = {key: np.stack([row[key] for row in rows])[order] for key in keys}
    most = max(len(row["events"]) for row in rows)
    words = np.zeros((len(rows), most, WORDS), np.int32)
    weights = np.zeros((len(rows), most, WORDS), np.float32)
    for i, row in enumerate(order):
        for j, (ids, weight) in enumerate(rows[row]["events"]):
            words[i, j, : len(ids)], weights[i, j, : len(ids)] = ids, weight
    return {**packed, "words": words, "weights": weights}


def loss_of(model: Qwen2, soft_id: int, params, batch, noise_key=None) -> jax.Array:
    """Mean nll of answers plus a tenth of that of all tokens but placeholders."""
    tokens, segments = batch["tokens"], batch["segments"]
    embeddings: Any = model.apply({"params": params}, tokens, method="embed")
    table = params["embed_tokens"]["embedding"]
    vectors = jnp.einsum("bsk,bskh->bsh", batch["weights"], table[batch["words"]])
    if noise_key is not None:
        amount_key, key = jax.random.split(noise_key)
        amount = NOISE * jax.random.uniform(amount_key, (len(tokens), 1, 1))
        size = jnp.linalg.norm(vectors, axis=-1, keepdims=True) * vectors.shape[-1] ** -0.5
        vectors += amount * jax.lax.stop_gradient(size) * jax.random.normal(key, vectors.shape)
    is_soft = tokens == soft_id
    index = jnp.clip(jnp.cumsum(is_soft, axis=1) - 1, 0, vectors.shape[1] - 1)
    vectors = jnp.take_along_axis(vectors, index[:, :, None], axis=1)
    embeddings = jnp.where(is_soft[:, :, None], vectors, embeddings)
    hidden: Any = model.apply(
        {"params": params}, embeddings, batch["positions"], segments, method="hidden"
    )
    logits: Any = model.apply({"params": params}, hidden[:, :-1], method="unembed")
    nll = cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0) & ~is_soft[:, 1:]
    inside = inside.reshape(-1)
    answer = batch["answer"][:, 1:].reshape(-1) * inside
    return jnp.sum(nll * answer) / jnp.sum(answer) + 0.1 * jnp.sum(nll * inside) / jnp.sum(inside)


def make_optimizer(steps: int, scale: float) -> optax.GradientTransformation:
    """Muon on the layers' matrices (stacked: [layers, in, out]), Adam on all else."""
    matrices = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

    def rate(peak: float) -> optax.Schedule:
        peak *= scale
        return optax.warmup_cosine_decay_schedule(
            0.0, peak, min(200, steps // 10), steps, 0.02 * peak
        )

    muon = optax.contrib.muon(
        rate(0.02),
        adam_b2=0.98,
        adam_learning_rate=rate(4e-3),
        muon_weight_dimension_numbers=lambda tree: jax.tree.map(
            lambda x: matrices if x.ndim == 3 else None, tree
        ),
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def main() -> None:
    folder, config = Path(FLAGS.output), PRESETS["nano"]
    folder.mkdir(parents=True, exist_ok=True)
    if FLAGS.init:
        shutil.copyfile(Path(FLAGS.init) / "tokenizer.json", folder / "tokenizer.json")
    else:
        with files.atomic_write(folder / "tokenizer.json") as temporary:
            nano.train_tokenizer().save(str(temporary))
    files.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"},
    )
    rows = packed_rows(folder, FLAGS.dialogues)
    soft_id = load_tokenizer(folder, config.vocab_size).soft
    held = {key: value[:HELD] for key, value in rows.items()}
    rows = {key: value[HELD:] for key, value in rows.items()}
    count = len(rows["tokens"])
    notice(f"{count} rows of {ROW} tokens, {(rows['segments'] > 0).mean():.1%} filled")
    model = Qwen2(config)
    if FLAGS.init:
        _, params = huggingface.load(FLAGS.init, "float32")
    else:
        params = model.init(jax.random.key(FLAGS.seed), jnp.zeros((1, 8), jnp.int32))["params"]
    optimizer = make_optimizer(FLAGS.steps, FLAGS.rate)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch, key):
        of = functools.partial(loss_of, model, soft_id)
        loss, grads = jax.value_and_grad(of)(params, batch, key)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    evaluate = jax.jit(functools.partial(loss_of, model, soft_id))
    state, rng, begin = optimizer.init(params), np.random.default_rng(FLAGS.seed), time.monotonic()
    order = np.concatenate(
        [rng.permutation(count) for _ in range(FLAGS.steps * BATCH // count + 1)]
    )
    with bar() as display:
        task = display.add_task("nano", total=FLAGS.steps)
        for number in range(FLAGS.steps):
            picked = order[number * BATCH : (number + 1) * BATCH]
            key = jax.random.fold_in(jax.random.key(FLAGS.seed), number)
            part = {k: v[picked] for k, v in rows.items()}
            params, state, loss = step(params, state, part, key)
            display.advance(task)
            if number % 100 == 99:
                held_loss = float(evaluate(params, held))
                notice(f"step {number + 1}: loss {float(loss):.3f}, held out {held_loss:.3f}")
    # Unused rows start at the mean embedding, not at untrained noise.
    table = params["embed_tokens"]["embedding"]
    params["embed_tokens"]["embedding"] = table.at[nano.VOCABULARY : soft_id - 1].set(
        table[: nano.VOCABULARY].mean(0)
    )
    huggingface.save(folder, config, params)
    held_loss = float(evaluate(params, held))
    card: dict[str, Any] = {
        "steps": FLAGS.steps,
        "dialogues": FLAGS.dialogues,
        "held_out_loss": held_loss,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    if FLAGS.init:
        card["before"] = files.read_json(Path(FLAGS.init) / "training.json")
    files.write_json(folder / "training.json", card)
    print(json.dumps(card))


if __name__ == "__main__":
    cli.run(main)
